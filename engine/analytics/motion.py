"""Turn raw boxes into plausible, filtered positions, which all places and rules use.

`rows` always holds the columns of only the observed objects, in the order of the boxes; boxes are (4, N) columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.analytics.geometry import HALF, ONE, Flags, Floats, all_of, any_of
from engine.analytics.ground import Plane, speeds
from engine.analytics.table import GROUND_RING, Index, Paths, Rows

FILTER_S = 0.17
"""Three observations within this time are median-filtered; at lower frame rates a median would lose crossings."""
JUMP_HEIGHTS, JUMP_HEIGHTS_PER_S = 0.5, 15.0
"""A longer step between two observations is treated as a wrong match."""
JUMPS_BELIEVED = 3
"""After this many jumps in a row, the new position is accepted."""
REST_HEIGHTS, MOVED_HEIGHTS = 0.3, 0.5
"""An object rests while it stays within the first distance, and has moved once it is beyond the second."""
VELOCITY_S = 0.4
"""A velocity is measured over this time to twice this time."""
SHORTEST_S = 0.05
"""An object followed for less time has no velocity."""
_ROUNDING_S = 1e-9
_REST, _VELOCITY_S = np.full((), REST_HEIGHTS), np.full((), VELOCITY_S)
_MARGIN = 1.01
"""Far more than rounding can change: no feet move by more than the root of the sum of all squares times this."""


def feet(box: Floats) -> Floats:
    """Return (2, N), the middle of the lower edge of each of (4, N) boxes."""
    anchor = box[2:].copy()
    anchor[0] += box[0]
    anchor[0] *= 0.5
    return anchor


def believable(rows: Rows, box: Floats, now_s: float, *, least_tall: float, least_s: float) -> Flags | None:
    """Return (N,) bool, which observations are physically plausible steps; None: all. The others are ignored.

    The third jump in a row is accepted: it begins a new path, and the jump itself crosses no line. The first
    observation of a path is always plausible, as no box is known before it.

    Args:
        rows: columns of the N observed identities.
        box: (4, N) observed boxes in pixels.
        now_s: time of the frame.
        least_tall: height of the lowest box.
        least_s: shortest time since the previous observations.
    """
    step = box - rows["newest_box"]
    every = step.ravel()
    least = least_tall * (JUMP_HEIGHTS + JUMP_HEIGHTS_PER_S * least_s)
    if _MARGIN * every.dot(every) < least * least:
        rows["jumps"].fill(0.0)
        return None
    step[0] += step[2]
    across, down = step[0], step[3]
    reach = (box[3] - box[1]) * (JUMP_HEIGHTS + JUMP_HEIGHTS_PER_S * (now_s - rows["newest_s"]))
    jumped = across * across * 0.25 + down * down > reach * reach
    if not any_of(jumped):
        rows["jumps"].fill(0.0)
        return None
    jumps = np.where(jumped, rows["jumps"] + 1, 0)
    forced = jumps >= JUMPS_BELIEVED
    rows["jumps"] = np.where(forced, 0, jumps)
    begin_path(rows, forced.nonzero()[0])
    return np.asarray(~jumped | forced)


def begin_path(rows: Rows, index: Index) -> None:
    """Forget where the objects of (K,) rows came from, so that no chord connects the old position to the new one."""
    for column in ("seq", "ground_count", "l_far"):
        rows[column][..., index] = 0
    rows["gap_seq"][index] = -1
    for column in ("oldest_s", "middle_s", "newest_s"):
        rows[column][index] = -np.inf


class Pose(NamedTuple):
    """Where the observed objects are, after the filter.

    Attributes:
        feet: (2, N), the middle of the lower edge.
        tall: (N,), the height of the box.
    """

    feet: Floats
    tall: Floats


def advance(rows: Rows, box: Floats, now_s: float, *, third_s: float, begins: bool) -> Pose:
    """Process plausible observations: set `box` to the filtered box and `box_s` to its time.

    Args:
        rows: columns of the N observed identities.
        box: (4, N) observed boxes in pixels.
        now_s: time of the frame.
        third_s: time of the last frame with observations but one; an object's last three span at least that long.
        begins: whether a path may begin among them.
    """
    oldest, middle, newest = rows["oldest"], rows["middle"], rows["newest"]
    placed, counts = rows["placed"], rows["counts"]
    oldest[:] = middle
    middle[:] = newest
    rows["newest_box"][:] = box
    rows["newest_s"].fill(now_s)
    counts += ONE
    limit_s = now_s - FILTER_S - _ROUNDING_S
    if third_s >= limit_s:
        low, high = np.minimum(oldest, middle), np.maximum(oldest, middle)
        np.minimum(high, newest, out=high)
        filtered = rows["oldest_s"] >= limit_s
        if all_of(filtered):
            np.maximum(low, high, out=placed)
            return _note_motion(rows)
        placed[:] = newest
        np.copyto(placed, np.maximum(low, high), where=filtered)
    else:
        placed[:] = newest
    if begins:
        _begin(rows, (rows["seq"] == ONE).nonzero()[0].tolist())
    return _note_motion(rows)


def _begin(rows: Rows, new: list[int]) -> None:
    """Set where paths begin; for a new object, set its start too. They are few."""
    if not new:
        return
    anchors, seconds = feet(rows["box"]), rows["box_s"]
    for n in new:
        anchor, now_s = anchors[:, n], seconds[n]
        if rows["hits"][n] == 1:
            rows["start"][:, n] = anchor
        for name, time in (("rest", "rest_s"), ("mark", "mark_s"), ("older", "older_s")):
            rows[name][:, n], rows[time][n] = anchor, now_s


def _note_motion(rows: Rows) -> Pose:
    """Update rest, marks, and whether each object has ever moved."""
    tall = rows["bottom"] - rows["top"]
    here = np.empty((3, len(tall)))
    x = np.add(rows["left"], rows["right"], out=here[0])
    x *= HALF
    here[1:] = rows["lower"]  # the edge, and the time
    off = here - rows["since"]
    far = (np.hypot(off[0], off[1]) > tall * _REST).nonzero()[0].tolist()
    old = (off[2] >= _VELOCITY_S).nonzero()[0].tolist()
    if far or old:
        _note_changes(rows, here, far, old)
    return Pose(here[:2], tall)


def _note_changes(rows: Rows, here: Floats, far: list[int], old: list[int]) -> None:
    """Update the objects far from where they rested, and those with old marks; they are few.

    Args:
        rows: columns of the N observed identities.
        here: (3, N) feet and times.
        far: the first.
        old: the second.
    """
    if old:
        marked, older = rows["marked"], rows["marked_before"]
        for n in old:
            older[:, n] = marked[:, n]
            marked[0, n], marked[1:, n] = here[2, n], here[:2, n]
    if far:
        rest, rest_s, moved = rows["rest"], rows["rest_s"], rows["moved"]
        for n in far:
            rest[:, n], rest_s[n] = here[:2, n], here[2, n]
            if not moved[n]:
                way = here[:2, n] - rows["start"][:, n]
                moved[n] = np.hypot(way[0], way[1]) > MOVED_HEIGHTS * (rows["bottom"][n] - rows["top"][n])


def velocities(rows: Rows) -> Floats:
    """Return (2, N) pixels per second of the feet, over the last 0.4 to 0.8 s; 0 if the history is shorter."""
    seconds = rows["box_s"] - rows["older_s"]
    return np.where(seconds > SHORTEST_S, (feet(rows["box"]) - rows["older"]) / np.maximum(seconds, 1e-9), 0.0)


def last_boxes(rows: Rows) -> Floats:
    """Return the (4, N) newest boxes of paths that end, as far as they can be believed without a later one.

    One bad box must not count, so no edge goes further from the filtered box than the object's velocity takes it.
    """
    box = rows["box"]
    step = np.tile((rows["newest_s"] - rows["box_s"]) * velocities(rows), (2, 1))
    believed: Floats = box + np.clip(rows["newest_box"] - box, np.minimum(step, 0.0), np.maximum(step, 0.0))
    return believed


def on_ground(rows: Rows, paths: Paths, index: Index, now_s: float, planes: list[Plane | None]) -> None:
    """Record where observed objects, (N,) rows of the table, stand on the first plane that covers them."""
    anchor = feet(rows["newest_box"]).T
    plane_of, metres = np.full(len(index), -1.0), np.full((len(index), 2), np.nan)
    for number, plane in enumerate(planes):
        if plane is None:
            continue
        here = (plane_of < 0) & plane.covers(anchor)
        plane_of[here], metres[here] = number, plane.metres(anchor[here])
    count = np.where(rows["plane"] == plane_of, rows["ground_count"], 0) + 1
    rows["ground_count"] = np.minimum(count, GROUND_RING)
    rows["plane"], rows["metres"] = plane_of, metres.T
    slot = paths.slot[index]
    for ring, newest in zip(paths.ground, (metres.T, np.full(len(index), now_s)), strict=True):
        moved = ring[..., slot]
        moved[..., :-1, :] = moved[..., 1:, :].copy()
        moved[..., -1, :] = newest
        ring[..., slot] = moved


def ground_speeds(rows: Rows, paths: Paths) -> tuple[Floats, Floats]:
    """Return (M,) km/h and (M,) twice the standard error; NaN without a plane or with too short a history."""
    count = np.where(rows["plane"] >= 0, rows["ground_count"], 0)
    metres, seconds = paths.ground
    return speeds(metres[..., paths.slot], seconds[..., paths.slot], count)
