"""ByteTrack: every detection counts. Confident ones continue or begin tracks, weak ones only continue them."""

from __future__ import annotations

from typing import ClassVar

from engine.tracking.base import BaseTracker, Matches, check_range
from engine.tracking.kalman import MotionModel
from engine.tracking.motion import CentreAreaRatio
from engine.tracking.table import CONFIRMED, TENTATIVE, Found
from engine.tracking.together import JointTrackers

_MIN_TENTATIVE = 0.3
"""Overlap x score that a track of one detection needs (the reference code's 0.7 as cost)."""


class ByteTrack(BaseTracker):
    """ByteTrack (Zhang et al. 2022, section 3), with times in seconds.

    Confident detections are matched to all tracks by overlap x score, then weak ones to the remaining tracks that
    were on the last frame, then the remaining confident ones to tentative tracks. Those still left begin tracks.
    The motion is SORT's, which measures better than the filter of the authors' code.

    Args:
        high_score: from this score a detection is confident. Higher: fewer false tracks, more gaps.
        low_score: below this score detections are ignored. Higher: less drift to false boxes, more tracks lost when
            partly hidden.
        new_score: from this score a detection may begin a track. Higher: fewer false tracks, later births.
        min_overlap: IoU x score that a confident match needs. Higher: fewer wrong matches, more broken tracks at
            fast motion or low frame rates.
        weak_overlap: IoU that a weak match needs. Higher: less drift to false boxes, more gaps.
        lost_s: seconds that an unseen track is remembered. Higher: longer occlusions are bridged, more wrong revivals.
        confirm_hits: detections in a row before a track is shown. Higher: fewer false tracks, later births.
        class_aware: match only boxes of equal class. True: no id spans two classes; false: ids survive a detector
            that wavers between classes.
        max_objects: detections used per frame, best scores first; twice as many tracks are remembered. Higher: more
            objects, more time and memory at worst.
    """

    _motion_model: ClassVar[MotionModel] = CentreAreaRatio()

    def __init__(
        self,
        *,
        high_score: float = 0.25,
        low_score: float = 0.1,
        new_score: float = 0.25,
        min_overlap: float = 0.2,
        weak_overlap: float = 0.5,
        lost_s: float = 1.0,
        confirm_hits: int = 2,
        class_aware: bool = False,
        max_objects: int = 1000,
    ) -> None:
        for name, value in (("high_score", high_score), ("low_score", low_score), ("new_score", new_score)):
            check_range(name, value, 0.0, 1.0)
        check_range("min_overlap", min_overlap, 0.0, 1.0)
        check_range("weak_overlap", weak_overlap, 0.0, 1.0)
        super().__init__(
            motion=self._motion_model,
            lost_s=lost_s,
            confirm_hits=confirm_hits,
            class_aware=class_aware,
            max_objects=max_objects,
            min_score=low_score,
        )
        self.high_score = high_score
        self.low_score = low_score
        self.new_score = new_score
        self.min_overlap = min_overlap
        self.weak_overlap = weak_overlap

    def joint(self) -> JointTrackers:
        """Return an updater that updates trackers of several sources in one step."""
        return JointTrackers()

    def _match(self, found: Found) -> Matches:
        rounds, state = self._rounds(found), self._rows["state"]
        overlap = rounds.pairs.iou
        fused = overlap * found.score.take(rounds.pairs.col)
        confident = found.score >= self.high_score
        rounds.choose(fused - self.min_overlap, state != TENTATIVE, confident)
        rounds.choose(overlap - self.weak_overlap, state == CONFIRMED, ~confident)
        rounds.choose(fused - _MIN_TENTATIVE, state == TENTATIVE, confident)
        births = (rounds.free_cols & confident & (found.score >= self.new_score)).nonzero()[0]
        return Matches(*rounds.chosen(), births)
