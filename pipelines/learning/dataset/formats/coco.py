"""COCO: one JSON file with images, categories and annotations, boxes as x, y, width, height in pixels."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from pipelines.learning.dataset.boxes import NamedBox, named_box
from pipelines.learning.dataset.formats.base import Exported, Images, Labelled
from pipelines.learning.dataset.formats.copies import copied
from pipelines.scoring.label_files import json_of


def is_coco(content: object) -> bool:
    """Return whether a JSON value has the lists of a COCO file."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "categories"))


def read_coco(path: Path, images: Path | None) -> Iterator[Labelled]:
    """Yield the images of a COCO file. Crowd regions are left out. Raises `ConfigError`."""
    content = json_of(path)
    folder = path.parent
    places = Images([images] if images else [folder, folder / "images", folder.parent / "images"], path)
    try:
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for entry in content.get("annotations", []):
            rows[entry["image_id"]].append(entry)
        for entry in content["images"]:
            size = float(entry["width"]), float(entry["height"])
            mine = rows[entry["id"]]
            boxes = [_box(one, names, size) for one in mine if not one.get("iscrowd") and one.get("bbox")]
            image = places.find(str(entry["file_name"]))
            part = next((name for name in ("train", "val", "test") if name in Path(str(entry["file_name"])).parts), "")
            yield Labelled(image, boxes, part=part, left_out=len(mine) - len(boxes))
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"{path}: not a COCO file ({type(error).__name__}: {error})") from error


def _box(entry: dict[str, Any], names: dict[Any, str], size_wh: tuple[float, float]) -> NamedBox:
    x, y, width, height = map(float, entry["bbox"])
    return named_box(names[entry["category_id"]], x, y, x + width, y + height, size_wh)


def write_coco(items: Sequence[Exported], classes: Sequence[str], folder: Path) -> None:
    """Write `annotations.json`, with file names that begin with the split, and the images."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, one in enumerate(items, 1):
        copied(one.image, folder / "images" / one.name)
        width, height = one.size_wh
        images.append({"id": number, "file_name": one.name, "width": width, "height": height})
        for box in one.boxes:
            x1, y1, x2, y2 = one.pixels(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": box.class_id + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
