"""Replacing parts of an image with coarse blocks."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Region = tuple[int, int, int, int]
BLOCKS_PER_BOX = 6


def mosaic(image: Image, boxes: Iterable[NDArray[np.float32]], margin: float) -> Image:
    """Return a copy of a (H, W, 3) image with each box (x1, y1, x2, y2) in 6 x 6 blocks of its mean colours.

    Args:
        image: not changed.
        boxes: in pixels; parts outside the image are ignored.
        margin: share of a box's size that is added on each side.
    """
    out = image.copy()
    height, width = image.shape[:2]
    for box in boxes:
        x1, y1, x2, y2 = with_margin(box, width, height, margin)
        if x2 > x1 and y2 > y1:
            coarse = cv2.resize(image[y1:y2, x1:x2], (BLOCKS_PER_BOX, BLOCKS_PER_BOX), interpolation=cv2.INTER_AREA)
            out[y1:y2, x1:x2] = cv2.resize(coarse, (x2 - x1, y2 - y1), interpolation=cv2.INTER_NEAREST)
    return out


def with_margin(xyxy: NDArray[np.float32], width: int, height: int, margin: float) -> Region:
    """Return the box enlarged by a share of its size on each side, in whole pixels inside the frame.

    >>> with_margin(np.float32([10, 10, 30, 50]), 32, 100, 0.1)
    (8, 6, 32, 54)
    """
    x1, y1, x2, y2 = (float(value) for value in xyxy)
    dx, dy = margin * (x2 - x1), margin * (y2 - y1)
    left, right = (min(max(round(x), 0), width) for x in (x1 - dx, x2 + dx))
    top, bottom = (min(max(round(y), 0), height) for y in (y1 - dy, y2 + dy))
    return left, top, right, bottom
