"""A heat map of the past: seconds that objects spent in each cell, from the stored paths of their tracks."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from engine.analytics.heat import COLUMNS, ROWS
from engine.clock import NS_PER_S
from engine.events.store.reader import EventReader
from engine.events.track_paths import unpack

STEP_S = 0.2
Grid = NDArray[np.float64]
PEAK = 99.0


def heat_between(
    reader: EventReader, source_id: str, from_utc_ns: int, to_utc_ns: int, class_name: str | None = None
) -> Grid:
    """Return the (36, 64) grid of seconds in which the lower middle of an object was in each cell.

    Args:
        reader: of the log.
        source_id: the source.
        from_utc_ns: begin of the span.
        to_utc_ns: its end.
        class_name: count only this class; None: all.
    """
    grid = np.zeros(ROWS * COLUMNS)
    for row in reader.tracks(source_id, from_utc_ns, to_utc_ns):
        if class_name is not None and row.class_name != class_name:
            continue
        seconds, boxes = unpack(row.path)
        if not len(seconds):
            continue
        low = max((from_utc_ns - row.began_utc_ns) / NS_PER_S, 0.0)
        high = min((to_utc_ns - row.began_utc_ns) / NS_PER_S, float(seconds[-1]))
        at = np.arange(low + STEP_S / 2, high, STEP_S)
        before = np.clip(np.searchsorted(seconds, at, side="right") - 1, 0, len(seconds) - 1)
        at, before = at[boxes[before, 3] > 0], before[boxes[before, 3] > 0]
        x, y = np.interp(at, seconds, boxes[:, 0]), np.interp(at, seconds, boxes[:, 1])
        column = np.clip((x * COLUMNS).astype(np.intp), 0, COLUMNS - 1)
        line = np.clip((y * ROWS).astype(np.intp), 0, ROWS - 1)
        np.add.at(grid, line * COLUMNS + column, STEP_S)
    return grid.reshape(ROWS, COLUMNS)


def heat_png(grid: Grid) -> bytes:
    """Return a grid as a PNG of one pixel per cell: transparent where nothing was, then yellow to red."""
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
