"""An image file as a BGR array: the one place where image files become pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.video.limits import MAX_PIXELS, check_image

BYTES_PER_PIXEL = 16
"""Bytes of a file for each pixel that it may hold: more than four 32-bit channels is not an image."""


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return an image as (H, W, 3) BGR, upright as its EXIF says.

    Args:
        path: the file.
        max_pixels: width times height at most; checked in the header, before the pixels are decoded.

    Raises:
        FrameTooLargeError: it claims more pixels.
        ValueError: it is not an image, or damaged; the message says what.
        OSError: it cannot be read.
    """
    import cv2

    size = path.stat().st_size
    if size > BYTES_PER_PIXEL * max_pixels:
        raise ValueError(f"{size / 1e6:.0f} MB are too many for an image of {max_pixels / 1e6:g} million pixels")
    encoded = np.fromfile(path, np.uint8)
    check_image(encoded.data, max_pixels)
    try:
        image: NDArray[np.uint8] | None = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot decode it: {error.err or 'damaged'}") from error
    if image is None:
        raise ValueError("OpenCV cannot decode it: the file is damaged or cut short")
    return image
