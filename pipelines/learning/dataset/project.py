"""`NAME.fwm`, the folder of a model: its images, labels, splits.

    project.yaml              the classes
    data.yaml                 the same for other tools
    inbox/                    unlabelled images; suggestions/ holds a model's suggestions for them
    images/{train,val,test}/  labelled images, labels/ the same with one text file per image; held/ see `split`
    items.jsonl               where each image comes from: camera, day, clip, perceptual hash
    splits.json               which group belongs to which split, and the hash that locks the test split

An image in `images` counts as labelled even without objects: training reads only that folder.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from engine.errors import ConfigError, EngineError
from engine.video.read_image import IMAGE_SUFFIXES, read_image
from pipelines.learning.dataset.boxes import MAX_LABEL_BYTES, Box, boxes_from_text, text_from_boxes
from pipelines.learning.dataset.likeness import UNKNOWN, Look, cells_from, look_of
from pipelines.learning.yaml_files import class_names, yaml_file

INBOX = "inbox"
PARTS = ("train", "val", "test", "held")
MAX_CLASSES = 2000
MAX_TABLE_BYTES = 256 << 20
MAX_ROW_BYTES = 64 << 10
MAX_STEM_BYTES = 200
_UNSOUND = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of surrogate pairs, line separators
_STEM = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an image comes from.

    Attributes:
        fields: attributes to group it by: `camera`, `day`, `clip`, `folder`.
        look: what is remembered of it to compare it with others.
        frame: its number in the clip; None if it is not from a clip.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    look: Look = UNKNOWN
    frame: int | None = None


def _look(row: Mapping[str, Any]) -> Look:
    """Return the look in a row of items.jsonl. Raises `KeyError` or `ValueError`."""
    return Look(int(row["likeness"], 16), cells_from(row.get("cells", "")))


class Project:
    """A project folder. Several processes may add images at once; labels are written completely or not at all.

    Args:
        folder: an existing project.

    Raises:
        ConfigError: the folder is not a project, or its project.yaml is broken.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.classes = _read_classes(self.folder)

    @classmethod
    def create(cls, folder: str | Path, classes: Sequence[str]) -> Project:
        """Create a new project with these classes. Raises `ConfigError` if it already exists."""
        place = Path(folder)
        if (place / "project.yaml").exists():
            raise ConfigError(f"{place}: is already a project: leave out the classes, or use another folder")
        _check_classes(classes, place)
        place.mkdir(parents=True, exist_ok=True)
        write_whole(place / "project.yaml", yaml.safe_dump({"classes": list(classes)}, allow_unicode=True))
        project = cls(place)
        project._write_data_yaml()
        return project

    def add_classes(self, names: Iterable[str]) -> None:
        """Append classes; existing ones keep their numbers."""
        new = [name for name in dict.fromkeys(names) if name not in self.classes]
        if not new:
            return
        classes = [*self.classes, *new]
        _check_classes(classes, self.folder)
        write_whole(self.folder / "project.yaml", yaml.safe_dump({"classes": classes}, allow_unicode=True))
        self.classes = tuple(classes)
        self._write_data_yaml()

    def _write_data_yaml(self) -> None:
        content = {"path": ".", "train": "images/train", "val": "images/val", "test": "images/test"}
        write_whole(
            self.folder / "data.yaml", yaml.safe_dump({**content, "names": list(self.classes)}, sort_keys=False)
        )

    def images(self, part: str) -> list[Path]:
        """Return the images of the inbox or a split, by name."""
        place = self.place_of(part)
        return sorted(path for path in place.glob("*") if _is_own_image(path))

    def place_of(self, part: str) -> Path:
        """Return the folder of the inbox or of a split."""
        return self.folder / INBOX if part == INBOX else self.folder / "images" / part

    def labelled(self) -> list[tuple[str, Path]]:
        """Return split and path of every labelled image."""
        return [(part, image) for part in PARTS for image in self.images(part)]

    def find(self, name: str) -> Path:
        """Return the image with a name; a name that contains a path is never looked up. Raises `ConfigError`."""
        for part in (INBOX, *PARTS) if name == Path(name).name else ():
            place = self.place_of(part) / name
            if _is_own_image(place):
                return place
        raise ConfigError(f"{name[:80]}: no such image in {self.folder}")

    def label_of(self, image: Path) -> Path:
        """Return the label file of an image in a split."""
        return self.folder / "labels" / image.parent.name / f"{image.stem}.txt"

    def boxes(self, image: Path) -> list[Box]:
        """Return the labels of an image; none if it is in the inbox. Raises `ConfigError`."""
        place = self.label_of(image)
        if image.parent.name == INBOX or not place.is_file():
            return []
        if place.stat().st_size > MAX_LABEL_BYTES:
            raise ConfigError(f"{place}: larger than {MAX_LABEL_BYTES >> 20} MiB: expected a line per object")
        return boxes_from_text(place.read_text(encoding="utf-8", errors="replace"), str(place))

    def save_boxes(self, image: Path, boxes: Sequence[Box], part: str = "train") -> Path:
        """Write the labels of an image, which moves it from the inbox to a split; return its new path."""
        place = image
        if image.parent.name == INBOX:
            place = self.place_of(part) / image.name
            place.parent.mkdir(parents=True, exist_ok=True)
        label = self.label_of(place)
        label.parent.mkdir(parents=True, exist_ok=True)
        write_whole(label, text_from_boxes(boxes))
        if place != image:
            os.replace(image, place)  # after the labels, because an image in a split always has some
        return place

    def to_inbox(self, image: Path) -> Path:
        """Remove the labels of an image and move it back to the inbox."""
        place = self.place_of(INBOX) / image.name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(image, place)
        self.label_of(image).unlink(missing_ok=True)
        return place

    def suggestions(self, image: Path) -> list[dict[str, Any]]:
        """Return a model's suggestions for an image: `class_name`, `score`, `xyxy` as fractions."""
        place = self.folder / "suggestions" / f"{image.name}.json"
        try:
            values = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return []
        return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []

    def suggest(self, name: str, objects: Sequence[Mapping[str, Any]]) -> None:
        """Store a model's suggestions, which are never labels."""
        place = self.folder / "suggestions" / f"{name}.json"
        place.parent.mkdir(exist_ok=True)
        write_whole(place, json.dumps(list(objects)))

    def add(
        self,
        content: bytes,
        name: str,
        image: NDArray[np.uint8],
        fields: Mapping[str, str],
        *,
        frame: int | None = None,
    ) -> Path:
        """Add an image to the inbox and return its path.

        Args:
            content: of the file.
            name: the preferred name; made unique and safe as a file name.
            image: the decoded image, (H, W, 3) uint8 BGR.
            fields: attributes to group it by.
            frame: its number in a clip.
        """
        place = self.place_of(INBOX)
        place.mkdir(parents=True, exist_ok=True)
        stem, suffix = _safe_stem(Path(name).stem), Path(name).suffix.lower()
        taken = {path.stem for part in (INBOX, *PARTS) for path in self.place_of(part).glob(f"{_globbed(stem)}*")}
        unique = next(text for text in _names_from(stem) if text not in taken)
        target = place / f"{unique}{suffix}"
        write_whole(target, content)
        look = look_of(image)
        row = {"name": target.name, "fields": dict(fields), "likeness": f"{look.bits:016x}", "frame": frame}
        row["cells"] = look.text()
        with (self.folder / "items.jsonl").open("a", encoding="utf-8") as table:
            table.write(json.dumps(row) + "\n")
        return target

    def origins(self) -> dict[str, Origin]:
        """Return the origin of each image, by name. Damaged lines are skipped."""
        table = self.folder / "items.jsonl"
        if not table.is_file():
            return {}
        if table.stat().st_size > MAX_TABLE_BYTES:
            raise ConfigError(f"{table}: larger than {MAX_TABLE_BYTES >> 20} MiB: divide the images among projects")
        found = {}
        for line in _rows(table):
            try:
                row = json.loads(line)
                fields = {str(key): str(value) for key, value in row["fields"].items()}
                found[str(row["name"])] = Origin(fields, _look(row), row.get("frame"))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
        return found


def _rows(table: Path) -> Iterator[str]:
    """Yield the lines of a table; of a line that is too long, which is damaged, its pieces."""
    with table.open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(MAX_ROW_BYTES):
            yield line


def _is_own_image(path: Path) -> bool:
    """Return whether a path is an image of the project, not a link to one elsewhere: projects come from others too."""
    return path.suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(path) and not path.is_symlink()


def open_or_create(folder: str | Path, classes: Sequence[str]) -> Project:
    """Return a project, creating it with these classes if it does not exist."""
    if (Path(folder) / "project.yaml").is_file():
        return Project(folder)
    return Project.create(folder, classes)


def read_picture(path: Path) -> tuple[bytes, NDArray[np.uint8]]:
    """Return the content of an image file and its (H, W, 3) uint8 BGR pixels. Raises `ConfigError`."""
    try:
        image = read_image(path)  # first, because it limits the size of the file
        return path.read_bytes(), image
    except (OSError, ValueError, EngineError) as error:
        raise ConfigError(f"{path}: cannot be read as an image: {error}") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically: others see either the new content or the old."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(part, path)


def _safe_stem(stem: str) -> str:
    """Return a stem that leaves room in the 255 bytes of a file name for a number, a suffix and `write_whole`."""
    kept = _STEM.sub("_", stem)[:120].encode()[:MAX_STEM_BYTES].decode(errors="ignore")
    return kept.strip(".") or "picture"


def _names_from(stem: str) -> Iterable[str]:
    yield stem
    yield from (f"{stem}_{number}" for number in range(1, 1 << 30))


def _globbed(stem: str) -> str:
    return stem.replace("[", "[[]")


def _check_classes(classes: Sequence[str], place: Path) -> None:
    sound = all(isinstance(name, str) and name.strip() == name and 0 < len(name) <= 200 for name in classes)
    sound = sound and not any(unicodedata.category(letter) in _UNSOUND for name in classes for letter in name)
    if not classes or not sound or len(set(classes)) < len(classes) or len(classes) > MAX_CLASSES:
        raise ConfigError(
            f"{place}: classes {list(classes)[:5]}: expected different names without control characters, at least one: "
            "--classes person,car"
        )


def _read_classes(folder: Path) -> tuple[str, ...]:
    path = folder / "project.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{folder}: not a project (no project.yaml): create one with framewire dataset import or collect"
        )
    values = yaml_file(path)
    classes = class_names(values.get("classes") if isinstance(values, dict) else None, f"{path}: classes")
    _check_classes(classes, path)
    return tuple(classes)
