"""Non-maximum suppression: exact, greedy, per class, with bounded time by design.

Candidates are processed in blocks by descending score. Each block is suppressed first against the boxes already kept
(one IoU matrix of block x kept), then within itself; processing ends when enough are kept. The worst case is a fixed
number of small matrices, and no result depends on a clock.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.boxes import Boxes

MAX_KEPT = 300
BLOCK = 128
"""Rows taken at once: small enough for the processor's cache (worst case 8 ms; 256 takes 20)."""


def nms(
    xyxy: Boxes, score: NDArray[np.float32], class_id: NDArray[np.int32], iou_threshold: float, limit: int = MAX_KEPT
) -> NDArray[np.intp]:
    """Return the rows that greedy NMS keeps, by descending score (ties: the earlier row first).

    A row is dropped when a kept row of the same class overlaps it with an IoU above `iou_threshold`.

    Args:
        xyxy: (N, 4) boxes.
        score: (N,) in any range.
        class_id: (N,) classes; give zeros for class-agnostic NMS.
        iou_threshold: in [0, 1].
        limit: maximum number of rows to keep.

    Returns:
        (K,) row numbers, K <= limit.

    >>> boxes = np.float32([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]])
    >>> nms(boxes, np.float32([0.8, 0.9, 0.7]), np.int32([0, 0, 0]), 0.5)
    array([1, 2])
    """
    order = (-score).argsort(kind="stable")
    threshold = np.float32(iou_threshold)
    kept = order[:0]
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK]
        if len(kept):
            rows = rows[~_overlaps(xyxy, class_id, rows, kept, threshold).any(axis=1)]
        kept = np.concatenate((kept, _within(xyxy, class_id, rows, threshold)))
        if len(kept) >= limit:
            return kept[:limit]
    return kept


def _within(
    xyxy: Boxes, class_id: NDArray[np.int32], rows: NDArray[np.intp], threshold: np.float32
) -> NDArray[np.intp]:
    """Return those of `rows`, sorted by descending score, that greedy NMS among them keeps."""
    if len(rows) < 2:
        return rows
    bits = np.packbits(_overlaps(xyxy, class_id, rows, rows, threshold), axis=1, bitorder="little")
    width, packed = bits.shape[1], bits.tobytes()
    suppressed, kept = 0, []
    for row in range(len(rows)):
        if not suppressed >> row & 1:
            kept.append(row)
            suppressed |= int.from_bytes(packed[row * width : (row + 1) * width], "little")
    return rows.take(kept)


def _overlaps(
    xyxy: Boxes, class_id: NDArray[np.int32], rows: NDArray[np.intp], others: NDArray[np.intp], threshold: np.float32
) -> NDArray[np.bool_]:
    """Return (R, O) whether two rows have the same class and an IoU above the threshold.

    Without a division: `i / (a + b - i) > t` is `i > t (a + b) / (1 + t)`; and only one side is clipped at zero,
    because a negative product is never above.
    """
    left, top, right, bottom = xyxy.take(rows, axis=0).T.copy()[:, :, None]
    left_o, top_o, right_o, bottom_o = xyxy.take(others, axis=0).T.copy()[:, None, :]
    inner = np.minimum(right, right_o)
    inner -= np.maximum(left, left_o)
    np.maximum(inner, 0, out=inner)
    height = np.minimum(bottom, bottom_o)
    height -= np.maximum(top, top_o)
    inner *= height
    share = np.float32(threshold / (1 + threshold))
    np.add((right - left) * (bottom - top) * share, (right_o - left_o) * (bottom_o - top_o) * share, out=height)
    overlaps: NDArray[np.bool_] = inner > height
    overlaps &= class_id.take(rows)[:, None] == class_id.take(others)[None, :]
    return overlaps
