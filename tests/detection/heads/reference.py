"""Plain, slow references that share no code with the engine."""

from __future__ import annotations

from collections.abc import Sequence

Box = Sequence[float]


def iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inner = width * height
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


def greedy_nms(boxes: Sequence[Box], scores: Sequence[float], classes: Sequence[int], threshold: float) -> list[int]:
    """Greedy NMS exactly as defined, one pair at a time."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        rivals = (k for k in kept if classes[k] == classes[index])
        if all(iou(boxes[index], boxes[k]) <= threshold for k in rivals):
            kept.append(index)
    return kept
