"""The grids of cells that anchor-free heads predict on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STRIDES = (8, 16, 32)
STRIDES_P6 = (8, 16, 32, 64)
STRIDES_P2 = (4, 8, 16, 32)


def grid(size_hw: tuple[int, int], strides: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cell corners (A, 2) as x, y in cells, and strides (A, 1), of all grids in sequence.

    If a stride does not divide a side, the last cell reaches beyond it, as with padded convolutions.
    """
    cells, steps = [], []
    for stride in strides:
        rows, columns = _cells(size_hw, stride)
        y, x = np.divmod(np.arange(rows * columns), columns)
        cells.append(np.stack((x, y), axis=1))
        steps.append(np.full((rows * columns, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(steps).astype(np.float32)


def anchor_count(size_hw: tuple[int, int], strides: tuple[int, ...]) -> int:
    """Return the number of cells in all grids.

    >>> anchor_count((640, 640), STRIDES), anchor_count((416, 416), STRIDES)
    (8400, 3549)
    """
    return sum(rows * columns for rows, columns in (_cells(size_hw, stride) for stride in strides))


def _cells(size_hw: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size_hw[0] // stride), -(-size_hw[1] // stride)
