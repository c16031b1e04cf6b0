"""The table of model families: how each is recognised, fed, and decoded.

A model is matched against the rows in order: by the head that its metadata or the caller names, else by task and
output shapes. The first row that fits wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.backends.base import ImageInput, TensorSpec
from engine.detection.heads.base import Head
from engine.detection.heads.darknet import DarknetHead
from engine.detection.heads.grid import STRIDES, STRIDES_P6, anchor_count
from engine.detection.heads.nanodet import BINS, NanoDetHead, find_parts
from engine.detection.heads.ultralytics import EndToEndHead, RawHead
from engine.detection.heads.yolox import YoloxHead
from engine.detection.letterbox import Anchor
from engine.errors import ModelError

ZERO, ONE, BYTE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (255.0, 255.0, 255.0)
STRIDES_TINY = (16, 32)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the families are matched against.

    Attributes:
        outputs: of the model file.
        size_hw: rows and columns of the model's frame.
        metadata: parsed.
        task: `detect`, `segment`, ... or empty where the metadata does not say.
    """

    outputs: tuple[TensorSpec, ...]
    size_hw: tuple[int, int]
    metadata: Mapping[str, Any]
    task: str

    @property
    def shapes(self) -> list[tuple[int | None, ...]]:
        """Shapes of the outputs."""
        return [spec.shape for spec in self.outputs]


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of model.

    Attributes:
        name: as `--head` and reports say it.
        layout: the outputs in words, for errors and `inspect`.
        fits: whether outputs (and metadata) are of this kind.
        build: makes the head.
        classes: number of classes in the outputs, None where they do not tell.
        color, mean, std: what the model wants to be fed.
        anchor: letterbox.
        iou_threshold: the NMS default of the family's own code.
        tasks: which tasks it does.
    """

    name: str
    layout: str
    fits: Callable[[Layout], bool]
    build: Callable[[Layout], Head]
    classes: Callable[[Layout], int | None]
    color: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = ZERO
    std: tuple[float, float, float] = BYTE
    anchor: Anchor = "center"
    iou_threshold: float = 0.7
    tasks: tuple[str, ...] = ("detect", "")

    def image_input(self, size_hw: tuple[int, int], layout: Literal["nchw", "nhwc"]) -> ImageInput:
        """Return how this family wants its pixels."""
        return ImageInput(size_hw, self.color, self.mean, self.std, layout)


def _single(layout: Layout, rank: int) -> Sequence[int | None] | None:
    """Return the shape of the only output, where it has this rank."""
    shapes = layout.shapes
    return shapes[0] if len(shapes) == 1 and len(shapes[0]) == rank else None


def _grids(layout: Layout, per_cell: int = 1) -> set[int]:
    """Return the numbers of anchors that a model of this size can have."""
    return {per_cell * anchor_count(layout.size_hw, strides) for strides in (STRIDES, STRIDES_P6, STRIDES_TINY)}


def _is_raw(layout: Layout) -> bool:
    shape = _single(layout, 3)
    if shape is None or shape[1] is None or shape[1] < 5:
        return False
    return shape[2] is None or shape[2] in _grids(layout)


def _is_end_to_end(layout: Layout) -> bool:
    shape = _single(layout, 3)
    return shape is not None and shape[2] == 6 and (shape[1] is None or shape[1] <= 1000)


def _is_yolox(layout: Layout) -> bool:
    shape = _single(layout, 3)
    return shape is not None and shape[1] in _grids(layout) and shape[2] is not None and shape[2] >= 6


def _is_darknet(layout: Layout) -> bool:
    anchors = layout.metadata.get("anchors")
    if not isinstance(anchors, (list, tuple)) or len(anchors) != len(layout.outputs):
        return False
    return all(
        isinstance(scale, (list, tuple)) and len(shape) == 4 and shape[1] is not None and shape[1] % len(scale) == 0
        for scale, shape in zip(anchors, layout.shapes, strict=True)
        if scale
    )


def _cells(layout: Layout, strides: tuple[int, ...]) -> list[int]:
    return [anchor_count(layout.size_hw, (stride,)) for stride in strides]


def _nanodet_parts(layout: Layout) -> list[tuple[int, int]] | None:
    strides = STRIDES if len(layout.outputs) == 2 * len(STRIDES) else STRIDES_P6
    return find_parts(layout.shapes, _cells(layout, strides))


def _is_nanodet(layout: Layout) -> bool:
    return _nanodet_parts(layout) is not None


def _nanodet(layout: Layout) -> Head:
    parts = _nanodet_parts(layout)
    classes = _nanodet_classes(layout)
    if classes is None:
        raise ModelError("nanodet: the outputs leave the number of classes open")
    if parts is not None:
        return NanoDetHead(layout.size_hw, classes, STRIDES if len(parts) == 3 else STRIDES_P6, parts)
    strides = STRIDES_P6 if layout.shapes[0][1] == anchor_count(layout.size_hw, STRIDES_P6) else STRIDES
    return NanoDetHead(layout.size_hw, classes, strides)


def _nanodet_classes(layout: Layout) -> int | None:
    parts = _nanodet_parts(layout)
    size = layout.shapes[parts[0][0] if parts else 0][-1]
    if size is None:
        return None
    return size if parts else size - 4 * BINS


def _yolox(layout: Layout) -> Head:
    count = layout.shapes[0][1]
    for strides in (STRIDES, STRIDES_P6):
        if count is None or anchor_count(layout.size_hw, strides) == count:
            return YoloxHead(layout.size_hw, strides)
    raise ModelError(f"{count} anchors do not fit the strides {STRIDES} at {layout.size_hw}")


def _darknet(layout: Layout) -> Head:
    try:
        return DarknetHead(layout.size_hw, layout.metadata["anchors"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError('metadata "anchors": expected per output a list of [width, height] in pixels') from error


def _size(index: int, axis: int, beside: int) -> Callable[[Layout], int | None]:
    """Return a function from a layout to the size of one axis less what is not classes."""

    def classes(layout: Layout) -> int | None:
        size = layout.shapes[index][axis]
        return None if size is None else size - beside

    return classes


def _darknet_classes(layout: Layout) -> int | None:
    size = layout.shapes[0][1]
    return None if size is None else size // max(1, len(layout.metadata["anchors"][0])) - 5


FAMILIES: tuple[Family, ...] = (
    Family(
        "darknet_yolov3", "per scale (b, anchors x (5 + classes), h, w) without activation",
        _is_darknet, _darknet, _darknet_classes, iou_threshold=0.45,
    ),
    Family(
        "end_to_end", "(b, rows, 6): x1, y1, x2, y2, score, class",
        _is_end_to_end, lambda _: EndToEndHead(), lambda _: None,
    ),
    Family("yolo", "(b, 4 + classes, anchors)", _is_raw, lambda _: RawHead(), _size(0, 1, 4)),
    Family(
        "nanodet", "per stride scores (cells, classes) and distances (cells, 32)",
        _is_nanodet, _nanodet, _nanodet_classes,
        color="bgr", mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395), iou_threshold=0.6,
    ),
    Family(
        "yolox", "(b, anchors, 5 + classes) without grid", _is_yolox, _yolox, _size(0, 2, 5),
        color="bgr", std=ONE, anchor="top_left", iou_threshold=0.45,
    ),
)  # fmt: skip


def choose_family(layout: Layout, name: str | None = None) -> Family:
    """Return the family of a model.

    Args:
        layout: outputs, size, metadata and task.
        name: a family that the caller names, instead of one found by shape.

    Raises:
        ModelError: unknown name, or outputs that fit no family.
    """
    wanted = name or str(layout.metadata.get("head", ""))
    named = next((family for family in FAMILIES if family.name == wanted), None)
    outputs = ", ".join(str(spec) for spec in layout.outputs)
    if name is not None and named is None:
        raise ModelError(f'unknown head "{name}": expected {", ".join(family.name for family in FAMILIES)}')
    if named is not None:
        if not named.fits(layout):
            raise ModelError(f"head {named.name} wants {named.layout}: the model has {outputs}")
        return named
    for family in FAMILIES:
        if layout.task in family.tasks and family.fits(layout):
            return family
    known = "; ".join(f"{family.name} {family.layout}" for family in FAMILIES)
    raise ModelError(f"outputs {outputs} at {layout.size_hw} fit no known head: name one of {known}")
