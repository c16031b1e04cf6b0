"""SORT: matches only by overlap with the constant-velocity prediction of each track."""

from __future__ import annotations

import numpy as np

from engine.tracking.base import BaseTracker, Matches, check_range
from engine.tracking.motion import CentreAreaRatio
from engine.tracking.table import Found
from engine.tracking.together import JointTrackers


class Sort(BaseTracker):
    """SORT (Bewley et al. 2016), with times in seconds and a memory for lost tracks.

    Args:
        min_score: below this score detections are ignored. Higher: fewer false tracks, more gaps.
        min_overlap: IoU that a match needs. Higher: fewer wrong matches, more broken tracks at fast motion or low
            frame rates.
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
        lost_s: float = 1.0,
        confirm_hits: int = 3,
        class_aware: bool = False,
        max_objects: int = 1000,
    ) -> None:
        check_range("min_score", min_score, 0.0, 1.0)
        check_range("min_overlap", min_overlap, 0.0, 1.0)
        super().__init__(
            motion=CentreAreaRatio(),
            lost_s=lost_s,
            confirm_hits=confirm_hits,
            class_aware=class_aware,
            max_objects=max_objects,
            min_score=min_score,
        )
        self.min_score = min_score
        self.min_overlap = min_overlap

    def joint(self) -> JointTrackers:
        """Return an updater that updates trackers of several sources in one step."""
        return JointTrackers()

    def _match(self, found: Found) -> Matches:
        rounds = self._rounds(found)
        everyone = np.ones(len(self._rows), np.bool_)
        rounds.choose(rounds.pairs.iou - self.min_overlap, everyone, rounds.free_cols)
        return Matches(*rounds.chosen(), np.flatnonzero(rounds.free_cols))
