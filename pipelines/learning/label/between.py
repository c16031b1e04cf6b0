"""Interpolates boxes linearly between two labelled frames of a clip: suggestions, like those of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.boxes import iou_matrix
from pipelines.learning.dataset.boxes import Box
from pipelines.learning.dataset.project import Origin, Project

FARTHEST = 3.0
"""Distance between two centres, in box sides, beyond which the boxes are different objects."""


def keyframes(project: Project, name: str) -> tuple[tuple[int, Path], int, tuple[int, Path]] | None:
    """Return the labelled frame before an image, the number of the image, and the labelled frame after it."""
    origins = project.origins()
    mine = origins.get(name, Origin())
    clip = mine.fields.get("clip")
    if mine.frame is None or clip is None:
        return None
    frames = sorted(
        (origin.frame, image)
        for _, image in project.labelled()
        if (origin := origins.get(image.name)) and origin.fields.get("clip") == clip and origin.frame is not None
    )
    before = [pair for pair in frames if pair[0] < mine.frame]
    after = [pair for pair in frames if pair[0] > mine.frame]
    return (before[-1], mine.frame, after[0]) if before and after else None


def interpolated(project: Project, name: str) -> list[dict[str, Any]]:
    """Return suggestions for a frame from the labelled frames around it; empty if there is none on a side."""
    found = keyframes(project, name)
    if found is None:
        return []
    (first, before), frame, (last, after) = found
    share = (frame - first) / (last - first)
    left, right = project.boxes(before), project.boxes(after)
    return [
        {
            "class_name": project.classes[left[at].class_id],
            "score": None,
            "xyxy": [a + (b - a) * share for a, b in zip(left[at].xyxy, right[to].xyxy, strict=True)],
            "from": "between",
        }
        for at, to in pairs(left, right)
    ]


def pairs(left: Sequence[Box], right: Sequence[Box]) -> list[tuple[int, int]]:
    """Return which boxes of two frames are the same object: of the same class, overlapping most, or else nearest.

    >>> pairs([Box(0, 0.2, 0.2, 0.1, 0.1)], [Box(1, 0.2, 0.2, 0.1, 0.1), Box(0, 0.25, 0.2, 0.1, 0.1)])
    [(0, 1)]
    """
    if not left or not right:
        return []
    a, b = _corners(left), _corners(right)
    overlap = iou_matrix(a, b)
    apart = np.linalg.norm((a[:, None, :2] + a[:, None, 2:] - b[None, :, :2] - b[None, :, 2:]) / 2, axis=2)
    side = np.sqrt((a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1]))[:, None] + 1e-6
    likeness = overlap - apart / side / FARTHEST
    alike = np.array([[one.class_id == other.class_id for other in right] for one in left])
    likeness = np.where(alike & (apart / side < FARTHEST), likeness, -np.inf)
    found = []
    while np.isfinite(likeness).any():
        at, to = (int(index) for index in np.unravel_index(likeness.argmax(), likeness.shape))
        found.append((at, to))
        likeness[at, :] = likeness[:, to] = -np.inf
    return sorted(found)


def _corners(boxes: Sequence[Box]) -> NDArray[np.float32]:
    return np.array([box.xyxy for box in boxes], np.float32)
