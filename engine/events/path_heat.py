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
from engine.events.track_paths import unpack_all

HOUR_NS = 3600 * NS_PER_S
STEP_S = 0.2
OTHER = "other"
"""Collects all classes after the first `MOST_CLASSES`."""
LEVEL = 1
"""Of compression: takes half the time of the default, for a third more bytes."""
_CELLS = ROWS * COLUMNS
Grid = NDArray[np.float64]


def new_grid() -> Grid:
    """Return (36 * 64,) seconds, all 0."""
    return np.zeros(_CELLS)


def add_paths(grids: Sequence[Grid], rows: Sequence[TrackRow], spans: Sequence[tuple[int, int]]) -> None:
    """Add the seconds in which the lower middle of objects was in each cell, all paths in one pass.

    Args:
        grids: one for each path, to add to; several paths may share one.
        rows: the paths.
        spans: for each path, the span of wall clock (UTC ns) in which it counts.
    """
    seconds, boxes, counts = unpack_all([row.path for row in rows])
    ends = np.cumsum(counts)
    lasts = [float(seconds[end - 1]) if count else 0.0 for count, end in zip(counts, ends.tolist(), strict=True)]
    lows = [max((low - row.began_utc_ns) / NS_PER_S, 0.0) for row, (low, _) in zip(rows, spans, strict=True)]
    highs = [(high - row.began_utc_ns) / NS_PER_S for row, (_, high) in zip(rows, spans, strict=True)]
    first = np.array(lows) + STEP_S / 2
    samples = np.ceil((np.minimum(highs, lasts) - first) / STEP_S).clip(min=0).astype(np.intp)
    samples[np.array(counts) == 0] = 0
    path_of = np.repeat(np.arange(len(rows)), samples)
    step = np.arange(len(path_of)) - np.repeat(np.cumsum(samples) - samples, samples)
    apart = np.cumsum([0.0, *(last + 1.0 for last in lasts)])[:-1]  # the paths, one after the other
    seconds, at = seconds + np.repeat(apart, counts), first[path_of] + STEP_S * step + apart[path_of]
    before = np.maximum(np.searchsorted(seconds, at, side="right") - 1, (ends - counts)[path_of])
    seen = boxes[before, 3] > 0
    at, path_of = at[seen], path_of[seen]
    if not len(at):
        return
    x, y = np.interp(at, seconds, boxes[:, 0]), np.interp(at, seconds, boxes[:, 1])
    column = (x * COLUMNS).astype(np.intp).clip(0, COLUMNS - 1)
    cell = (y * ROWS).astype(np.intp).clip(0, ROWS - 1) * COLUMNS + column
    for grid in {id(grid): grid for grid in grids}.values():
        own = np.array([other is grid for other in grids])
        np.add.at(grid, cell[own[path_of]], STEP_S)


def packed(grid: Grid) -> bytes:
    """Return a grid as it is stored: float32, compressed."""
    return zlib.compress(grid.astype("<f4").tobytes(), LEVEL)


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
        spans = [(hour * HOUR_NS, (hour + 1) * HOUR_NS) for (_, hour), _ in parts]
        add_paths([self._grids[key] for key, _ in parts], [row for _, row in parts], spans)
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
