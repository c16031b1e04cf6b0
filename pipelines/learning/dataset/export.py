"""`dataset export`: the labelled images in the format of another program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine.errors import ConfigError
from pipelines.learning.dataset.formats.base import Exported
from pipelines.learning.dataset.formats.coco import write_coco
from pipelines.learning.dataset.formats.cvat import write_cvat
from pipelines.learning.dataset.formats.label_studio import write_label_studio
from pipelines.learning.dataset.formats.voc import write_voc
from pipelines.learning.dataset.formats.yolo import write_yolo
from pipelines.learning.dataset.project import Project, read_picture

Write = Callable[[Sequence[Exported], Sequence[str], Path], None]
WRITERS: Mapping[str, Write] = MappingProxyType(
    {
        "yolo": write_yolo,
        "coco": write_coco,
        "voc": write_voc,
        "cvat": write_cvat,
        "label_studio": write_label_studio,
    }
)


def export(
    project: Project, form: str, out: Path, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Write the labelled images and their labels to a new folder and return the counts.

    Raises:
        ConfigError: the format is unknown, the folder is not empty, or nothing is labelled.
    """
    if form not in WRITERS:
        raise ConfigError(f"--as {form}: expected one of {', '.join(WRITERS)}")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: is not empty: give a new folder with --out")
    labelled = project.labelled()
    if not labelled:
        raise ConfigError(f"{project.folder}: no labelled images yet")
    out.mkdir(parents=True, exist_ok=True)
    items = []
    for number, (part, image) in enumerate(labelled):
        height, width = read_picture(image)[1].shape[:2]
        items.append(Exported(image, f"{part}/{image.name}", (width, height), project.boxes(image)))
        if progress is not None:
            progress(number + 1, len(labelled))
    WRITERS[form](items, project.classes, out)
    return {"folder": str(out), "format": form, "images": len(items), "objects": sum(len(one.boxes) for one in items)}
