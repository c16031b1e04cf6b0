"""How a decoded frame must be turned and mirrored to be shown upright. Imports no numpy: the reader process uses it.

A display matrix (ISO 14496-12, 8.3.2; H.264 display orientation SEI) maps stored pixels to the screen. One number here
represents its eight cases without scaling: transpose first, then flip rows, then flip columns.
"""

from __future__ import annotations

import struct
from typing import Any

UPRIGHT = 0
FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE = 1, 2, 4
_MATRIX = struct.Struct("=9i")  # a b u, c d v, x y w: the screen is at (a p + c q + x, b p + d q + y)


def orientation_of(frame: Any) -> int:
    """Return the orientation of an `av.VideoFrame`: a sum of `FLIP_COLUMNS`, `FLIP_ROWS` and `TRANSPOSE`."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None or side_data.buffer_size < _MATRIX.size:
        return UPRIGHT
    a, b, _, c, d, *_ = _MATRIX.unpack_from(memoryview(side_data))
    return orientation_from_matrix(a, b, c, d)


def orientation_from_matrix(a: int, b: int, c: int, d: int) -> int:
    """Return the orientation nearest to a display matrix.

    >>> orientation_from_matrix(1, 0, 0, 1), orientation_from_matrix(-1, 0, 0, 1) == FLIP_COLUMNS
    (0, True)
    >>> orientation_from_matrix(0, 1, -1, 0) == TRANSPOSE + FLIP_COLUMNS  # a quarter clockwise
    True
    """
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return FLIP_COLUMNS * (a < 0) + FLIP_ROWS * (d < 0)
    return TRANSPOSE + FLIP_COLUMNS * (c < 0) + FLIP_ROWS * (b < 0)
