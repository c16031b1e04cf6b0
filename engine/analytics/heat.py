"""Heat maps: seconds that objects spent in each cell of a coarse grid, by class."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.analytics.geometry import Floats
from engine.clock import NS_PER_S

COLUMNS, ROWS = 64, 36
MOST_CLASSES = 32
_FLUSH_AFTER = 64
_LAST = np.array([[COLUMNS - 1.0], [ROWS - 1.0]])
LONGEST_S = 2.0
"""An observation stands for the time since the previous one, capped at this; nothing is seen in longer gaps."""
OTHER = -1
"""Class id that collects all classes after the first `MOST_CLASSES`."""


Chunk = tuple[Floats, Floats, Floats, float]
"""Observations of one frame: (N,) classes, (2, N) anchors, (N,) times of the observations before, and its time."""


def _cells(chunks: list[Chunk], size_wh: tuple[int, int]) -> tuple[Floats, NDArray[np.intp], Floats]:
    """Return class, cell and seconds of each observation."""
    now_s = np.repeat([chunk[3] for chunk in chunks], [len(chunk[0]) for chunk in chunks])
    class_id, anchor, last_s = (np.concatenate(column, axis=-1) for column in list(zip(*chunks, strict=True))[:3])
    scale = np.array([[COLUMNS / size_wh[0]], [ROWS / size_wh[1]]])
    column, row = np.minimum(np.maximum(anchor * scale, 0.0), _LAST).astype(np.intp)
    return class_id, row * COLUMNS + column, np.minimum(np.maximum(now_s - last_s, 0.0), LONGEST_S)


class HeatTotal:
    """Seconds per cell, summed over all classes, at one time; computed on first access."""

    def __init__(self, grids: list[NDArray[np.float64]], chunks: list[Chunk], size_wh: tuple[int, int]) -> None:
        self._parts = grids, chunks, size_wh

    @cached_property
    def seconds(self) -> NDArray[np.float64]:
        """(36, 64) float64; do not change it."""
        grids, chunks, size_wh = self._parts
        total: NDArray[np.float64] = np.sum([*grids, np.zeros(ROWS * COLUMNS)], axis=0)
        if chunks:
            _, cell, seconds = _cells(chunks, size_wh)
            np.add.at(total, cell, seconds)
        return total.reshape(ROWS, COLUMNS)


class Heat:
    """Seconds per cell and class. Each observation adds the time since the previous one, at any frame rate."""

    def __init__(self) -> None:
        self._grids: dict[int, NDArray[np.float64]] = {}  # the arrays are replaced, never changed
        self._waiting: list[Chunk] = []
        self._size_wh = (1, 1)
        self._total: HeatTotal | None = None
        self._total_ns = 0

    def add(self, class_id: Floats, anchor: Floats, last_s: Floats, now_s: float, size_wh: tuple[int, int]) -> None:
        """Add N observations of one frame.

        Args:
            class_id: (N,).
            anchor: (2, N) pixels; must not change afterwards.
            last_s: (N,) times of the previous observations.
            now_s: time of these.
            size_wh: of the frame.
        """
        if len(self._waiting) >= _FLUSH_AFTER or size_wh != self._size_wh:
            self._flush()
            self._size_wh = size_wh
        self._waiting.append((class_id.copy(), anchor, last_s.copy(), now_s))

    def _flush(self) -> None:
        """Add the buffered observations to the grids; doing so per frame would dominate the cost of the analysis."""
        if not self._waiting:
            return
        class_id, cell, seconds = _cells(self._waiting, self._size_wh)
        self._waiting.clear()
        for each in sorted(set(class_id.tolist())):
            chosen = class_id == each
            key = self._key(int(each))
            grid = self._grids[key].copy()
            np.add.at(grid, cell[chosen], seconds[chosen])
            self._grids[key] = grid

    def _key(self, class_id: int) -> int:
        """Return under which class id the seconds of a class are counted; it has a grid."""
        if class_id not in self._grids and len(self._grids) >= MOST_CLASSES:
            class_id = OTHER
        self._grids.setdefault(class_id, np.zeros(ROWS * COLUMNS))
        return class_id

    def total(self, now_ns: int) -> HeatTotal:
        """Return the seconds of all classes, at most a second old at this time."""
        if self._total is None or not 0 <= now_ns - self._total_ns < NS_PER_S:
            self._total = HeatTotal(list(self._grids.values()), self._waiting.copy(), self._size_wh)
            self._total_ns = now_ns
        return self._total

    def grids(self) -> dict[int, NDArray[np.float64]]:
        """Return a copy of the (36, 64) grids of seconds by class id; -1 holds the classes beyond the 32nd."""
        self._flush()
        return {class_id: grid.reshape(ROWS, COLUMNS).copy() for class_id, grid in self._grids.items()}

    def copy(self) -> Heat:
        """Return a heat map that does not change with this one; cheap, as both share what was collected so far."""
        same = Heat()
        same._grids, same._waiting, same._size_wh = self._grids.copy(), self._waiting.copy(), self._size_wh
        return same

    def reset(self) -> None:
        """Reset all grids to zero."""
        self._waiting.clear()
        self._grids.clear()
        self._total = None

    def state(self) -> dict[str, list[list[float]]]:
        """Return [cell, seconds] pairs by class id as JSON-ready data."""
        self._flush()
        state = {}
        for class_id, grid in self._grids.items():
            cells = grid.nonzero()[0]
            seconds = grid[cells].round(3).tolist()
            state[str(class_id)] = [[cell, value] for cell, value in zip(cells.tolist(), seconds, strict=True)]
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned. Raises `ValueError` for a cell outside the grid."""
        for class_id, cells in state.items():
            grid = self._grids[self._key(int(class_id))].copy()
            for cell, seconds in cells:
                if not 0 <= int(cell) < len(grid):
                    raise ValueError(f"heat has no cell {cell}")
                grid[int(cell)] = float(seconds)
            self._grids[self._key(int(class_id))] = grid
