"""Zone presence with hysteresis: objects enter at the border and leave beyond a margin, each after a delay."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from engine.analytics.geometry import Flags, Floats
from engine.analytics.table import Index, Rows

MARGIN = 0.05
"""An object has left only beyond this distance from the border, in heights of its box."""
_ROUNDING_S = 1e-9


class Visit(NamedTuple):
    """A change between an identity (row of the table) and a zone, with the times of the first observations."""

    row: int
    zone: int
    kind: Literal["entered", "left"]
    entered_s: float
    left_s: float


def step(rows: Rows, index: Index, inside: Flags, outside: Flags, *, enter_s: Floats, leave_s: Floats) -> list[Visit]:
    """Update the states of the observed identities, and return what changed.

    Args:
        rows: columns of the N observed identities.
        index: (N,) their rows in the table.
        inside: (Z, N) bool.
        outside: (Z, N) bool, beyond the margin.
        enter_s: (Z,) time after which an identity counts as inside: every observation, at least two, must be inside.
        leave_s: (Z,) time outside after which it counts as outside.
    """
    is_in = rows["z_in"]
    active = rows["z_moving"] | (is_in & outside) | (inside > is_in)
    if not np.count_nonzero(active):
        return []
    zone, n = active.nonzero()
    pairs = zone, n
    now_s, here = rows["box_s"][n], inside[pairs]
    left = _leave(rows, pairs, now_s, here, leave_s[zone])
    visits = [
        Visit(int(index[at]), of, "left", float(rows["z_since"][of, at]), float(rows["z_out"][of, at]))
        for of, at in zip(zone[left].tolist(), n[left].tolist(), strict=True)
    ]
    entered = _enter(rows, pairs, now_s, here, enter_s[zone])
    for of, at in zip(zone[entered].tolist(), n[entered].tolist(), strict=True):
        visits.append(Visit(int(index[at]), of, "entered", float(rows["z_since"][of, at]), 0.0))
    return visits


Pairs = tuple[Index, Index]


def _leave(rows: Rows, pairs: Pairs, now_s: Floats, here: Flags, leave_s: Floats) -> Flags:
    """Update the pairs that are inside, and return those that have left."""
    is_in, moving, out = rows["z_in"][pairs], rows["z_moving"][pairs], rows["z_out"][pairs]
    out = np.where(is_in & ~moving, now_s, out)  # these pairs are all outside now
    rows["z_out"][pairs] = out
    away = now_s - out
    left: Flags = is_in & np.where(here, away > leave_s + _ROUNDING_S, away >= leave_s - _ROUNDING_S)
    rows["z_moving"][pairs] = np.where(is_in, ~here & ~left, moving)
    rows["z_in"][pairs] = is_in & ~left
    return left


def _enter(rows: Rows, pairs: Pairs, now_s: Floats, here: Flags, enter_s: Floats) -> Flags:
    """Update the pairs that are outside, and return those that have entered."""
    is_in, moving, since = rows["z_in"][pairs], rows["z_moving"][pairs], rows["z_since"][pairs]
    waits = ~is_in & here
    goes_on = waits & moving
    since = np.where(waits & ~moving, now_s, since)
    count = np.where(goes_on, rows["z_count"][pairs], 0) + 1
    rows["z_since"][pairs], rows["z_count"][pairs] = since, count
    entered: Flags = waits & (count >= 2) & (now_s - since >= enter_s - _ROUNDING_S)
    rows["z_moving"][pairs] = np.where(is_in, moving, waits & ~entered)
    rows["z_in"][pairs] = is_in | entered
    return entered


def _left(rows: Rows, row: int, zone: int) -> Visit:
    """Return the end of a visit that is cut short, timed when the identity was last known to be inside."""
    left_s = rows["z_out"][zone, row] if rows["z_moving"][zone, row] else rows["present_s"][row]
    return Visit(row, zone, "left", float(rows["z_since"][zone, row]), float(left_s))


def close(rows: Rows, row: int) -> list[Visit]:
    """End the visits of an identity at its last observation, or when it went outside, and return them."""
    visits = [_left(rows, row, zone) for zone in np.flatnonzero(rows["z_in"][:, row]).tolist()]
    rows["z_in"][:, row] = rows["z_moving"][:, row] = False
    return visits


def visits_of(rows: Rows, zone: int) -> list[Visit]:
    """End the visits of a removed zone, and return them."""
    visits = [_left(rows, row, zone) for row in np.flatnonzero(rows["z_in"][zone]).tolist()]
    rows["z_in"][zone] = rows["z_moving"][zone] = False
    return visits


def dwell_s(rows: Rows) -> Floats:
    """Return (Z, M) observed seconds of the visits that have been reported; 0 outside."""
    until = np.where(rows["z_moving"], rows["z_out"], rows["present_s"])
    return np.where(rows["z_told"], until - rows["z_since"], 0.0)
