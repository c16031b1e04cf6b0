"""Ground truth boxes of images: a folder of YOLO text files, or one COCO JSON file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.files.openvino_ir import read_metadata_yaml
from engine.boxes import xyxy_from_cxcywh, xyxy_from_tlwh
from engine.detection import metadata
from engine.errors import ConfigError, ModelError
from engine.video.read_image import IMAGE_SUFFIXES
from pipelines.scoring.label_files import is_coordinate, json_of, text_of


@dataclass(frozen=True, slots=True)
class Truth:
    """The objects of one image.

    Attributes:
        image: the file.
        xyxy: (N, 4) float32 in pixels, or in fractions of the image if `normalised`.
        class_id: (N,) int32.
        crowd: (N,) bool; a crowd region counts neither for nor against.
        normalised: whether the boxes are fractions of the image.
    """

    image: Path
    xyxy: NDArray[np.float32]
    class_id: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    normalised: bool = False

    def pixels(self, width: int, height: int) -> NDArray[np.float32]:
        """Return the boxes in pixels of an image of this size."""
        if not self.normalised:
            return self.xyxy
        scaled: NDArray[np.float32] = self.xyxy * np.array([width, height, width, height], np.float32)
        return scaled


def find_images(folder: Path) -> list[Path]:
    """Return the images of a folder, or of the `images` folder in it, by name. Raises `ConfigError`."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    for place in (folder, folder / "images"):
        if place.is_dir():
            images = sorted(path for path in place.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
            if images:
                return images
    raise ConfigError(f"{folder}: no images in it: expected {', '.join(sorted(IMAGE_SUFFIXES))}")


def read_truth(images: Path, labels: Path | None, class_names: Sequence[str]) -> list[Truth]:
    """Return the ground truth of each image.

    Args:
        images: folder of images.
        labels: folder of YOLO text files (`class cx cy w h` or a polygon, as fractions), or a COCO JSON file; None
            looks for a folder `labels` next to `images` or in its place, the layout of YOLO data sets.
        class_names: of the model. Categories of a COCO file are matched to them by name; so are the names of a
            `data.yaml` above the text files if their order differs.

    Raises:
        ConfigError: there are no labels, a file cannot be read, an object has a category that the model lacks, or no
            image has an object.
    """
    truth = _read(images, labels, class_names)
    if not any(len(one.class_id) for one in truth):
        place = labels or "the labels"
        raise ConfigError(
            f"{place}: no objects on any of {len(truth)} images in {images}: expected text files named like them, "
            "or a COCO .json file with objects on them"
        )
    return truth


def _read(images: Path, labels: Path | None, class_names: Sequence[str]) -> list[Truth]:
    files = find_images(images)
    place = labels if labels is not None else _beside(images, files[0].parent)
    if place.is_dir():
        own = _own_classes(place, class_names)
        return [_read_yolo(image, place / f"{image.stem}.txt", own) for image in files]
    if place.suffix.lower() == ".json" and place.is_file():
        return _read_coco(files, place, class_names)
    raise ConfigError(f"{place}: no labels: expected a folder of YOLO text files or a COCO .json file")


def _beside(images: Path, folder: Path) -> Path:
    candidates = [folder.parent / "labels", Path(*("labels" if part == "images" else part for part in folder.parts))]
    found = next((place for place in candidates if place.is_dir() and place != folder), None)
    if found is None:
        raise ConfigError(
            f"{images}: no labels next to it: name them (a folder of YOLO text files or a COCO .json file)"
        )
    return found


def _own_classes(place: Path, class_names: Sequence[str]) -> list[int | str]:
    """Return the model's class id for each number in the text files, or the name if the model lacks the class.

    A `data.yaml` above the labels gives the names. If there is none, or if its names are in the model's order (even if
    worded differently), the numbers are the model's own.
    """
    numbers: list[int | str] = list(range(len(class_names)))
    file = next(
        (path for folder in list(place.absolute().parents)[:2] if (path := folder / "data.yaml").is_file()), None
    )
    try:
        names = metadata.class_names(read_metadata_yaml(file)) if file is not None else None
    except ModelError as error:
        raise ConfigError(str(error)) from error
    if not names:
        return numbers
    class_by_name = {name.lower(): index for index, name in enumerate(class_names)}
    own = [class_by_name.get(name.lower(), name) for name in names]
    moved = any(isinstance(number, int) and number != index for index, number in enumerate(own))
    return own if moved else numbers


def _read_yolo(image: Path, path: Path, own: Sequence[int | str]) -> Truth:
    """Return the boxes of one text file; an image without a file has no objects."""
    lines = text_of(path).splitlines() if path.is_file() else []
    rows = [_yolo_row(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    unknown = [row[0] for row in rows if not 0 <= row[0] < len(own)]
    if unknown:
        raise ConfigError(f"{path}: class {unknown[0]}: the model has classes 0 to {len(own) - 1}")
    ids = [own[int(row[0])] for row in rows]
    foreign = [name for name in ids if isinstance(name, str)]
    if foreign:
        raise ConfigError(f"{path}: class {foreign[0]} of data.yaml is not a class of the model")
    class_id = np.array(ids, np.int32)
    xyxy = np.array([row[1:] for row in rows], np.float32).reshape(-1, 4)
    return Truth(image, xyxy, class_id, np.zeros(len(rows), bool), normalised=True)


def _yolo_row(line: str, place: str) -> tuple[float, float, float, float, float]:
    try:
        values = [float(value) for value in line.split()]
        class_id = int(values[0])
    except (ValueError, IndexError, OverflowError) as error:
        raise ConfigError(f"{place}: {line[:60]!r}: expected class cx cy w h") from error
    if not all(map(is_coordinate, values[1:])):
        raise ConfigError(f"{place}: {line[:60]!r}: expected finite numbers")
    numbers = np.array(values[1:], np.float32)
    if len(numbers) == 4:
        x1, y1, x2, y2 = xyxy_from_cxcywh(numbers[None])[0].tolist()
        return (class_id, x1, y1, x2, y2)
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        x, y = numbers[::2], numbers[1::2]
        return (class_id, float(x.min()), float(y.min()), float(x.max()), float(y.max()))
    raise ConfigError(f"{place}: {len(numbers)} numbers after the class: expected 4, or a polygon")


@dataclass
class _Rows:
    tlwh: list[list[float]] = field(default_factory=list)
    class_id: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)


def _read_coco(files: Sequence[Path], path: Path, class_names: Sequence[str]) -> list[Truth]:
    """Return the boxes of a COCO file for the images that it names."""
    data = json_of(path)
    try:
        places = {entry["id"]: Path(entry["file_name"]).parts for entry in data["images"]}
        used = {entry["category_id"] for entry in data["annotations"]}
        class_by_category = _classes([entry for entry in data["categories"] if entry["id"] in used], class_names)
        rows: dict[tuple[str, ...], _Rows] = defaultdict(_Rows)
        for entry in data["annotations"]:
            row = rows[places[entry["image_id"]]]
            row.tlwh.append(_tlwh(entry["bbox"]))
            row.class_id.append(class_by_category[entry["category_id"]])
            row.crowd.append(bool(entry.get("iscrowd", 0)))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"{path}: not a COCO annotation file ({type(error).__name__}: {error})") from error
    listed = defaultdict(set)
    for parts in places.values():
        listed[parts[-1] if parts else ""].add(parts)
    known = [image for image in files if image.name in listed]
    if not known:
        raise ConfigError(f"{path}: does not name any image in {files[0].parent}")
    return [_truth(image, rows[_place(image, listed[image.name], path)]) for image in known]


def _tlwh(bbox: Any) -> list[float]:
    values = [float(value) for value in bbox]
    if len(values) != 4 or not all(map(is_coordinate, values)):
        raise ConfigError(f"bbox {str(bbox)[:80]}: expected left, top, width and height")
    return values


def _place(image: Path, places: set[tuple[str, ...]], path: Path) -> tuple[str, ...]:
    """Return which of several file names of a COCO file, with their folders, refers to an image."""
    if len(places) > 1:
        whole = image.absolute().parts
        places = {parts for parts in places if whole[-len(parts) :] == parts}
    if len(places) != 1:
        raise ConfigError(f"{path}: names {image.name} in several folders: give the folder that its names start from")
    return next(iter(places))


def _classes(categories: Sequence[dict[str, Any]], class_names: Sequence[str]) -> dict[int, int]:
    """Return the model's class id by category id."""
    class_by_name = {name.lower(): index for index, name in enumerate(class_names)}
    unknown = [entry["name"] for entry in categories if str(entry["name"]).lower() not in class_by_name]
    if unknown:
        raise ConfigError(f"categories {', '.join(map(str, unknown[:5]))} are not classes of the model")
    return {entry["id"]: class_by_name[str(entry["name"]).lower()] for entry in categories}


def _truth(image: Path, rows: _Rows) -> Truth:
    tlwh = np.array(rows.tlwh, np.float32).reshape(-1, 4)
    return Truth(image, xyxy_from_tlwh(tlwh), np.array(rows.class_id, np.int32), np.array(rows.crowd, bool))
