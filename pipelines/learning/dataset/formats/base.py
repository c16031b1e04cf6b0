"""The common part of all formats: labelled images, and paths confined to a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import ConfigError
from engine.video.read_image import IMAGE_SUFFIXES
from pipelines.learning.dataset.boxes import Box, NamedBox


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image with its objects, or without any.

    Attributes:
        image: the file.
        boxes: the objects.
        is_labelled: whether it has been reviewed; an image without objects can be labelled.
        fields: attributes to group it by.
        part: its split in the original data set, or empty.
        left_out: shapes that are not boxes (lines, points, rotated boxes).
    """

    image: Path
    boxes: Sequence[NamedBox] = ()
    is_labelled: bool = True
    fields: Mapping[str, str] = field(default_factory=dict)
    part: str = ""
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Exported:
    """An image to write.

    Attributes:
        image: the file.
        name: unique, such as `train/gate_1.jpg`.
        size_wh: of the image.
        boxes: its objects, by class id.
    """

    image: Path
    name: str
    size_wh: tuple[int, int]
    boxes: Sequence[Box]

    def pixels(self, box: Box) -> tuple[float, float, float, float]:
        """Return the corners of a box in pixels."""
        width, height = self.size_wh
        x1, y1, x2, y2 = box.xyxy
        return x1 * width, y1 * height, x2 * width, y2 * height


class Images:
    """Finds the images named by label files, only inside their folder.

    Args:
        folders: where to look, in this order.
        labels: the file that names them, for messages.
    """

    def __init__(self, folders: Sequence[Path], labels: Path) -> None:
        self._folders, self._labels = [folder for folder in folders if folder.is_dir()], labels
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path:
        """Return the image with a name, looked up by its path or else by its last component. Raises `ConfigError`."""
        for folder in self._folders:
            place = folder / name
            if place.suffix.lower() in IMAGE_SUFFIXES and _is_inside(place, folder) and os.path.isfile(place):
                return place
        found = self._named(Path(name).name)
        if len(found) != 1:
            what = "no image" if not found else f"{len(found)} images"
            places = ", ".join(map(str, self._folders)) or self._labels.parent
            raise ConfigError(f"{self._labels}: {what} {name[:100]!r} in {places}: give the folder with --images")
        return checked(found[0], self._folders)

    def _named(self, name: str) -> list[Path]:
        if self._by_name is None:
            self._by_name = {}
            for folder in self._folders:
                for path in _images_below(folder):
                    if path not in self._by_name.setdefault(path.name, []):
                        self._by_name[path.name].append(path)
        return self._by_name.get(name, [])


def _is_inside(place: Path, folder: Path) -> bool:
    try:
        return place.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _images_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def checked(place: Path, folders: Sequence[Path]) -> Path:
    """Return an image or a label file, unless it is a link that leads out of these folders. Raises `ConfigError`."""
    if not any(_is_inside(place, folder) for folder in folders):
        raise ConfigError(f"{place}: is a link out of the data set: put a copy of the file there (cp -L)")
    return place


def pictures_of(folder: Path) -> Iterator[Path]:
    """Yield the images in a folder and its subfolders, by name. Raises `ConfigError` for links that lead out of it."""
    yield from (checked(path, [folder]) for path in sorted(_images_below(folder)))
