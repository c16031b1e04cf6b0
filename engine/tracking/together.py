"""Updates the trackers of several cameras in one step: one table, and matches that stay within each camera.

Calls dominate the cost of an update, not objects: 10 objects take 0.2 ms, 200 take 0.5. The results equal separate
updates bit for bit: the same code runs on the joined tables, all arithmetic is per row, and the rest (ids of new
tracks, ties between matches, limits, events) is done per camera.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from operator import is_
from typing import Any

import numpy as np

from engine.clock import NS_PER_S
from engine.data import NO_DETECTION, Detections, Tracks
from engine.tracking.base import PREDICTED_S, BaseTracker, Mask
from engine.tracking.fleet import Fleet
from engine.tracking.table import CONFIRMED, Rows, usable_of_all


class JointTrackers:
    """Updates trackers together if possible, else one by one. Used by one thread only."""

    def __init__(self) -> None:
        self._joints: dict[Hashable, BaseTracker] = {}

    def update(
        self, trackers: Sequence[Any], detections: Sequence[Detections | None], captured_ns: Sequence[int]
    ) -> list[Tracks]:
        """Return the tracks of each camera, as `tracker.update(detections, captured_ns)` would one by one.

        Args:
            trackers: each at most once.
            detections: of each, None if the detector did not run.
            captured_ns: capture time of each.
        """
        found: dict[int, Tracks] = {}
        for key, places in _groups(trackers, detections).items():
            own, seen = [trackers[at] for at in places], [detections[at] for at in places]
            times = [captured_ns[at] for at in places]
            if key is None or len(places) == 1:
                tracks = [one.update(*more) for one, *more in zip(own, seen, times, strict=True)]
            else:
                if key not in self._joints:
                    self._joints[key] = own[0].clone()
                tracks = update_together(self._joints[key], own, seen, times)
            found.update(zip(places, tracks, strict=True))
        return [found[at] for at in range(len(trackers))]


def _groups(trackers: Sequence[Any], detections: Sequence[Detections | None]) -> dict[Hashable, list[int]]:
    """Return the indices of trackers grouped by what lets them be updated together; None for the others."""
    groups: dict[Hashable, list[int]] = {}
    for at, (tracker, found) in enumerate(zip(trackers, detections, strict=True)):
        own_class: Any = type(tracker)
        key = (tracker.kind, found is None) if _is_ours(own_class) and not tracker.wants_frames else None
        if key in groups:
            groups[key].append(at)
        else:
            groups[key] = [at]
    return groups


@cache
def _is_ours(kind: type) -> bool:
    return issubclass(kind, BaseTracker)


def update_together(
    joint: BaseTracker,
    trackers: Sequence[BaseTracker],
    detections: Sequence[Detections | None],
    captured_ns: Sequence[int],
) -> list[Tracks]:
    """Update trackers of one kind and return the tracks of each.

    Args:
        joint: another tracker of that kind, whose state is used for the step.
        trackers: each at most once.
        detections: of each tracker, or None for all of them.
        captured_ns: capture time of each.
    """
    fleet = _gather(joint, trackers, captured_ns)
    now_ns = fleet.now_ns
    _predict(joint, fleet)
    seen = [one for one in detections if one is not None]
    if not seen:
        limit_ns = max(joint.lost_s, PREDICTED_S) * NS_PER_S
        recent = now_ns.take(joint._rows["camera"]) - joint._rows["seen_ns"] <= limit_ns
        tracks = _tracks(joint, (joint._rows["state"] == CONFIRMED) & recent, len(trackers))
    else:
        joint._expire(now_ns)
        found = usable_of_all(seen, joint._min_score, joint.max_objects)
        matches = joint._match(found)
        joint._correct(matches, found, now_ns)
        joint._rename_confirmed(now_ns)
        joint._retire(now_ns)
        joint._bear(matches.births, found, now_ns)
        tracks = _tracks(joint, joint._rows["state"] == CONFIRMED, len(trackers))
    _scatter(joint, fleet, trackers, is_detected=bool(seen))
    return tracks


def _gather(joint: BaseTracker, trackers: Sequence[BaseTracker], captured_ns: Sequence[int]) -> Fleet:
    """Join the tables of the trackers and store their differences."""
    for tracker, now_ns in zip(trackers, captured_ns, strict=True):
        tracker._follow_time(now_ns)
    tables = [tracker._rows for tracker in trackers]
    last = joint._fleet
    is_joined = last is not None and len(last.parts) == len(tables) and all(map(is_, tables, last.parts))
    rows = joint._rows if is_joined else _joined(tables)
    known = zip(trackers, captured_ns, strict=True)
    before = [now_ns if tracker._now_ns is None else tracker._now_ns for tracker, now_ns in known]
    now = np.array(captured_ns, np.int64)
    fleet = Fleet(
        now_ns=now,
        seconds=np.maximum(now - np.array(before, np.int64), 0) / NS_PER_S,
        detected_ns=np.array([tracker._detected_ns or 0 for tracker in trackers], np.int64),
        is_first=np.array([tracker._detected_ns is None for tracker in trackers]),
        interval_ns=np.array([tracker._interval_ns for tracker in trackers], np.int64),
        next_id=np.array([tracker._next_id for tracker in trackers], np.int64),
        logs=[tracker._log for tracker in trackers],
        table=rows,
        parts=tables if is_joined else (),
    )
    joint._rows, joint._fleet = rows, fleet
    return fleet


def _joined(tables: Sequence[Rows]) -> Rows:
    """Return one table with the rows of each; all have one dtype, whose columns numpy would copy one by one."""
    dtype = tables[0].dtype
    whole_row = np.dtype((np.void, dtype.itemsize))
    table = np.concatenate([rows.view(whole_row) for rows in tables]).view(dtype)
    table["camera"] = np.arange(len(tables)).repeat([len(rows) for rows in tables])
    return table


def _predict(joint: BaseTracker, fleet: Fleet) -> None:
    """Move all tracks to the time of their frame; those of a camera whose time does not advance stay in place."""
    rows = joint._rows
    if (fleet.seconds > 0).all():
        joint._move(fleet.seconds.take(rows["camera"])[:, None])
    else:
        moving = (fleet.seconds > 0).take(rows["camera"])
        joint._rows = rows.compress(moving)
        joint._move(fleet.seconds.take(joint._rows["camera"])[:, None])
        rows[moving] = joint._rows
        joint._rows = rows
    rows["age"] += 1
    rows["detection"] = NO_DETECTION


def _tracks(joint: BaseTracker, visible: Mask, count: int) -> list[Tracks]:
    """Return the visible tracks of each camera."""
    shown = np.bincount(joint._rows["camera"].compress(visible), minlength=count)
    return joint._tracks(visible).split(shown.cumsum()[:-1].tolist())


def _scatter(joint: BaseTracker, fleet: Fleet, trackers: Sequence[BaseTracker], *, is_detected: bool) -> None:
    """Give each tracker its part of the joint table; unless a track began or ended, the tracker already has it."""
    rows = joint._rows
    if rows is not fleet.table or not fleet.parts:
        ends = rows["camera"].searchsorted(np.arange(len(trackers)), "right").tolist()
        fleet.parts = [rows[start:end] for start, end in zip((0, *ends), ends, strict=False)]
    columns = zip(trackers, fleet.parts, fleet.now_ns.tolist(), fleet.next_id.tolist(), strict=True)
    for tracker, part, now_ns, next_id in columns:
        tracker._rows = part
        tracker._now_ns, tracker._next_id = now_ns, next_id
        if is_detected:
            tracker._interval_ns = 0 if tracker._detected_ns is None else now_ns - tracker._detected_ns
            tracker._detected_ns = now_ns
