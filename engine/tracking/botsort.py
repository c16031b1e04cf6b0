"""BoT-SORT: ByteTrack with a filter on width and height and with compensation of camera motion."""

from __future__ import annotations

from typing import ClassVar

from engine.tracking.bytetrack import ByteTrack
from engine.tracking.kalman import MotionModel
from engine.tracking.motion import CentreWidthHeight


class BotSort(ByteTrack):
    """BoT-SORT (Aharon et al. 2022) without appearance, with times in seconds.

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
        camera_motion: estimate the camera's motion and compensate for it. True: ids survive a moving camera, for 2 to 4
            ms per frame; false: right for fixed cameras.
        max_objects: detections used per frame, best scores first; twice as many tracks are remembered. Higher: more
            objects, more time and memory at worst.
    """

    _motion_model: ClassVar[MotionModel] = CentreWidthHeight()

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
        camera_motion: bool = False,
        max_objects: int = 1000,
    ) -> None:
        super().__init__(
            high_score=high_score,
            low_score=low_score,
            new_score=new_score,
            min_overlap=min_overlap,
            weak_overlap=weak_overlap,
            lost_s=lost_s,
            confirm_hits=confirm_hits,
            class_aware=class_aware,
            max_objects=max_objects,
        )
        self._follow_camera(camera_motion)
