"""The small grey copy of a frame in which changes are sought."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

ROWS_PER_CELL = 2
"""Rows that are averaged per row of the small copy: reading all of them takes five times as long at 1080p."""


def small_copy(image: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the blurred brightness of an image at a smaller size, (rows, columns) uint8.

    Averaging by whole numbers of pixels comes first, because that is up to four times as fast as by fractions; what is
    left to scale, by a factor below 2, is interpolated.

    Args:
        image: (H, W, 3) BGR, or (H, W) brightness.
        size_wh: columns and rows of the copy.
    """
    columns, rows = size_wh
    small = image[:: max(1, image.shape[0] // rows // ROWS_PER_CELL)]
    by_y, by_x = max(1, small.shape[0] // rows), max(1, small.shape[1] // columns)
    if (by_y, by_x) != (1, 1):
        whole = small[: small.shape[0] // by_y * by_y, : small.shape[1] // by_x * by_x]
        small = cv2.resize(whole, (whole.shape[1] // by_x, whole.shape[0] // by_y), interpolation=cv2.INTER_AREA)
    if small.shape[1::-1] != size_wh:
        small = cv2.resize(small, size_wh, interpolation=cv2.INTER_LINEAR)
    small = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else small
    blurred: NDArray[np.uint8] = cv2.blur(small, (3, 3))
    return blurred
