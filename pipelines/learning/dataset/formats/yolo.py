"""YOLO: `images/` and `labels/` with one text file per image, names in `data.yaml`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from engine.errors import ConfigError
from pipelines.learning.dataset.boxes import NamedBox, boxes_from_text, text_from_boxes
from pipelines.learning.dataset.formats.base import Exported, Labelled, checked, pictures_of
from pipelines.learning.dataset.formats.copies import copied
from pipelines.learning.yaml_files import class_names, yaml_file
from pipelines.scoring.label_files import text_of

PARTS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


def read_yolo(folder: Path, images: Path | None, given: Sequence[str]) -> Iterator[Labelled]:
    """Yield the images of a YOLO data set; `given` are the names if it has no `data.yaml`. Raises `ConfigError`."""
    names = _names(folder) or list(given)
    root = images or (folder / "images" if (folder / "images").is_dir() else folder)
    for image in pictures_of(root):
        label = _label_of(image, folder, root)
        boxes = boxes_from_text(text_of(label), str(label)) if label.is_file() else []
        unknown = [box.class_id for box in boxes if box.class_id >= len(names)]
        if unknown:
            raise ConfigError(
                f"{label}: class {unknown[0]}: only {len(names)} names: give --names coco, or all in order"
            )
        part = next((PARTS[name] for name in image.parts if name in PARTS), "")
        named = [NamedBox(names[box.class_id], box.cx, box.cy, box.w, box.h) for box in boxes]
        yield Labelled(image, named, is_labelled=label.is_file(), part=part)


def _label_of(image: Path, folder: Path, root: Path) -> Path:
    """Return the label file next to an image, or at the corresponding place in `labels`."""
    relative = image.relative_to(root).with_suffix(".txt")
    swapped = (
        [part if part != "images" else "labels" for part in image.relative_to(folder).parts]
        if image.is_relative_to(folder)
        else []
    )
    candidates = [
        folder / "labels" / relative,
        folder.joinpath(*swapped).with_suffix(".txt"),
        image.with_suffix(".txt"),
    ]
    found = next((place for place in candidates if place.is_file()), None)
    return candidates[0] if found is None else checked(found, [folder, folder / "labels", root])


def _names(folder: Path) -> list[str]:
    path = next((place for place in (folder / "data.yaml", folder.parent / "data.yaml") if place.is_file()), None)
    if path is None:
        return []
    values = yaml_file(checked(path, [path.parent]))
    return class_names(values.get("names") if isinstance(values, dict) else None, f"{path}: names")


def write_yolo(items: Sequence[Exported], classes: Sequence[str], folder: Path) -> None:
    """Write images and labels by split, and `data.yaml`."""
    for one in items:
        copied(one.image, folder / "images" / one.name)
        label = (folder / "labels" / one.name).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(text_from_boxes(one.boxes), encoding="utf-8")
    parts = {part: f"images/{part}" for part in ("train", "val", "test")}
    content = {"path": ".", **parts, "names": list(classes)}
    (folder / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
