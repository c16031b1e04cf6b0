"""Heads of Ultralytics exports (8.0 to 8.4): YOLOv3u, v5u, v6, v8, v9, v10, 11, 12, 26.

Raw: (b, 4 + classes, anchors), rows cx, cy, w, h in pixels of the model's frame, then sigmoid scores, no objectness.
End-to-end (v10, 26, or any with `nms=True`): (b, rows, 6), columns x1, y1, x2, y2, score, class; rows of zeros pad.
"""

from __future__ import annotations

import numpy as np

from engine.boxes import xyxy_from_cxcywh
from engine.detection.heads.base import Candidates, Head, NmsFreeHead, Outputs, best_class, candidates


class RawHead(Head):
    """Output (b, 4 + classes, anchors), see above."""

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image."""
        output = outputs[0][row]
        columns, score, class_id = best_class(output[4:], score_threshold)
        cxcywh = output[:4, columns].T.astype(np.float32, copy=False)
        return candidates(xyxy_from_cxcywh(cxcywh), score, class_id)


class EndToEndHead(NmsFreeHead):
    """Output (b, rows, 6), see above."""

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image."""
        output = outputs[0][row]
        output = output[output[:, 4] > score_threshold]
        return candidates(output[:, :4], output[:, 4], output[:, 5])
