"""Classic YOLOv5 and YOLOv7: one output (b, 3 x cells, 5 + classes), decoded by the graph.

Columns are cx, cy, w, h in pixels of the model's frame, objectness and class scores, both after the sigmoid; the score
is their product. This is what `export.py` of YOLOv5 7.0 and of YOLOv7 (`--grid`) writes. With `--dynamic` the anchor
count is open, and only the columns identify the layout.
"""

from __future__ import annotations

import numpy as np

from engine.boxes import xyxy_from_cxcywh
from engine.detection.heads.base import Candidates, Head, Outputs, candidates
from engine.detection.heads.family import Family, Layout


class ObjectnessHead(Head):
    """Output (b, anchors, 5 + classes), see the module docstring."""

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs."""
        output = outputs[0][row]
        near = output[output[:, 4] > score_threshold].astype(np.float32, copy=False)  # class scores are at most 1
        scores = near[:, 5:] * near[:, 4:5]
        score = scores.max(axis=1)
        passed = score > score_threshold
        xyxy = xyxy_from_cxcywh(near[passed, :4])
        return candidates(xyxy, score[passed], scores[passed].argmax(axis=1))


def _fits(layout: Layout) -> bool:
    shape = layout.single(3)
    if shape is None or shape[2] is None or shape[2] < 6:
        return False
    return is_open(layout) or shape[1] in layout.anchors(per_cell=3)


def is_open(layout: Layout) -> bool:
    """Whether the only output is (b, ?, 5 + classes), in a file that Ultralytics' exporter did not write.

    With one class, (b, ?, 6) may also be an end-to-end output, and with any number a YOLOX's. YOLOv5 writes its stride
    next to the names; a file without them must name the head.
    """
    shape, told = layout.single(3), layout.metadata
    if not _may_be_open(layout) or shape is None or told.get("author") == "Ultralytics":
        return False
    return shape[2] == 5 + (layout.class_count or 0) and "stride" in told and "names" in told


def _may_be_open(layout: Layout) -> bool:
    shape = layout.single(3)
    return shape is not None and shape[1] is None and shape[2] is not None and shape[2] >= 6


def _classes(layout: Layout) -> int | None:
    columns = layout.shapes[0][2]
    return None if columns is None else columns - 5


YOLOV5 = Family(
    "yolov5", "(b, 3 x cells, 5 + classes) with objectness", _fits, lambda _: ObjectnessHead(), _classes,
    iou_threshold=0.45, fits_named=_may_be_open,
)  # fmt: skip
