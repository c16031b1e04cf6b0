"""The table of model families, and how a model's family is chosen.

The rows are tried in order: by the head that the metadata or the caller names, otherwise by task and output shapes.
The first row that fits wins, so the more specific ones come first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from engine.detection.heads.darknet import DARKNET
from engine.detection.heads.detr import DETR_LOGITS, DETR_SOFTMAX, RFDETR, RTDETR, RTDETR_RAW
from engine.detection.heads.faces import CENTERFACE, YUNET
from engine.detection.heads.family import Family, Layout
from engine.detection.heads.listed import DETECTION_OUTPUT, LABELS_BOXES_SCORES, SSD, TF_DETECTION, TORCHVISION
from engine.detection.heads.movenet import MOVENET
from engine.detection.heads.nanodet import NANODET, NANODET_PLUS, PICODET
from engine.detection.heads.objectness import YOLOV5
from engine.detection.heads.tasks import OBB, POSE, SEGMENT
from engine.detection.heads.ultralytics import END_TO_END, RAW
from engine.detection.heads.yolox import YOLOX, YOLOX_DECODED
from engine.errors import ModelError
from engine.registry import Registry, is_reference

FAMILIES: tuple[Family, ...] = (
    DARKNET,
    YUNET,
    CENTERFACE,
    MOVENET,
    POSE,
    OBB,
    SEGMENT,
    RTDETR,
    END_TO_END,
    RTDETR_RAW,
    RAW,
    NANODET,
    PICODET,
    NANODET_PLUS,
    YOLOV5,
    YOLOX,
    YOLOX_DECODED,
    DETR_SOFTMAX,
    DETR_LOGITS,
    RFDETR,
    TF_DETECTION,
    DETECTION_OUTPUT,
    TORCHVISION,
    LABELS_BOXES_SCORES,
    SSD,
)


REGISTRY = Registry("head", {})
"""Heads from other packages: entry points that name a `Family`."""


def choose_family(layout: Layout, name: str | None = None) -> Family:
    """Return the family of a model.

    Args:
        layout: outputs, size, metadata and task.
        name: the family that the caller wants; None: found by shape.

    Raises:
        ModelError: the name is unknown, or the outputs fit no family.
    """
    wanted = name or str(layout.metadata.get("head", ""))
    named = _named(wanted)
    outputs = ", ".join(str(spec) for spec in layout.outputs)
    if name is not None and named is None:
        known = ", ".join([*(family.name for family in FAMILIES), *REGISTRY.names()])
        raise ModelError(f'unknown head "{name}": expected {known}, or module:attribute')
    if named is not None:
        if not named.fits(layout) and not named.fits_named(layout):
            raise ModelError(f"head {named.name} expects {named.layout}: the model has {outputs}")
        return named
    for family in itertools.chain(FAMILIES, _of_packages()):
        if layout.task in family.tasks and family.fits(layout):
            return family
    rows, columns = layout.size_hw
    told = f'task "{layout.task}", ' if layout.task else ""
    raise ModelError(f"{told}outputs {outputs} at {columns} x {rows} fit no known head: {_remedy(layout)}")


def _named(name: str) -> Family | None:
    """Return the family of this name, from this table, another package or `module:attribute`; None if unknown."""
    builtin = next((family for family in FAMILIES if family.name == name), None)
    if builtin is not None or not (is_reference(name) or name in REGISTRY.names()):
        return builtin
    return _checked(name, REGISTRY.load(name))


def _of_packages() -> Iterator[Family]:
    """Yield the families of other packages, which are tried only if no built-in one fits."""
    for name in REGISTRY.names():
        yield _checked(name, REGISTRY.load(name))


def _checked(name: str, family: object) -> Family:
    if not isinstance(family, Family):
        raise ModelError(f"head {name} is a {type(family).__name__}: expected a Family (engine.detection.heads.family)")
    return family


def _remedy(layout: Layout) -> str:
    if all(shape[1:] == (None,) * (len(shape) - 1) for shape in layout.shapes):
        return "the file leaves their sizes open: export it with simplify=True, or let onnxslim infer them"
    if _lists_parts(layout):
        return (
            "separate boxes, scores or landmarks per anchor (BlazeFace, RetinaFace, UltraFace, SCRFD, YOLO-NAS)"
            " need code that the file does not contain: export the model with its decoding and NMS inside"
        )
    known = "; ".join(f"{family.name} {family.layout}" for family in FAMILIES if layout.task in family.tasks)
    return f"name one of {known}" if known else "no head supports this task"


def _lists_parts(layout: Layout) -> bool:
    """Whether outputs of different widths have equally many rows."""
    widths = {shape[-2:] for shape in layout.shapes if len(shape) in (2, 3)}
    rows = [count for count, _ in widths if count is not None and count > 1]
    return len(set(rows)) < len(rows)
