"""A clock in the frame: a time as black and white blocks that survive JPEG and H.264.

The time is `time.monotonic_ns()` in microseconds, the same clock in every process of a machine, so whoever has the
frame knows how old it is. Painting needs only the standard library, because the camera runs under the system's Python.
"""

from __future__ import annotations

import binascii
import time
from typing import Any

COLUMNS, ROWS = 16, 4  # cells over the upper half: 48 bits of time, 16 bits to check them
_TIME_BITS = 48
_DARK, _BRIGHT, _GREY = 32, 224, 128


def luma(width: int, height: int, moment_us: int) -> bytes:
    """Return the grey image (`height` rows of `width` bytes) that shows `moment_us`."""
    value = moment_us.to_bytes(_TIME_BITS // 8, "big")
    bits = int.from_bytes(value + binascii.crc_hqx(value, 0).to_bytes(2, "big"), "big")
    cell_width, cell_height = width // COLUMNS, height // 2 // ROWS
    painted = b""
    for row in range(ROWS):
        line = b"".join(
            bytes([_BRIGHT if bits >> (COLUMNS * ROWS - 1 - row * COLUMNS - column) & 1 else _DARK]) * cell_width
            for column in range(COLUMNS)
        )
        painted += line.ljust(width, bytes([_GREY])) * cell_height
    return painted.ljust(width * height, bytes([_GREY]))


def i420(width: int, height: int, moment_us: int) -> bytes:
    """Return the same image as planar YUV 4:2:0."""
    return luma(width, height, moment_us) + bytes([128]) * (width * height // 2)


def now_us() -> int:
    """Return the time to paint now."""
    return time.monotonic_ns() // 1000


def moment_us(image: Any) -> int | None:
    """Return the time that an image (H, W, 3) of any size shows; None if it cannot be read reliably.

    >>> import numpy as np
    >>> grey = np.frombuffer(luma(320, 240, 123_456_789), np.uint8).reshape(240, 320, 1)
    >>> moment_us(np.repeat(grey, 3, axis=2)), moment_us(np.zeros((240, 320, 3), np.uint8))
    (123456789, None)
    """
    height, width = image.shape[:2]
    if image[: height // 2].max() < (_DARK + _BRIGHT) // 2:
        return None
    bits = 0
    for row in range(ROWS):
        for column in range(COLUMNS):
            x, y = int((column + 0.5) * (width / COLUMNS)), int((row + 0.5) * (height / 2 / ROWS))
            bits = bits << 1 | int(image[y - 2 : y + 3, x - 2 : x + 3].mean() > (_DARK + _BRIGHT) / 2)
    value = (bits >> 16).to_bytes(_TIME_BITS // 8, "big")
    is_sure = binascii.crc_hqx(value, 0) == bits & 0xFFFF
    return bits >> 16 if is_sure else None
