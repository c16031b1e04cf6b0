"""Draws where objects have spent their time."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

OPACITY = 0.6
BLUR_CELLS = 0.7
LEAST_SHARE = 0.01
FULL_SHARE = 0.98
"""Quantile of the visited cells that counts as hottest, so that one parked object does not outshine everything else."""


def draw_heat(image: NDArray[np.uint8], seconds: NDArray[np.float64]) -> None:
    """Blend a heat map into an image: the longer objects were somewhere, the warmer and denser its colour.

    Args:
        image: (H, W, 3) uint8 BGR; drawn on.
        seconds: (rows, columns) seconds that objects spent in each cell of the image.
    """
    if not seconds.any():
        return
    spread = cv2.GaussianBlur(seconds, (0, 0), BLUR_CELLS)
    hottest = np.quantile(spread[spread > spread.max() * LEAST_SHARE], FULL_SHARE)
    level = np.sqrt(np.clip(spread / hottest, 0.0, 1.0)).astype(np.float32)
    level[spread <= spread.max() * LEAST_SHARE] = 0
    smooth = cv2.resize(level, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colours = cv2.applyColorMap((smooth * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    share = (smooth * OPACITY)[..., None]
    image[...] = (image * (1 - share) + colours * share).astype(np.uint8)
