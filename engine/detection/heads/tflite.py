"""Converts the outputs of TensorFlow Lite files into those of the same model as ONNX.

Converters change three things (read from Ultralytics 8.0 to 8.4, YOLOv5 7.0 and onnx2tf 1.x and 2.x): boxes and
keypoints become fractions of the model's frame, so that integers can hold them; (b, 4 + classes, anchors) becomes
(b, anchors, 4 + classes); mask prototypes have channels last and come before the boxes. The numbers show whether
coordinates are fractions: those of a grid of anchors in pixels reach far beyond 2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import TensorSpec
from engine.detection.heads.base import Candidates, Head, Outputs
from engine.detection.heads.family import MAX_QUERIES, Family, Layout
from engine.detection.letterbox import Letterbox

LARGEST_FRACTION = 2.0
IN_ROWS = ("yolo", "yolo_segment", "yolo_pose", "yolo_obb")
"""Families whose coordinates are rows of (b, 4 + classes, anchors), or columns of end-to-end rows."""
IN_COLUMNS = ("yolov5", "end_to_end")
CHANNELS_FIRST = (0, 3, 1, 2)
SWAPPED = (0, 2, 1)
Axes = tuple[int, ...]


def standard_layout(given: Layout) -> Layout:
    """Return the layout that the same model has as ONNX."""
    outputs = [given.outputs[index] for index in _order(given)]
    axes = [_axes(spec, given) for spec in outputs]
    return replace(given, outputs=tuple(_turned(spec, turn) for spec, turn in zip(outputs, axes, strict=True)))


def standard_family(family: Family, given: Layout) -> Family:
    """Return the family with heads that take the outputs as the file holds them.

    Args:
        family: chosen for the standard layout.
        given: layout of the file's outputs.
    """
    build = family.build
    return replace(family, build=lambda layout: TfliteHead(build(layout), given, _pixels_per_unit(layout, family.name)))


class TfliteHead(Head):
    """Applies the conversions above before another head; they cost a pass over the boxes of each image.

    Args:
        head: for the standard layout.
        given: layout of the file's outputs.
        pixels: factor from fractions to pixels for each row or column of the first output; None if it has no boxes.
    """

    def __init__(self, head: Head, given: Layout, pixels: NDArray[np.float32] | None) -> None:
        self._head = head
        self._order = _order(given)
        self._axes = [_axes(given.outputs[index], given) for index in self._order]
        self._pixels = pixels

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs."""
        return self._head.decode(self._standard(outputs), row, score_threshold)

    def suppress(self, candidates: Candidates, iou_threshold: float) -> NDArray[np.intp]:
        """Return the (K,) rows that the head keeps."""
        return self._head.suppress(candidates, iou_threshold)

    def extra(self, kept: Candidates, outputs: Outputs, row: int, box: Letterbox) -> dict[str, NDArray[Any]]:
        """Return the (K, ...) columns of the head's task."""
        return self._head.extra(kept, self._standard(outputs), row, box)

    def _standard(self, outputs: Outputs) -> list[NDArray[Any]]:
        turned = [
            outputs[index] if axes is None else outputs[index].transpose(axes)
            for index, axes in zip(self._order, self._axes, strict=True)
        ]
        if self._pixels is not None and not (_boxes(turned[0], self._pixels) > LARGEST_FRACTION).any():
            turned[0] = turned[0] * self._pixels
        return turned


def _order(layout: Layout) -> list[int]:
    """Return the order of the outputs: images of prototypes come last."""
    return sorted(range(len(layout.outputs)), key=lambda index: len(layout.outputs[index].shape) == 4)


def _axes(spec: TensorSpec, layout: Layout) -> Axes | None:
    """Return how to transpose an output, None if it is the same as in ONNX."""
    shape = spec.shape
    if len(shape) == 4 and layout.task == "segment" and shape[1] == shape[2] != shape[3]:
        return CHANNELS_FIRST
    is_only = len(layout.outputs) == 1 and len(shape) == 3
    if is_only and shape[1] in layout.anchors() and shape[2] == 4 + (layout.class_count or 80):
        return SWAPPED
    return None


def _turned(spec: TensorSpec, axes: Axes | None) -> TensorSpec:
    return spec if axes is None else replace(spec, shape=tuple(spec.shape[axis] for axis in axes))


def _pixels_per_unit(layout: Layout, family: str) -> NDArray[np.float32] | None:
    """Return the factors from fractions to pixels, shaped to multiply the first output."""
    shape = layout.shapes[0]
    if family not in IN_ROWS + IN_COLUMNS or len(shape) != 3 or None in shape[1:]:
        return None
    listed = shape[1] is not None and shape[1] <= MAX_QUERIES and shape[1] not in layout.anchors()
    in_columns = family in IN_COLUMNS or (listed and shape[2] not in layout.anchors())
    factors = np.ones(shape[2 if in_columns else 1] or 0, np.float32)
    rows, columns = layout.size_hw
    factors[[0, 2]], factors[[1, 3]] = columns, rows
    if family == "yolo_pose":
        count, values = layout.metadata.get("kpt_shape", (17, 3))
        points = factors[len(factors) - count * values :]
        points[0::values], points[1::values] = columns, rows
    return factors[None, None] if in_columns else factors[None, :, None]


def _boxes(output: NDArray[Any], pixels: NDArray[np.float32]) -> NDArray[Any]:
    return output[..., :4] if pixels.shape[1] == 1 else output[:, :4]
