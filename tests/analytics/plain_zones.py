"""Zone visits by a plain state machine, one track and one observation at a time, written from docs/analytics.md.

It shares no code with `engine.analytics`, and does not stitch: each observation says which identity it belongs to, and
the path of an identity begins anew when its track changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import hypot
from statistics import mean, median
from typing import NamedTuple

Box = tuple[float, float, float, float]
Corners = Sequence[tuple[float, float]]
ROUNDING_S = 1e-9


class Observation(NamedTuple):
    """One object on one frame, in pixels."""

    identity: int
    track_id: int
    box: Box
    score: float
    class_id: int


@dataclass
class Visit:
    """A visit that counts; `left_s` is None while it lasts."""

    identity: int
    entered_s: float
    left_s: float | None = None


@dataclass
class Object:
    """What is known about one identity."""

    first_s: float
    track_id: int
    scores: list[float] = field(default_factory=list)
    path: list[tuple[float, Box]] = field(default_factory=list)
    jumps: int = 0
    shadow_s: float = float("-inf")
    last_s: float = 0.0
    state: str = "out"
    since_s: float = 0.0
    out_s: float = 0.0
    visit: Visit | None = None
    waiting: list[Visit] = field(default_factory=list)


def visits(
    frames: Iterable[tuple[float, list[Observation]]],
    corners: Corners,
    size: tuple[float, float],
    *,
    enter_s: float = 0.3,
    leave_s: float = 1.0,
) -> tuple[list[Visit], float]:
    """Return the visits of a zone that count, and the sum of their seconds, until the last observation of each.

    Args:
        frames: time in seconds and observations of each, in order.
        corners: of the zone, in pixels.
        size: of the frame, in pixels.
        enter_s: time inside after which a visit begins.
        leave_s: time outside after which it ends.
    """
    snapped = [tuple(_snap(value, most) for value, most in zip(corner, size, strict=True)) for corner in corners]
    objects: dict[int, Object] = {}
    told: list[Visit] = []
    for now_s, seen in frames:
        shadows = _shadows(seen)
        for each in seen:
            one = objects.setdefault(each.identity, Object(now_s, each.track_id))
            if each.identity in shadows:
                one.shadow_s = now_s
            if one.track_id != each.track_id:
                one.track_id = each.track_id
                one.path.clear()
            if not _is_believed(one, now_s, each.box):
                continue
            one.scores.append(each.score)
            one.last_s = now_s
            _step(each.identity, one, snapped, size, enter_s, leave_s)
            is_seen = len(one.scores) >= 2 and now_s - one.first_s >= 0.3 - ROUNDING_S
            if is_seen and mean(one.scores) >= 0.4 and now_s - one.shadow_s > 1.0:
                told += one.waiting
                one.waiting = []
    open_s = {id(one.visit): one.out_s if one.state == "leaving" else one.last_s for one in objects.values()}
    total_s = sum((open_s[id(visit)] if visit.left_s is None else visit.left_s) - visit.entered_s for visit in told)
    return told, total_s


def _snap(value: float, most: float) -> float:
    return 0.0 if value <= 0.01 * most else most if value >= 0.99 * most else value


def _shadows(seen: list[Observation]) -> set[int]:
    """Return the identities that are a second box on part of another object of their class."""
    found = set()
    for part in seen:
        for whole in seen:
            a, b = part.box, whole.box
            wide, tall = 0.1 * (b[2] - b[0]), 0.1 * (b[3] - b[1])
            is_smaller = (a[2] - a[0]) * (a[3] - a[1]) < (b[2] - b[0]) * (b[3] - b[1])
            is_beside = abs(a[0] - b[0]) > wide or abs(a[2] - b[2]) > wide
            is_flush = not is_beside and min(abs(a[1] - b[1]), abs(a[3] - b[3])) <= tall
            if is_smaller and is_flush and part.class_id == whole.class_id and part.score <= whole.score + 0.1:
                found.add(part.identity)
    return found


def _is_believed(one: Object, now_s: float, box: Box) -> bool:
    """Add a box to the path unless it is too far away; the third such box in a row begins another path."""
    if one.path:
        before_s, before = one.path[-1]
        step = hypot((box[0] + box[2] - before[0] - before[2]) / 2, box[3] - before[3])
        if step > (box[3] - box[1]) * (0.5 + 15 * (now_s - before_s)):
            one.jumps += 1
            if one.jumps < 3:
                return False
            one.path.clear()
    one.jumps = 0
    one.path = [*one.path[-2:], (now_s, box)]
    return True


def _filtered(one: Object) -> tuple[float, Box]:
    """Return the median of the last three boxes if they are close in time, else the newest."""
    if len(one.path) == 3 and one.path[2][0] - one.path[0][0] <= 0.17 + ROUNDING_S:
        x1, y1, x2, y2 = (median(edge) for edge in zip(*(box for _, box in one.path), strict=True))
        return one.path[1][0], (x1, y1, x2, y2)
    return one.path[-1]


def _step(
    identity: int, one: Object, corners: Corners, size: tuple[float, float], enter_s: float, leave_s: float
) -> None:
    """Move an object from state to state: out, entering, in, leaving."""
    now_s, (x1, y1, x2, y2) = _filtered(one)
    x, y = min(max((x1 + x2) / 2, 0.0), size[0]), min(max(y2, 0.0), size[1])
    away = _distance(x, y, corners)
    is_inside = away <= 1e-6 or _is_inside(x, y, corners)
    if one.state == "in" and not is_inside and away > 0.05 * (y2 - y1):
        one.state, one.out_s = "leaving", now_s
    if one.state == "leaving":
        away_s = now_s - one.out_s
        if is_inside and away_s <= leave_s + ROUNDING_S:
            one.state = "in"
        elif away_s >= leave_s - ROUNDING_S:
            assert one.visit is not None
            one.visit.left_s, one.state = one.out_s, "out"
    if one.state == "out" and is_inside:
        one.state, one.since_s = "entering", now_s
    elif one.state == "entering" and not is_inside:
        one.state = "out"
    elif one.state == "entering" and now_s - one.since_s >= enter_s - ROUNDING_S:
        one.state, one.visit = "in", Visit(identity, one.since_s)
        one.waiting.append(one.visit)


def _is_inside(x: float, y: float, corners: Corners) -> bool:
    inside = False
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            inside = not inside
    return inside


def _distance(x: float, y: float, corners: Corners) -> float:
    """Return how far a point is from the nearest edge."""
    found = []
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        way_x, way_y = bx - ax, by - ay
        square = way_x * way_x + way_y * way_y
        along = min(max(((x - ax) * way_x + (y - ay) * way_y) / square, 0.0), 1.0) if square else 0.0
        found.append(hypot(x - ax - along * way_x, y - ay - along * way_y))
    return min(found)
