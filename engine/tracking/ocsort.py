"""OC-SORT: trusts observations more than the motion predicted while observations were missing."""

from __future__ import annotations

import numpy as np

from engine.clock import NS_PER_S
from engine.tracking import kalman
from engine.tracking.assignment import Pairs, Rounds, overlapping_pairs
from engine.tracking.base import BaseTracker, Index, Matches, blocks, check_range
from engine.tracking.fleet import Times
from engine.tracking.kalman import Array
from engine.tracking.motion import CentreAreaRatio
from engine.tracking.table import Found, Rows
from engine.tracking.together import JointTrackers

_TRAIL = 5
"""Observations kept per track: enough for the direction over `direction_s` at 30 fps."""

_VIRTUAL_STEPS = 8
"""Steps of the virtual path across a gap; more make no measurable difference."""


class OcSort(BaseTracker):
    """OC-SORT (Cao et al. 2023), with times in seconds.

    Matching weighs overlap with consistency of direction; the rest is matched to the last seen positions of tracks; and
    when a track is seen again, its filter is rerun along the straight line across the gap.

    Args:
        min_score: below this score detections are ignored. Higher: fewer false tracks, more gaps.
        min_overlap: IoU that a match needs. Higher: fewer wrong matches, more broken tracks at fast motion or low
            frame rates.
        direction_weight: how much an equal direction adds to the overlap. Higher: fewer swaps of crossing objects,
            more trouble with objects that turn.
        direction_s: seconds over which a direction is measured. Higher: steadier, slower to follow a turn.
        lost_s: seconds that an unseen track is remembered. Higher: longer occlusions are bridged, more wrong revivals.
        confirm_hits: detections in a row before a track is shown. Higher: fewer false tracks, later births.
        class_aware: match only boxes of equal class. True: no id spans two classes; false: ids survive a detector
            that wavers between classes.
        max_objects: detections used per frame, best scores first; twice as many tracks are remembered. Higher: more
            objects, more time and memory at worst.
    """

    def __init__(
        self,
        *,
        min_score: float = 0.25,
        min_overlap: float = 0.3,
        direction_weight: float = 0.2,
        direction_s: float = 0.1,
        lost_s: float = 1.0,
        confirm_hits: int = 3,
        class_aware: bool = False,
        max_objects: int = 1000,
    ) -> None:
        check_range("min_score", min_score, 0.0, 1.0)
        check_range("min_overlap", min_overlap, 0.0, 1.0)
        check_range("direction_weight", direction_weight, 0.0, 10.0)
        check_range("direction_s", direction_s, 0.0, 60.0)
        super().__init__(
            motion=CentreAreaRatio(),
            lost_s=lost_s,
            confirm_hits=confirm_hits,
            class_aware=class_aware,
            max_objects=max_objects,
            min_score=min_score,
            more_columns=[
                ("trail", np.float64, (_TRAIL, 3)),
                ("kept_mean", np.float64, (8,)),
                ("kept_cov", np.float64, (12,)),
            ],
        )
        self.min_score = min_score
        self.min_overlap = min_overlap
        self.direction_weight = direction_weight
        self.direction_s = direction_s

    def joint(self) -> JointTrackers:
        """Return an updater that updates trackers of several sources in one step."""
        return JointTrackers()

    def _prepare(self, rows: Rows) -> None:
        rows["trail"][:] = _points(rows)[:, None, :]
        rows["kept_mean"], rows["kept_cov"] = rows["mean"], rows["cov"]

    def _move_times(self, rows: Rows, moved_ns: int) -> None:
        super()._move_times(rows, moved_ns)
        rows["trail"][:, :, 0] += moved_ns / NS_PER_S

    def _match(self, found: Found) -> Matches:
        rounds = self._rounds(found)
        everyone = np.ones(len(self._rows), np.bool_)
        near = rounds.pairs.kept(np.flatnonzero(rounds.pairs.iou > self.min_overlap))
        gain = near.iou - self.min_overlap + self._consistency(near, found)
        rounds.choose(np.maximum(gain, 1e-6), everyone, rounds.free_cols, near)
        last_seen = self._where_last_seen(rounds, found)
        rounds.choose(last_seen.iou - self.min_overlap, everyone, rounds.free_cols, last_seen)
        return Matches(*rounds.chosen(), np.flatnonzero(rounds.free_cols))

    def _where_last_seen(self, rounds: Rounds, found: Found) -> Pairs:
        """Return the overlaps of still unmatched detections with the last observations."""
        rows, cols = np.flatnonzero(rounds.free_rows), np.flatnonzero(rounds.free_cols)
        of_rows, of_cols = self._cameras(self._rows[rows]), None if found.camera is None else found.camera[cols]
        pairs = overlapping_pairs(self._rows["observed"][rows], found.xyxy[cols], blocks(of_rows, of_cols))
        return self._of_equal_class(Pairs(rows[pairs.row], cols[pairs.col], pairs.iou), found)

    def _consistency(self, pairs: Pairs, found: Found) -> Array:
        """Return the (P,) bonus for lying in the direction of the track, negative for the opposite one."""
        trail = self._rows["trail"]
        recent = trail[:, :, 0] >= trail[:, :1, 0] - self.direction_s - 1e-6
        recent[:, 1] = True
        oldest = np.where(recent, np.arange(_TRAIL), 0).max(axis=1)
        base = trail[np.arange(len(trail)), oldest, 1:]
        heading = trail[:, 0, 1:] - base
        centre = (found.xyxy[:, :2] + found.xyxy[:, 2:]) * 0.5
        wanted = centre[pairs.col] - base[pairs.row]
        known = heading[pairs.row]
        lengths = np.hypot(*known.T) * np.hypot(*wanted.T)
        cosine = np.divide((known * wanted).sum(axis=1), lengths, out=np.zeros(len(lengths)), where=lengths > 0)
        angle = np.arccos(np.clip(cosine, -1.0, 1.0))
        bonus: Array = self.direction_weight * (0.5 - angle / np.pi) * found.score[pairs.col]
        return bonus

    def _correct(self, matches: Matches, found: Found, captured_ns: Times) -> None:
        rows, at = self._rows, matches.rows
        again = self._missed()[at]
        if again.any():
            self._rerun(at[again], found.xyxy[matches.cols[again]], captured_ns)
        super()._correct(matches, found, captured_ns)
        if len(at):
            trail = rows["trail"][at]
            trail[:, 1:] = trail[:, :-1]
            trail[:, 0] = _points(rows)[at]
            rows["trail"][at] = trail
            rows["kept_mean"][at], rows["kept_cov"][at] = rows["mean"][at], rows["cov"][at]

    def _rerun(self, at: Index, xyxy: Array, captured_ns: Times) -> None:
        """Filter along the straight line from the last observation to `xyxy`, up to the step before it."""
        rows = self._rows
        start, mean, cov = rows["observed"][at], rows["kept_mean"][at], rows["kept_cov"][at]
        unseen_ns = self._of_rows(captured_ns, rows["camera"][at]) - rows["seen_ns"][at]
        step_s = unseen_ns[:, None] / (_VIRTUAL_STEPS * NS_PER_S)
        for step in range(1, _VIRTUAL_STEPS + 1):
            kalman.predict(mean, cov, self._motion.process(mean), step_s)
            if step < _VIRTUAL_STEPS:
                virtual = self._motion.encode(start + (xyxy - start) * (step / _VIRTUAL_STEPS))
                kalman.correct(mean, cov, virtual, self._motion.measurement(mean))
        rows["mean"][at], rows["cov"][at] = mean, cov


def _points(rows: Rows) -> Array:
    """Return (N, 3): time in seconds and centre of the last observation."""
    centre = (rows["observed"][:, :2] + rows["observed"][:, 2:]) * 0.5
    return np.column_stack((rows["seen_ns"] / NS_PER_S, centre))
