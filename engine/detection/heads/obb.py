"""Oriented boxes: corners, probabilistic IoU and Fast NMS based on it.

A box is cx, cy, w, h and an angle in radians, clockwise in image coordinates. The probabilistic IoU treats each box
as a Gaussian and is 1 minus the Hellinger distance (Llerena et al. 2021, "Gaussian Bounding Boxes and Probabilistic
Intersection-over-Union"). Fast NMS drops a box that any better box overlaps, whether or not that one was kept (Bolya
et al. 2019, "YOLACT", section 4.2). Ultralytics applies it to oriented boxes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CANDIDATES = 2048
"""Only this many of the best candidates enter; bounds time and memory (16 blocks, 60 ms at most)."""
BLOCK = 128
EPS = 1e-7

Oriented = NDArray[np.float32]


def corners_from_cxcywhr(cxcywhr: Oriented) -> NDArray[np.float32]:
    """Return (N, 4, 2) corners of (N, 5) oriented boxes, starting with the one at the positive end of both axes.

    >>> corners_from_cxcywhr(np.float32([[5, 5, 4, 2, 0]])).tolist()
    [[[7.0, 6.0], [7.0, 4.0], [3.0, 4.0], [3.0, 6.0]]]
    """
    centre, angle = cxcywhr[:, None, :2], cxcywhr[:, 4]
    cos, sin = np.cos(angle), np.sin(angle)
    along = np.stack((cos, sin), axis=1) * cxcywhr[:, 2:3] / 2
    across = np.stack((-sin, cos), axis=1) * cxcywhr[:, 3:4] / 2
    arms = np.stack((along + across, along - across, -along - across, -along + across), axis=1)
    corners: NDArray[np.float32] = (centre + arms).astype(np.float32)
    return corners


def _covariances(cxcywhr: Oriented) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the variances along x and y and the covariance of each box as a Gaussian."""
    w2, h2 = cxcywhr[:, 2] ** 2 / 12, cxcywhr[:, 3] ** 2 / 12
    cos, sin = np.cos(cxcywhr[:, 4]), np.sin(cxcywhr[:, 4])
    return w2 * cos**2 + h2 * sin**2, w2 * sin**2 + h2 * cos**2, (w2 - h2) * cos * sin


def probiou_matrix(a: Oriented, b: Oriented) -> NDArray[np.float32]:
    """Return the (N, M) probabilistic IoU of oriented boxes (N, 5) and (M, 5)."""
    (xx_a, yy_a, xy_a), (xx_b, yy_b, xy_b) = _covariances(a), _covariances(b)
    xx, yy, xy = (p[:, None] + q[None] for p, q in ((xx_a, xx_b), (yy_a, yy_b), (xy_a, xy_b)))
    dx, dy = a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]
    determinant = xx * yy - xy**2
    shift = (xx * dy**2 + yy * dx**2 - 2 * xy * dx * dy) / (4 * (determinant + EPS))
    own_a = np.maximum(xx_a * yy_a - xy_a**2, 0)
    own_b = np.maximum(xx_b * yy_b - xy_b**2, 0)
    spread = 0.5 * np.log(determinant / (4 * np.sqrt(own_a[:, None] * own_b[None]) + EPS) + EPS)
    bhattacharyya = np.clip(shift + spread, EPS, 100)
    similarity: NDArray[np.float32] = 1 - np.sqrt(1 - np.exp(-bhattacharyya) + EPS)
    return similarity


def fast_nms(
    cxcywhr: Oriented, score: NDArray[np.float32], class_id: NDArray[np.int32], iou_threshold: float
) -> NDArray[np.intp]:
    """Return the (K,) rows, best first, that no better row of their class overlaps by more than the threshold."""
    order = np.argsort(-score, kind="stable")[:MAX_CANDIDATES]
    kept = []
    for start in range(0, len(order), BLOCK):
        rows, better = order[start : start + BLOCK], order[: start + BLOCK]
        with np.errstate(all="ignore"):
            overlaps = probiou_matrix(cxcywhr[rows], cxcywhr[better]) > iou_threshold
        overlaps &= class_id[rows][:, None] == class_id[better][None]
        earlier = np.arange(len(better))[None] < np.arange(start, start + len(rows))[:, None]
        kept.append(rows[~(overlaps & earlier).any(axis=1)])
    return np.concatenate(kept) if kept else order
