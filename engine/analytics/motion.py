"""Turn raw boxes into plausible, filtered positions, which all places and rules use.

`rows` always holds the columns of only the observed objects, in the order of the boxes; boxes are (4, N) columns.
"""

from __future__ import annotations

import numpy as np

from engine.analytics.geometry import Flags, Floats
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
_ROUNDING_S = 1e-9


def feet(box: Floats) -> Floats:
    """Return (2, N), the middle of the lower edge of each of (4, N) boxes."""
    anchor = box[2:].copy()
    anchor[0] += box[0]
    anchor[0] *= 0.5
    return anchor


def believable(rows: Rows, box: Floats, now_s: float) -> Flags | None:
    """Return (N,) bool, which observations are physically plausible steps; None: all. The others are ignored.

    The third jump in a row is accepted: it begins a new path, and the jump itself crosses no line.
    """
    step = box - rows["raw"][2]
    step[0] += step[2]
    across, down = step[0], step[3]
    reach = (box[3] - box[1]) * (JUMP_HEIGHTS + JUMP_HEIGHTS_PER_S * (now_s - rows["raw_s"][2]))
    jumped = (across * across * 0.25 + down * down > reach * reach) & (rows["raw_count"] > 0)
    if not np.count_nonzero(jumped):
        rows["jumps"] = 0
        return None
    jumps = np.where(jumped, rows["jumps"] + 1, 0)
    forced = jumps >= JUMPS_BELIEVED
    rows["jumps"] = np.where(forced, 0, jumps)
    begin_path(rows, forced.nonzero()[0])
    return np.asarray(~jumped | forced)


def begin_path(rows: Rows, index: Index) -> None:
    """Forget where these objects came from, so that no chord connects the old position to the new one."""
    for column in ("raw_count", "seq", "ground_count", "l_far"):
        rows[column][..., index] = 0
    rows["gap_seq"][index] = -1


def advance(rows: Rows, box: Floats, now_s: float) -> None:
    """Process plausible observations: set `box` to the filtered box and `box_s` to its time."""
    raw, raw_s, count, seq = rows["raw"], rows["raw_s"], rows["raw_count"], rows["seq"]
    raw[0], raw[1], raw[2] = raw[1], raw[2], box
    raw_s[0], raw_s[1], raw_s[2] = raw_s[1], raw_s[2], now_s
    count += 1
    seq += 1
    filtered = (raw_s[0] >= now_s - FILTER_S - _ROUNDING_S) & (count >= 3)
    n = np.count_nonzero(filtered)
    rows["box"], rows["box_s"] = box, now_s
    if n:
        middle = np.maximum(np.minimum(raw[0], raw[1]), np.minimum(np.maximum(raw[0], raw[1]), raw[2]))
        np.copyto(rows["box"], middle, where=filtered)
        np.copyto(rows["box_s"], raw_s[1], where=filtered)
    if n < len(count):
        begins = (count == 1).nonzero()[0]
        if len(begins):
            _begin(rows, begins)
    _note_motion(rows)


def _begin(rows: Rows, new: Index) -> None:
    """Set where a path begins; for a new object, set its start too."""
    anchor, seconds = feet(rows["box"][:, new]), rows["box_s"][new]
    fresh = rows["hits"][new] == 0
    rows["start"][:, new[fresh]] = anchor[:, fresh]
    rows["rest"][:, new], rows["rest_s"][new] = anchor, seconds
    rows["marks"][:, :, new] = np.concatenate((anchor, seconds[None]))


def _note_motion(rows: Rows) -> None:
    """Update rest, marks, and whether each object has ever moved."""
    box, seconds, marks = rows["box"], rows["box_s"], rows["marks"]
    anchor, tall = feet(box), box[3] - box[1]
    off = anchor - rows["rest"]
    left = (np.hypot(off[0], off[1]) > REST_HEIGHTS * tall).nonzero()[0]
    if len(left):
        rows["rest"][:, left], rows["rest_s"][left] = anchor[:, left], seconds[left]
        way = anchor[:, left] - rows["start"][:, left]
        moved = rows["moved"]
        moved[left] |= np.hypot(way[0], way[1]) > MOVED_HEIGHTS * tall[left]
    old = (seconds - marks[1, 2] >= VELOCITY_S).nonzero()[0]
    if len(old):
        marks[0][:, old] = marks[1][:, old]
        marks[1][:, old] = np.concatenate((anchor[:, old], seconds[None, old]))


def velocities(rows: Rows) -> Floats:
    """Return (2, N) pixels per second of the feet, over the last 0.4 to 0.8 s; 0 if the history is shorter."""
    mark = rows["marks"][0]
    seconds = rows["box_s"] - mark[2]
    return np.where(seconds > 0.05, (feet(rows["box"]) - mark[:2]) / np.maximum(seconds, 1e-9), 0.0)


def on_ground(rows: Rows, paths: Paths, index: Index, now_s: float, planes: list[Plane | None]) -> None:
    """Record where observed objects stand on the first plane that covers them; `index` holds their rows in `paths`."""
    anchor = feet(rows["raw"][2]).T
    plane_of, metres = np.full(len(index), -1.0), np.full((len(index), 2), np.nan)
    for number, plane in enumerate(planes):
        if plane is None:
            continue
        here = (plane_of < 0) & plane.covers(anchor)
        plane_of[here], metres[here] = number, plane.metres(anchor[here])
    count = np.where(rows["plane"] == plane_of, rows["ground_count"], 0) + 1
    rows["ground_count"] = np.minimum(count, GROUND_RING)
    rows["plane"], rows["metres"] = plane_of, metres.T
    for ring, newest in ((paths.ground, metres.T), (paths.ground_s, now_s)):
        moved = ring[..., index]
        moved[..., :-1, :] = moved[..., 1:, :].copy()
        moved[..., -1, :] = newest
        ring[..., index] = moved


def ground_speeds(rows: Rows, paths: Paths) -> tuple[Floats, Floats]:
    """Return (M,) km/h and (M,) twice the standard error; NaN without a plane or with too short a history."""
    count = np.where(rows["plane"] >= 0, rows["ground_count"], 0)
    return speeds(paths.ground, paths.ground_s, count)
