"""Heat maps: seconds that objects spent in each cell of a coarse grid, by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.analytics.geometry import Floats
from engine.clock import NS_PER_S

COLUMNS, ROWS = 64, 36
MOST_CLASSES = 32
_FLUSH_AFTER = 64
LONGEST_S = 2.0
"""An observation stands for the time since the previous one, capped at this; nothing is seen in longer gaps."""
OTHER = -1
"""Class id that collects all classes after the first `MOST_CLASSES`."""


class Heat:
    """Seconds per cell and class. Each observation adds the time since the previous one, at any frame rate."""

    def __init__(self) -> None:
        self._grids: dict[int, NDArray[np.float64]] = {}
        self._waiting: list[tuple[Floats, Floats, Floats]] = []
        self._size_wh = (1, 1)
        self._total: NDArray[np.float64] | None = None
        self._total_ns = 0

    def add(self, class_id: Floats, anchor: Floats, seconds: Floats, size_wh: tuple[int, int]) -> None:
        """Add N observations: (N,) classes, (2, N) anchors in pixels, and (N,) seconds since the previous one."""
        if len(self._waiting) >= _FLUSH_AFTER or size_wh != self._size_wh:
            self._flush()
            self._size_wh = size_wh
        self._waiting.append((class_id.copy(), anchor, seconds))

    def _flush(self) -> None:
        """Add the buffered observations to the grids; doing so per frame would dominate the cost of the analysis."""
        if not self._waiting:
            return
        class_id, anchor, seconds = (np.concatenate(column, axis=-1) for column in zip(*self._waiting, strict=True))
        self._waiting.clear()
        column = np.clip((anchor[0] * (COLUMNS / self._size_wh[0])).astype(np.intp), 0, COLUMNS - 1)
        row = np.clip((anchor[1] * (ROWS / self._size_wh[1])).astype(np.intp), 0, ROWS - 1)
        cell, seconds = row * COLUMNS + column, np.clip(seconds, 0.0, LONGEST_S)
        for each in map(int, np.unique(class_id)):
            chosen = class_id == each
            np.add.at(self._grid(each), cell[chosen], seconds[chosen])

    def _grid(self, class_id: int) -> NDArray[np.float64]:
        if class_id not in self._grids:
            if len(self._grids) >= MOST_CLASSES:
                class_id = OTHER
            self._grids.setdefault(class_id, np.zeros(ROWS * COLUMNS))
        return self._grids[class_id]

    def total(self, now_ns: int) -> NDArray[np.float64]:
        """Return the (36, 64) grid of seconds of all classes, at most a second old at this time; do not change it."""
        if self._total is None or not 0 <= now_ns - self._total_ns < NS_PER_S:
            self._flush()
            self._total = np.sum([*self._grids.values(), np.zeros(ROWS * COLUMNS)], axis=0).reshape(ROWS, COLUMNS)
            self._total_ns = now_ns
        return self._total

    def grids(self) -> dict[int, NDArray[np.float64]]:
        """Return a copy of the (36, 64) grids of seconds by class id; -1 holds the classes beyond the 32nd."""
        self._flush()
        return {class_id: grid.reshape(ROWS, COLUMNS).copy() for class_id, grid in self._grids.items()}

    def reset(self) -> None:
        """Reset all grids to zero."""
        self._waiting.clear()
        self._grids.clear()
        self._total = None

    def state(self) -> dict[str, list[list[float]]]:
        """Return [cell, seconds] pairs by class id as JSON-ready data."""
        self._flush()
        return {
            str(class_id): [[int(cell), round(float(grid[cell]), 3)] for cell in np.flatnonzero(grid)]
            for class_id, grid in self._grids.items()
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned. Raises `ValueError` for a cell outside the grid."""
        for class_id, cells in state.items():
            grid = self._grid(int(class_id))
            for cell, seconds in cells:
                if not 0 <= int(cell) < len(grid):
                    raise ValueError(f"heat has no cell {cell}")
                grid[int(cell)] = float(seconds)
