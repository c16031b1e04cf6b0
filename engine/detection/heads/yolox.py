"""YOLOX (Ge et al. 2021), as its ONNX export without `--decode_in_inference` writes it.

One output (b, anchors, 5 + classes): offset x, y, log w, log h, objectness, class scores (both after the sigmoid),
for the grids of strides 8, 16, 32 one after the other. Score is objectness x class score.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.boxes import xyxy_from_cxcywh
from engine.detection.heads.base import Candidates, Head, Outputs, candidates

STRIDES = (8, 16, 32)
STRIDES_P6 = (8, 16, 32, 64)


def grid(size_hw: tuple[int, int], strides: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cell corners (A, 2) as x, y in cells, and strides (A, 1), of all grids one after the other."""
    cells, steps = [], []
    for stride in strides:
        rows, columns = size_hw[0] // stride, size_hw[1] // stride
        y, x = np.divmod(np.arange(rows * columns), columns)
        cells.append(np.stack((x, y), axis=1))
        steps.append(np.full((rows * columns, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(steps).astype(np.float32)


def anchor_count(size_hw: tuple[int, int], strides: tuple[int, ...]) -> int:
    """Return the cells of all grids.

    >>> anchor_count((640, 640), STRIDES), anchor_count((416, 416), STRIDES)
    (8400, 3549)
    """
    return sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in strides)


class YoloxHead(Head):
    """Output (b, anchors, 5 + classes), see above."""

    def __init__(self, size_hw: tuple[int, int], strides: tuple[int, ...] = STRIDES) -> None:
        self._cells, self._strides = grid(size_hw, strides)

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image."""
        output = outputs[0][row]
        rows = np.flatnonzero(output[:, 4] > score_threshold)  # a class score is at most 1
        near = output[rows]
        scores = near[:, 5:] * near[:, 4:5]
        score = scores.max(axis=1)
        passed = score > score_threshold
        near, rows, score = near[passed], rows[passed], score[passed]
        centre = (near[:, :2] + self._cells[rows]) * self._strides[rows]
        size = np.exp(near[:, 2:4]) * self._strides[rows]
        xyxy = xyxy_from_cxcywh(np.concatenate((centre, size), axis=1).astype(np.float32, copy=False))
        return candidates(xyxy, score, scores[passed].argmax(axis=1))
