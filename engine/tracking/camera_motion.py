"""Estimates camera motion between two frames by following background corners with optical flow."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]
Gray = NDArray[np.uint8]

_WIDTH_PX = 320
"""Frames are shrunk to this width first: the cost is the same for every camera, a pixel here is enough."""

_MAX_CORNERS, _MIN_CORNERS = 200, 12
_FLOW_WINDOW = (15, 15)


class CameraMotion:
    """Estimates a similarity transform from frame to frame (BoT-SORT, Aharon et al. 2022, section 3.2).

    Corners inside tracked boxes are ignored, because they move with the objects. If too few corners remain, or
    no transform explains most of them, the camera is assumed to have stood still.
    """

    def __init__(self) -> None:
        self._gray: Gray | None = None
        self._affine: Affine | None = None

    def observe(self, image: NDArray[np.uint8], boxes: NDArray[np.float64]) -> None:
        """Follow the background into a new frame.

        Args:
            image: (H, W, 3) BGR.
            boxes: (N, 4) xyxy of moving objects on the previous frame, in pixels of the image.
        """
        scale = min(1.0, _WIDTH_PX / image.shape[1])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        gray = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)
        before, self._gray = self._gray, gray
        if before is None or before.shape != gray.shape:
            return
        step = _similarity(before, gray, boxes * scale)
        if step is None:
            return
        step[:, 2] /= scale
        self._affine = step if self._affine is None else _after(step, self._affine)

    def take(self) -> Affine | None:
        """Return the (2, 3) motion since the last call, in pixels; None if the camera stood still."""
        affine, self._affine = self._affine, None
        return affine


def _after(second: Affine, first: Affine) -> Affine:
    both: Affine = np.concatenate(
        (second[:, :2] @ first[:, :2], (second[:, :2] @ first[:, 2] + second[:, 2])[:, None]), axis=1
    )
    return both


def _background(gray: Gray, boxes: NDArray[np.float64]) -> Gray:
    mask = np.full(gray.shape, 255, np.uint8)
    height, width = gray.shape
    corners = np.clip(boxes, 0, (width, height, width, height)).astype(int)
    for left, top, right, bottom in corners.tolist():
        mask[top : bottom + 1, left : right + 1] = 0
    return mask


def _similarity(before: Gray, after: Gray, boxes: NDArray[np.float64]) -> Affine | None:
    corners = cv2.goodFeaturesToTrack(
        before, maxCorners=_MAX_CORNERS, qualityLevel=0.01, minDistance=5, mask=_background(before, boxes)
    )
    if corners is None or len(corners) < _MIN_CORNERS:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=_FLOW_WINDOW, maxLevel=3)
    good = found.reshape(-1) == 1
    if good.sum() < _MIN_CORNERS:
        return None
    start, end = corners.reshape(-1, 2)[good], moved.reshape(-1, 2)[good]
    affine, inliers = cv2.estimateAffinePartial2D(start, end, method=cv2.RANSAC, ransacReprojThreshold=1.5)
    if affine is None or inliers.sum() < max(_MIN_CORNERS, 0.5 * len(start)):
        return None
    return np.asarray(affine, np.float64)
