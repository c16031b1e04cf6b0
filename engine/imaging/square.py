"""Frames as they are displayed: with square pixels, and as JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.video.sizes.displayed import displayed_wh

Image = NDArray[np.uint8]


def displayed(image: Image, pixel_aspect: float, max_side: int | None = None) -> Image:
    """Return an image (H, W, 3) uint8 with square pixels; itself if nothing changes.

    Args:
        image: to display.
        pixel_aspect: width by height of its pixels.
        max_side: the longer side is reduced to this; None: no limit.
    """
    height, width = image.shape[:2]
    size_wh = displayed_wh(width, height, pixel_aspect, max_side)
    if size_wh == (width, height):
        return image
    is_smaller = size_wh[0] * size_wh[1] < width * height
    return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR))


def jpeg_of(image: Image, max_side: int, quality: int, pixel_aspect: float = 1.0) -> tuple[bytes, tuple[int, int]]:
    """Return an image (H, W, 3) uint8 BGR as a JPEG with square pixels, and its width and height.

    Args:
        image: to encode.
        max_side: the longer side is reduced to this.
        quality: of the JPEG, 1 to 100.
        pixel_aspect: width by height of a pixel of the image.
    """
    shown = displayed(image, pixel_aspect, max_side)
    _, encoded = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes(), (int(shown.shape[1]), int(shown.shape[0]))
