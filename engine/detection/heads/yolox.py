"""YOLOX (Ge et al. 2021), as its ONNX export writes it.

One output (b, anchors, 5 + classes) for the grids of strides 8, 16, 32 in sequence: offset x, y, log w, log h,
objectness, class scores (both after the sigmoid). The score is objectness x class score. With `--decode_in_inference`
an output of the same shape holds boxes in pixels of the model's frame; the file does not show which, so that head must
be named.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.boxes import xyxy_from_cxcywh
from engine.detection.heads.base import Candidates, Head, Outputs, candidates
from engine.detection.heads.family import ONE, Family, Layout
from engine.detection.heads.grid import STRIDES, STRIDES_P6, anchor_count, grid
from engine.detection.heads.objectness import ObjectnessHead
from engine.errors import ModelError


class YoloxHead(Head):
    """Output (b, anchors, 5 + classes), see the module docstring."""

    def __init__(self, size_hw: tuple[int, int], strides: tuple[int, ...] = STRIDES) -> None:
        self._cells, self._strides = grid(size_hw, strides)

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs."""
        output = outputs[0][row]
        rows = np.flatnonzero(output[:, 4] > score_threshold)  # a class score is at most 1, so this drops no candidate
        near = output[rows]
        scores = near[:, 5:] * near[:, 4:5]
        score = scores.max(axis=1)
        passed = score > score_threshold
        near, rows, score = near[passed], rows[passed], score[passed]
        centre = (near[:, :2] + self._cells[rows]) * self._strides[rows]
        size = np.exp(near[:, 2:4]) * self._strides[rows]
        xyxy = xyxy_from_cxcywh(np.concatenate((centre, size), axis=1).astype(np.float32, copy=False))
        return candidates(xyxy, score, scores[passed].argmax(axis=1))


def _fits(layout: Layout) -> bool:
    shape = layout.single(3)
    return shape is not None and shape[1] in layout.anchors() and shape[2] is not None and shape[2] >= 6


def _build(layout: Layout) -> Head:
    count = layout.shapes[0][1]
    for strides in (STRIDES, STRIDES_P6):
        if anchor_count(layout.size_hw, strides) == count:
            return YoloxHead(layout.size_hw, strides)
    raise ModelError(f"{count} anchors do not fit the strides {STRIDES} at {layout.size_hw}")


def _classes(layout: Layout) -> int | None:
    columns = layout.shapes[0][2]
    return None if columns is None else columns - 5


YOLOX = Family(
    "yolox", "(b, anchors, 5 + classes) without grid", _fits, _build, _classes,
    color="bgr", std=ONE, anchor="top_left", iou_threshold=0.45,
)  # fmt: skip
YOLOX_DECODED = replace(
    YOLOX, name="yolox_decoded", layout="the same with boxes in pixels", build=lambda _: ObjectnessHead()
)
