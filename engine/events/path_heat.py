"""Seconds that objects spent in each cell of the frame, from the paths of their tracks, summed by class and hour."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.analytics.heat import COLUMNS, MOST_CLASSES, ROWS
from engine.clock import NS_PER_S
from engine.events.store.rows import HeatRow, TrackRow
from engine.events.store.writer import StoreWriter
from engine.events.track_paths import unpack

HOUR_NS = 3600 * NS_PER_S
STEP_S = 0.2
OTHER = "other"
"""Collects all classes after the first `MOST_CLASSES`."""
_CELLS = ROWS * COLUMNS
Grid = NDArray[np.float64]


def new_grid() -> Grid:
    """Return (36 * 64,) seconds, all 0."""
    return np.zeros(_CELLS)


def add_path(grid: Grid, row: TrackRow, from_utc_ns: int, to_utc_ns: int) -> None:
    """Add the seconds in which the lower middle of an object was in each cell to a flat (cells,) grid.

    Args:
        grid: to add to.
        row: a piece of the object's path.
        from_utc_ns: start of the span of time that counts.
        to_utc_ns: its end.
    """
    seconds, boxes = unpack(row.path)
    if not len(seconds):
        return
    low = max((from_utc_ns - row.began_utc_ns) / NS_PER_S, 0.0)
    high = min((to_utc_ns - row.began_utc_ns) / NS_PER_S, float(seconds[-1]))
    at = np.arange(low + STEP_S / 2, high, STEP_S)
    before = np.clip(np.searchsorted(seconds, at, side="right") - 1, 0, len(seconds) - 1)
    at, before = at[boxes[before, 3] > 0], before[boxes[before, 3] > 0]
    x, y = np.interp(at, seconds, boxes[:, 0]), np.interp(at, seconds, boxes[:, 1])
    column = np.clip((x * COLUMNS).astype(np.intp), 0, COLUMNS - 1)
    line = np.clip((y * ROWS).astype(np.intp), 0, ROWS - 1)
    np.add.at(grid, line * COLUMNS + column, STEP_S)


def packed(grid: Grid) -> bytes:
    """Return a grid as it is stored: float32, compressed."""
    return zlib.compress(grid.astype("<f4").tobytes())


def unpacked(data: bytes) -> Grid:
    """Return the (36 * 64,) seconds of a stored grid; zeros if it is damaged."""
    try:
        cells = np.frombuffer(zlib.decompressobj().decompress(data, 4 * _CELLS), "<f4")
    except zlib.error:
        return new_grid()
    return cells.astype(np.float64) if len(cells) == _CELLS else new_grid()


class HourHeat:
    """The heat maps of one source and run, by class and hour of UTC; used by the writing thread alone.

    Args:
        source_id: the camera or file.
        run_epoch: start of the run.
    """

    def __init__(self, source_id: str, run_epoch: int) -> None:
        self._source_id = source_id
        self._run_epoch = run_epoch
        self._grids: dict[tuple[str, int], Grid] = {}
        self._classes: set[str] = set()

    def add(self, rows: Sequence[TrackRow], store: StoreWriter) -> list[HeatRow]:
        """Add pieces of paths, and return the rows that changed; each holds its whole hour so far.

        Raises `StoreError` before anything is added.
        """
        parts = [
            ((self._class(row.class_name), hour), row)
            for row in rows
            for hour in range(row.began_utc_ns // HOUR_NS, row.ended_utc_ns // HOUR_NS + 1)
        ]
        changed = sorted({key for key, _ in parts})
        for name, hour in changed:
            if (name, hour) not in self._grids:
                before = store.heat(self._source_id, name, hour)
                self._grids[name, hour] = new_grid() if before is None else unpacked(before)
        for key, row in parts:
            add_path(self._grids[key], row, key[1] * HOUR_NS, (key[1] + 1) * HOUR_NS)
        made = [
            HeatRow(self._source_id, name, hour, self._run_epoch, packed(self._grids[name, hour]))
            for name, hour in changed
        ]
        newest = max((hour for _, hour in changed), default=0)
        self._grids = {key: grid for key, grid in self._grids.items() if abs(newest - key[1]) <= 1}
        return made

    def _class(self, name: str) -> str:
        if name in self._classes or len(self._classes) < MOST_CLASSES:
            self._classes.add(name)
            return name
        return OTHER
