"""A heat map of the past: seconds that objects spent in each cell, from paths and, before those, from stored maps."""

from __future__ import annotations

import struct
import zlib
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from engine.analytics.heat import COLUMNS, ROWS
from engine.events.path_heat import HOUR_NS, add_paths, new_grid, unpacked
from engine.events.store.reader import EventReader

Grid = NDArray[np.float64]
PEAK = 99.0
TOGETHER = 1000
"""Paths that are added in one pass."""


def heat_between(
    reader: EventReader, source_id: str, from_utc_ns: int, to_utc_ns: int, class_name: str | None = None
) -> Grid:
    """Return the (36, 64) grid of seconds in which the lower middle of an object was in each cell.

    Paths are exact, but kept for some days only. Whole hours of the span without paths are taken from the stored heat
    maps.

    Args:
        reader: of the log.
        source_id: the source.
        from_utc_ns: begin of the span.
        to_utc_ns: its end.
        class_name: count only this class; None: all.
    """
    grid = new_grid()
    oldest = reader.oldest_track(source_id)
    cut = to_utc_ns // HOUR_NS if oldest is None else min(-(-oldest // HOUR_NS), to_utc_ns // HOUR_NS)
    stored = reader.heat(source_id, -(-from_utc_ns // HOUR_NS), cut)
    for heat in stored:
        if class_name in (None, heat.class_name):
            grid += unpacked(heat.grid)
    begin = max(from_utc_ns, cut * HOUR_NS) if stored else from_utc_ns
    rows = (row for row in reader.tracks(source_id, begin, to_utc_ns) if class_name in (None, row.class_name))
    while some := list(islice(rows, TOGETHER)):
        add_paths([grid] * len(some), some, [(begin, to_utc_ns)] * len(some))
    return grid.reshape(ROWS, COLUMNS)


def heat_png(grid: Grid) -> bytes:
    """Return a (rows, columns) grid as a PNG of one pixel per cell: transparent for nothing, then yellow to red."""
    seen = grid[grid > 0]
    top = float(np.percentile(seen, PEAK)) if len(seen) else 1.0
    share = np.sqrt(np.clip(grid / max(top, 1e-9), 0, 1))
    colours = np.zeros((*grid.shape, 4), np.uint8)
    colours[..., 0] = 255
    colours[..., 1] = np.rint(220 * (1 - share)).astype(np.uint8)
    colours[..., 3] = np.where(grid > 0, np.rint(70 + 150 * share), 0).astype(np.uint8)
    rows = b"".join(b"\0" + line.tobytes() for line in colours)
    head = struct.pack(">IIBBBBB", grid.shape[1], grid.shape[0], 8, 6, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
