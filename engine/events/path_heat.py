"""Seconds that objects spent in each cell of the frame, from the paths of their tracks, summed by class and hour."""

from __future__ import annotations

import itertools
import math
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
    ends = list(itertools.accumulate(counts))
    lasts = [seconds.item(end - 1) if count else 0.0 for count, end in zip(counts, ends, strict=True)]
    firsts, samples, apart, before = [], [], [], 0.0
    for row, (low, high), last, count in zip(rows, spans, lasts, counts, strict=True):
        first = max((low - row.began_utc_ns) / NS_PER_S, 0.0) + STEP_S / 2
        until = min((high - row.began_utc_ns) / NS_PER_S, last)
        firsts.append(first)
        samples.append(max(math.ceil((until - first) / STEP_S), 0) if count else 0)
        apart.append(before)  # the paths, one after the other
        before += last + 1.0
    total = sum(samples)
    if not total:
        return
    path_of = np.arange(len(rows)).repeat(samples)
    begins = np.array([0, *itertools.accumulate(samples)])
    step = np.arange(total) - begins[path_of]
    shift = np.array(apart)
    seconds = seconds + shift.repeat(counts)
    at = np.array(firsts)[path_of] + STEP_S * step + shift[path_of]
    least = np.array(ends) - counts
    before_at = np.maximum(seconds.searchsorted(at, side="right") - 1, least[path_of])
    seen = boxes[before_at, 3] > 0
    at, path_of = at[seen], path_of[seen]
    if not len(at):
        return
    x, y = np.interp(at, seconds, boxes[:, 0]), np.interp(at, seconds, boxes[:, 1])
    column = np.minimum((x * COLUMNS).astype(np.intp), COLUMNS - 1)
    cell = np.minimum((y * ROWS).astype(np.intp), ROWS - 1) * COLUMNS + column
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
