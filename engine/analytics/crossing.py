"""Detect each line crossing exactly once: an object must cross the line and move well away from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from engine.analytics.geometry import ZERO, Floats, cuts, set_pairs
from engine.analytics.layout import LineLayout
from engine.analytics.motion import last_boxes
from engine.analytics.table import RING, Index, Paths, Rows

BAND = 0.08
"""Half the distance that an object must travel across a line, in heights of its box."""
LEAST_PX = 3.0
INFERRED_S = 1.0
DITHER_S = 10.0


class Crossing(NamedTuple):
    """One crossing of a line by an identity (row of the table).

    `direction` is 0 from left to right, 1 from right to left; `speed_h` is in heights per second; `inferred` means
    that nothing was observed for a second, or that the track had been lost.
    """

    row: int
    line: int
    direction: int
    seconds: float
    at: tuple[float, float]
    speed_h: float
    inferred: bool


class Step(NamedTuple):
    """Results of one frame: crossings, and the number of dithering side changes per line."""

    crossings: list[Crossing]
    dithers: dict[int, int]


NOTHING = Step([], {})


def step(rows: Rows, paths: Paths, index: Index, layout: LineLayout, tall: Floats, *, begins: bool) -> Step:
    """Update the sides of the observed identities, and return their crossings.

    Args:
        rows: columns of the N observed identities.
        paths: those of the whole table; they already include these observations.
        index: (N,) rows of the observed identities in the table.
        layout: the lines in pixels.
        tall: (N,) heights of the boxes.
        begins: whether some identity may have no side yet.
    """
    far = rows["l_far"]
    signed = layout.signed(rows)
    product = signed * far
    further = product > far * far
    result = NOTHING
    changes = [
        (line, n)
        for line, n in set_pairs(product < ZERO)
        if abs(signed.item(line, n) - far.item(line, n)) >= max(2 * BAND * tall.item(n), LEAST_PX)
    ]
    if changes:
        result = _changes(rows, paths, index, changes, layout)
        further[tuple(zip(*changes, strict=True))] = True
    if begins:
        further |= far == 0
    np.putmask(far, further, signed)
    np.copyto(rows["l_point"], rows["point"][:, None], where=further)
    return result


def at_end(rows: Rows, paths: Paths, index: Index, layout: LineLayout) -> list[Crossing]:
    """Return the crossings that only the newest boxes of paths that end show: the filter still holds those back.

    Args:
        rows: the whole table.
        paths: those of the table.
        index: (K,) rows whose path ends.
        layout: the lines in pixels.
    """
    newest_s, box_s = rows["newest_s"], rows["box_s"]
    index = index[newest_s[index] > box_s[index]]
    if not len(index) or not len(layout):
        return []
    ends = rows.take(index)
    ends["box"] = last_boxes(ends)
    ends["box_s"] = box_s[index] = newest_s[index]
    ends["seq"] += 1
    paths.add(index, ends["point"])
    return step(ends, paths, index, layout, ends["bottom"] - ends["top"], begins=False).crossings


def _changes(rows: Rows, paths: Paths, index: Index, changes: list[tuple[int, int]], layout: LineLayout) -> Step:
    crossings: list[Crossing] = []
    dithers: dict[int, int] = {}
    for line, n in changes:
        if _turns_often(rows, n, line):
            dithers[line] = dithers.get(line, 0) + 1
        crossing = _crossing(rows, n, paths, int(index[n]), line, layout)
        if crossing is not None:
            crossings.append(crossing)
    return Step(crossings, dithers)


def _turns_often(rows: Rows, n: int, line: int) -> bool:
    """Record a side change, and return whether more than two occurred within ten seconds."""
    now_s, turns = rows["box_s"].item(n), rows["l_turns"][line, :, n]
    first_s, turns[0], turns[1] = turns.item(0), turns.item(1), now_s
    return bool(now_s - first_s <= DITHER_S)


def _path(rows: Rows, n: int, paths: Paths, row: int, line: int) -> tuple[Floats, Floats]:
    """Return (4, K) boxes and (K,) times from the farthest point to the newest observation, thinned at the start."""
    seq, point = int(rows["seq"].item(n)), rows["l_point"][:, line, n]
    newer = np.arange(max(int(point.item(5)), seq - RING + 1), seq) % RING
    path = np.concatenate((point[:5, None], paths.boxes[:, newer, paths.slot[row]]), axis=1)
    return path[:4], path[4]


def _crossing(rows: Rows, n: int, paths: Paths, row: int, line: int, layout: LineLayout) -> Crossing | None:
    """Return the crossing of an identity that changed sides; None if it went around an end of the line."""
    boxes, times = _path(rows, n, paths, row, line)
    path = layout.anchors(boxes, line)
    found = cuts(path, layout.reach[line])
    if len(found) % 2 == 0:
        return None
    chord, share = found[-1]
    before_s, after_s = times[chord : chord + 2].tolist()
    (x, y), (end_x, end_y) = path[chord : chord + 2].tolist()
    span_s, step_x, step_y = after_s - before_s, end_x - x, end_y - y
    tall = max(boxes.item(3, chord + 1) - boxes.item(1, chord + 1), 1.0)
    end_seq = rows["seq"].item(n) - (len(times) - 2 - chord)
    return Crossing(
        row=row,
        line=line,
        direction=0 if rows["l_far"].item(line, n) < 0 else 1,
        seconds=before_s + share * span_s,
        at=(x + share * step_x, y + share * step_y),
        speed_h=math.hypot(step_x, step_y) / tall / span_s if span_s > 0 else 0.0,
        inferred=span_s > INFERRED_S or end_seq == rows["gap_seq"].item(n),
    )
