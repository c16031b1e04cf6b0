"""Zone presence with hysteresis: objects enter at the border and leave beyond a margin, each after a delay."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from engine.analytics.geometry import Floats, set_pairs
from engine.analytics.layout import Location
from engine.analytics.table import Index, Rows

_ROUNDING_S = 1e-9


class Visit(NamedTuple):
    """A change between an identity (row of the table) and a zone, with the times of the first observations."""

    row: int
    zone: int
    kind: Literal["entered", "left"]
    entered_s: float
    left_s: float


def step(rows: Rows, index: Index, where: Location, *, enter_s: Floats, leave_s: Floats) -> list[Visit]:
    """Update the states of the observed identities, and return what changed.

    Only few pairs of identity and zone are entering, leaving or about to, so each is processed by itself.

    Args:
        rows: columns of the N observed identities.
        index: (N,) their rows in the table.
        where: where they are.
        enter_s: (Z,) time after which an identity counts as inside: every observation, at least two, must be inside.
        leave_s: (Z,) time outside after which it counts as outside.
    """
    is_in, is_moving = rows["z_in"], rows["z_moving"]
    active = where.inside != is_in
    active |= is_moving
    pairs = set_pairs(active)
    if not pairs:
        return []
    left: list[Visit] = []
    entered: list[Visit] = []
    inside, seconds, since, out = where.inside, rows["box_s"], rows["z_since"], rows["z_out"]
    for zone, n in pairs:
        now_s, here, moving = seconds.item(n), inside.item(zone, n), is_moving.item(zone, n)
        if is_in.item(zone, n):
            if not moving:
                if not where.is_clear(zone, n):
                    continue
                out[zone, n] = now_s
            away_s, longest_s = now_s - out.item(zone, n), leave_s.item(zone)
            if away_s <= longest_s + _ROUNDING_S if here else away_s < longest_s - _ROUNDING_S:
                is_moving[zone, n] = not here
                continue
            is_in[zone, n] = moving = False
            left.append(Visit(index.item(n), zone, "left", since.item(zone, n), out.item(zone, n)))
        if not here:
            is_moving[zone, n] = False
        elif not moving:
            since[zone, n], is_moving[zone, n] = now_s, True
        elif now_s - since.item(zone, n) >= enter_s.item(zone) - _ROUNDING_S:
            is_moving[zone, n], is_in[zone, n] = False, True
            entered.append(Visit(index.item(n), zone, "entered", since.item(zone, n), 0.0))
    return left + entered


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
