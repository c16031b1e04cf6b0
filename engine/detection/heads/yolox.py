"""YOLOX (Ge et al. 2021), as its ONNX export without `--decode_in_inference` writes it.

One output (b, anchors, 5 + classes): offset x, y, log w, log h, objectness, class scores (both after the sigmoid),
for the grids of strides 8, 16, 32 one after the other. Score is objectness x class score.
"""

from __future__ import annotations

import numpy as np

from engine.boxes import xyxy_from_cxcywh
from engine.detection.heads.base import Candidates, Head, Outputs, candidates
from engine.detection.heads.grid import STRIDES, grid


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
