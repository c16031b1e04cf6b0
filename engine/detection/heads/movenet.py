"""MoveNet's single pose (Google 2021): one output (b, 1, 17, 3) with y, x as fractions of the frame and a score.

It always returns one person. The person's score is the mean of the keypoints' scores, which is low in an empty image;
the box surrounds the keypoints scoring at least half of the best one, widened by a tenth.
"""

from __future__ import annotations

import numpy as np

from engine.detection.heads.base import Candidates, NmsFreeHead, Outputs, candidates
from engine.detection.heads.family import ONE, Family, Layout
from engine.detection.heads.tasks import PoseHead

KEYPOINTS = 17
WIDENED = 0.1


class MoveNetHead(NmsFreeHead):
    """Output (b, 1, 17, 3), see the module docstring.

    Args:
        size_hw: rows and columns of the model's frame.
    """

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self._scale = np.array((size_hw[1], size_hw[0], 1), np.float32)

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the person of one image, the keypoints as the column `rest`."""
        points = outputs[0][row].astype(np.float32).reshape(KEYPOINTS, 3)[:, (1, 0, 2)] * self._scale
        score = points[:, 2].mean(keepdims=True)
        sure = points[points[:, 2] >= points[:, 2].max() / 2, :2]
        low, high = (sure.min(axis=0), sure.max(axis=0)) if len(sure) else (np.zeros(2), np.zeros(2))
        margin = (high - low) * WIDENED / 2
        xyxy = np.concatenate((low - margin, high + margin))[None]
        passed = score > score_threshold
        return candidates(
            xyxy[passed], score[passed], np.zeros(1, np.int32)[passed], rest=points.reshape(1, -1)[passed]
        )


def _fits(layout: Layout) -> bool:
    shape = layout.single(4)
    return shape is not None and shape[1:] == (1, KEYPOINTS, 3)


MOVENET = Family(
    "movenet", "(b, 1, 17, 3): y, x as fractions, score, of one person",
    _fits, lambda layout: PoseHead(MoveNetHead(layout.size_hw), KEYPOINTS, 3), lambda _: 1,
    std=ONE, tasks=("pose", "detect", ""), names=("person",),
)  # fmt: skip
