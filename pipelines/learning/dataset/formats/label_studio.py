"""Label Studio: JSON tasks; boxes (`rectanglelabels`) as percentages of the image from its top left corner."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from engine.errors import ConfigError
from pipelines.learning.dataset.boxes import Box, NamedBox
from pipelines.learning.dataset.formats.base import Exported, Images, Labelled
from pipelines.learning.dataset.formats.copies import copied
from pipelines.scoring.label_files import json_of


def is_label_studio(content: object) -> bool:
    """Return whether a JSON value is a list of tasks."""
    return isinstance(content, list) and all(isinstance(task, dict) and "data" in task for task in content)


def read_label_studio(path: Path, images: Path | None) -> Iterator[Labelled]:
    """Yield the images of the tasks; an image without a completed annotation is not labelled. Raises `ConfigError`."""
    places = Images([images] if images else [path.parent, path.parent / "images"], path)
    try:
        for task in json_of(path):
            done = [one for one in task.get("annotations", []) if not one.get("was_cancelled")]
            results = done[-1]["result"] if done else []
            boxes = [box for result in results if (box := _box(result)) is not None]
            yield Labelled(
                places.find(_name(task["data"])), boxes, is_labelled=bool(done), left_out=len(results) - len(boxes)
            )
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise ConfigError(f"{path}: not tasks of Label Studio ({type(error).__name__}: {error})") from error


def _name(data: Mapping[str, Any]) -> str:
    """Return the path of a task's image without scheme and host; `?d=PATH` is how it serves local files."""
    text = str(data.get("image") or next(iter(data.values()), ""))
    address = urlsplit(text)
    path = address.query.removeprefix("d=") if address.query.startswith("d=") else address.path
    return unquote(path).lstrip("/")


def _box(result: Mapping[str, Any]) -> NamedBox | None:
    value = result["value"]
    if result.get("type") != "rectanglelabels" or value.get("rotation") or not value.get("rectanglelabels"):
        return None
    x, y, width, height = (float(value[key]) / 100 for key in ("x", "y", "width", "height"))
    return NamedBox(str(value["rectanglelabels"][0]), x + width / 2, y + height / 2, width, height)


def write_label_studio(items: Sequence[Exported], classes: Sequence[str], folder: Path) -> None:
    """Write `tasks.json` and the images; serve the folder to Label Studio as local files."""
    tasks = []
    for number, one in enumerate(items, 1):
        copied(one.image, folder / "images" / one.name)
        results = [_result(one, box, classes, f"{number}_{at}") for at, box in enumerate(one.boxes)]
        data = {"image": f"/data/local-files/?d=images/{one.name}"}
        tasks.append({"id": number, "data": data, "annotations": [{"result": results}]})
    (folder / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")


def _result(one: Exported, box: Box, classes: Sequence[str], key: str) -> dict[str, Any]:
    x1, y1, _, _ = box.xyxy
    value = {"x": x1 * 100, "y": y1 * 100, "width": box.w * 100, "height": box.h * 100, "rotation": 0}
    return {
        "id": key,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": one.size_wh[0],
        "original_height": one.size_wh[1],
        "value": {**value, "rectanglelabels": [classes[box.class_id]]},
    }
