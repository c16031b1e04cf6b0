"""The size at which a frame is displayed when its pixels are not square. Imports no numpy."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

MIN_ASPECT = 0.1  # a pixel aspect below this, or above its inverse, means a damaged header


def displayed_wh(width: int, height: int, pixel_aspect: float, max_side: int | None = None) -> tuple[int, int]:
    """Return width and height in square pixels: as players do, the rows stay and the columns change.

    Args:
        width: stored pixels of a row.
        height: rows.
        pixel_aspect: width by height of a pixel.
        max_side: the longer side is reduced to this; None: no limit.

    >>> displayed_wh(720, 576, 64 / 45), displayed_wh(720, 576, 64 / 45, 512), displayed_wh(640, 480, 1.0)
    ((1024, 576), (512, 288), (640, 480))
    """
    shown = width * pixel_aspect
    scale = 1.0 if max_side is None else min(1.0, max_side / max(shown, height))
    return max(1, round(shown * scale)), max(1, round(height * scale))


def pixel_aspect_of(stream: Any) -> Fraction | None:
    """Return width by height of a pixel of an `av` video stream, None if it declares none or a damaged one."""
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return Fraction(ratio) if ratio and MIN_ASPECT <= ratio <= 1 / MIN_ASPECT else None
