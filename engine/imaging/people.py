"""Where people may be on a frame, judging by what was found on it, a moment before it, and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.boxes import Boxes, iou_matrix
from engine.clock import NS_PER_S
from engine.data import NO_IDENTITY, Detections, Packet

SAME_IOU = 0.3
"""A newer box that overlaps a box without identity by this much is the same object."""
SMOOTHING = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Boxes of one frame: (N, 4) pixels, with class, identity (-1: none), time and (N, 2) speed in pixels per ns."""

    xyxy: Boxes
    class_id: NDArray[np.int32]
    track_id: NDArray[np.int64]
    seen_ns: NDArray[np.int64]
    speed: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.class_id)

    def __getitem__(self, rows: NDArray[np.bool_]) -> Places:
        return Places(self.xyxy[rows], self.class_id[rows], self.track_id[rows], self.seen_ns[rows], self.speed[rows])

    def __add__(self, other: Places) -> Places:
        columns = ("xyxy", "class_id", "track_id", "seen_ns", "speed")
        return Places(*(np.concatenate((getattr(self, name), getattr(other, name))) for name in columns))

    def at(self, now_ns: int) -> Boxes:
        """Return (N, 4) boxes that enclose each object both where it was and where it would be now at its speed."""
        moved = self.xyxy + np.tile(self.speed * (now_ns - self.seen_ns)[:, None], 2)
        low, high = np.minimum(self.xyxy, moved)[:, :2], np.maximum(self.xyxy, moved)[:, 2:]
        return np.concatenate((low, high), axis=1).astype(np.float32)


def places_of(packet: Packet, class_ids: NDArray[np.int32] | None) -> Places:
    """Return everything found on a packet's frame of the (K,) classes; None: of all classes."""
    tracks, found = packet.tracks, packet.detections
    rows = [found] if found.unreported is None else [found, found.unreported]
    xyxy = np.concatenate([tracks.xyxy, *(part.xyxy for part in rows)])
    kinds = np.concatenate([tracks.class_id, *(part.class_id for part in rows)])
    ids = np.full(len(kinds), NO_IDENTITY, np.int64)
    ids[: len(tracks)] = tracks.track_id
    every = Places(xyxy, kinds, ids, np.full(len(kinds), packet.frame.scene_ns), np.zeros((len(kinds), 2)))
    return every if class_ids is None else every[np.isin(kinds, class_ids)]


class Recent:
    """Remembers the boxes of one source for a while, because a person does not vanish when a detection is missed.

    Args:
        hold_s: how long to remember a box.
    """

    def __init__(self, hold_s: float) -> None:
        self._hold_ns = int(hold_s * NS_PER_S)
        self._known: Places | None = None
        self._last_ns = 0

    def add(self, now: Places, now_ns: int, *, is_held: bool = False) -> tuple[Places, Places]:
        """Accept the boxes of the next frame; return them with their speeds, and the remembered ones missing from it.

        Args:
            now: boxes of the frame.
            now_ns: its scene time; if it steps back, everything is forgotten.
            is_held: nothing has moved since the previous frame, so the detector did not run.
        """
        known = self._known
        if known is None or now_ns < self._last_ns:
            self._known, self._last_ns = now, now_ns
            return now, now[np.zeros(len(now), np.bool_)]
        if is_held:
            seen_ns = known.seen_ns + (now_ns - self._last_ns)
            known = Places(known.xyxy, known.class_id, known.track_id, seen_ns, known.speed)
        now = _with_speed(now, known)
        missing = known[~_is_replaced(known, now) & (now_ns - known.seen_ns <= self._hold_ns)]
        self._known, self._last_ns = now + missing, now_ns
        return now, missing


def _is_replaced(known: Places, now: Places) -> NDArray[np.bool_]:
    """Return which of the known objects were found again: by identity, or by overlap if they have none."""
    by_id: NDArray[np.bool_] = np.isin(known.track_id, now.track_id)
    by_place = _overlaps_any(known.xyxy, now.xyxy)
    has_id = known.track_id != NO_IDENTITY
    return np.asarray(np.where(has_id, by_id, by_place), np.bool_)


def _overlaps_any(xyxy: Boxes, others: Boxes) -> NDArray[np.bool_]:
    return np.asarray((iou_matrix(xyxy, others) >= SAME_IOU).any(axis=1), np.bool_)


def _with_speed(now: Places, known: Places) -> Places:
    """Return the boxes with speeds smoothed over boxes of the same identity."""
    speed = now.speed.copy()
    row_of = {track_id: row for row, track_id in enumerate(known.track_id.tolist()) if track_id != NO_IDENTITY}
    for row, track_id in enumerate(now.track_id.tolist()):
        before = row_of.get(track_id)
        if before is None:
            continue
        spent_ns = int(now.seen_ns[row] - known.seen_ns[before])
        if spent_ns > 0:
            centres = now.xyxy[row].reshape(2, 2).mean(axis=0), known.xyxy[before].reshape(2, 2).mean(axis=0)
            measured = (centres[0].astype(float) - centres[1]) / spent_ns
            is_first = not known.speed[before].any()
            speed[row] = measured if is_first else SMOOTHING * known.speed[before] + (1 - SMOOTHING) * measured
    return Places(now.xyxy, now.class_id, now.track_id, now.seen_ns, speed)


def seen_later(own: Places, before: Places, later: Sequence[Places], now_ns: int) -> Boxes:
    """Return (N, 4) positions on this frame of objects that only later frames show.

    Args:
        own: boxes of this frame.
        before: remembered from earlier frames, missing on this one.
        later: boxes of the next frames, in order.
        now_ns: scene time of this frame.
    """
    boxes: list[Boxes] = []
    have = set(own.track_id.tolist()) - {NO_IDENTITY}
    earlier = {track_id: row for row, track_id in enumerate(before.track_id.tolist()) if track_id != NO_IDENTITY}
    speeds = {
        track_id: speed
        for places in later
        for track_id, speed in zip(places.track_id.tolist(), places.speed, strict=True)
    }
    for places in later:
        is_tracked = places.track_id != NO_IDENTITY
        boxes += [*places.xyxy[~is_tracked & ~_overlaps_any(places.xyxy, places.xyxy[is_tracked])]]
        for row, track_id in enumerate(places.track_id.tolist()):
            if track_id not in have and track_id != NO_IDENTITY:
                have.add(track_id)
                there = places.xyxy[row]
                if track_id in earlier:
                    boxes += [there, _between(before, earlier[track_id], places, row, now_ns)]
                else:
                    moved = np.tile(speeds[track_id] * float(now_ns - places.seen_ns[row]), 2)
                    boxes += [there, np.asarray(there + moved, np.float32)]
    return np.array(boxes, np.float32).reshape(-1, 4)


def _between(before: Places, before_row: int, later: Places, row: int, now_ns: int) -> Boxes:
    """Return the box of an object between two frames."""
    start_ns, end_ns = int(before.seen_ns[before_row]), int(later.seen_ns[row])
    share = (now_ns - start_ns) / max(end_ns - start_ns, 1)
    start, end = before.xyxy[before_row], later.xyxy[row]
    return np.asarray(start + (end - start) * share, np.float32)


def as_detections(xyxy: Boxes, class_id: NDArray[np.int32]) -> Detections:
    """Return (N, 4) boxes with (N,) classes as detections with a score of 1."""
    return Detections(xyxy, np.ones(len(xyxy), np.float32), class_id)
