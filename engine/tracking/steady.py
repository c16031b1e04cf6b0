"""The default tracker: ByteTrack's matching, but tracks stay visible while their absence is explained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.data import NO_DETECTION, Frame
from engine.tracking.appearance import Embedder
from engine.tracking.assignment import Blocks, overlapping_pairs
from engine.tracking.base import Index, Mask, Matches, blocks, check_range
from engine.tracking.bytetrack import ByteTrack
from engine.tracking.kalman import Array
from engine.tracking.revival import NEVER, Revival
from engine.tracking.table import CONFIRMED, Found, Rows, row_dtype

_SETTLED_HITS = 10
"""Detections after which a track's velocity is known well enough to show the track while unseen."""


class SteadyTrack(ByteTrack):
    """ByteTrack's matching with a longer memory; it bridges gaps as they arise.

    A track that the detector misses is shown as predicted while another track covers nearly all of it (it is
    occluded) and, if `coast_s` is set, for a moment in any case (the detector flickers). A track
    that is missing without such a reason is lost, as in ByteTrack. A track is confirmed by the sum of its scores,
    so that uncertain boxes have to persist longer.

    Args:
        high_score: from this score a detection is confident. Higher: fewer false tracks, more gaps.
        low_score: below this score detections are ignored. Higher: less drift to false boxes, more tracks lost when
            partly hidden.
        new_score: from this score a detection may begin a track. Higher: fewer false tracks, later births.
        min_overlap: IoU x score that a confident match needs. Higher: fewer wrong matches, more broken tracks at
            fast motion or low frame rates.
        weak_overlap: IoU that a weak match needs. Higher: less drift to false boxes, more gaps.
        coast_s: seconds that a missed track is shown as predicted. Higher: fewer gaps, boxes linger where objects left.
        hidden_s: seconds that a track behind another one is shown as predicted. Higher: longer occlusions are bridged,
            boxes drift when the hidden object turns.
        hidden_share: share of its box that others must cover for that. Higher: fewer boxes linger, more gaps.
        lost_s: seconds that an unseen track is remembered. Higher: longer occlusions are bridged, more wrong revivals.
        confirm_hits: detections in a row before a track is shown. Higher: fewer false tracks, later births.
        confirm_score: sum of their scores that a track needs before it is shown: weak boxes have to persist longer.
            Higher: fewer false tracks, later births.
        class_aware: match only boxes of equal class. True: no id spans two classes; false: ids survive a detector
            that wavers between classes.
        camera_motion: estimate the camera's motion and compensate for it. True: ids survive a moving camera, for 2 to 4
            ms per frame; false: right for fixed cameras.
        appearance: ONNX model of person re-identification (OSNet), or none. With one, a detection that would begin a
            track is compared with the lost tracks within reach, so that ids survive longer occlusions (raise `lost_s`).
        min_likeness: cosine from which two crops show the same object. Higher: fewer wrong revivals, fewer right ones.
        max_crops: maximum crops examined per frame. Higher: more tracks are known by appearance, more time per frame.
        max_objects: detections used per frame, best scores first; twice as many tracks are remembered. Higher: more
            objects, more time and memory at worst.
    """

    def __init__(
        self,
        *,
        high_score: float = 0.25,
        low_score: float = 0.1,
        new_score: float = 0.25,
        min_overlap: float = 0.2,
        weak_overlap: float = 0.5,
        coast_s: float = 0.0,
        hidden_s: float = 1.0,
        hidden_share: float = 0.9,
        lost_s: float = 2.0,
        confirm_hits: int = 2,
        confirm_score: float = 1.5,
        class_aware: bool = False,
        camera_motion: bool = False,
        appearance: str | Path | Embedder | None = None,
        min_likeness: float = 0.85,
        max_crops: int = 8,
        max_objects: int = 1000,
    ) -> None:
        check_range("coast_s", coast_s, 0.0, 3600.0)
        check_range("hidden_s", hidden_s, 0.0, 3600.0)
        check_range("hidden_share", hidden_share, 0.0, 1.0)
        check_range("confirm_score", confirm_score, 0.0, 100.0)
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
        check_range("min_likeness", min_likeness, -1.0, 1.0)
        check_range("max_crops", max_crops, 1, 10_000)
        self.appearance = Embedder(appearance) if isinstance(appearance, str | Path) else appearance
        self.min_likeness = min_likeness
        self.max_crops = max_crops
        self._revival = Revival(self.appearance, min_likeness, max_crops) if self.appearance else None
        self._image: NDArray[np.uint8] | None = None
        if self._revival is not None:
            self._rows = np.zeros(0, row_dtype(self._revival.columns))
        self.confirm_score = confirm_score
        self.coast_s = coast_s
        self.hidden_s = hidden_s
        self.hidden_share = hidden_share

    @property
    def wants_frames(self) -> bool:
        """Whether `observe` must be called with each frame before `update`: for camera motion or appearance."""
        return self._revival is not None or super().wants_frames

    def observe(self, frame: Frame) -> None:
        """Process the frame of the next `update`; does nothing unless `wants_frames`."""
        super().observe(frame)
        if self._revival is not None:
            self._image = frame.image

    def _prepare(self, rows: Rows) -> None:
        if self._revival is not None:
            rows["looked_ns"] = NEVER

    def _move_times(self, rows: Rows, moved_ns: int) -> None:
        super()._move_times(rows, moved_ns)
        if self._revival is not None:
            rows["looked_ns"][rows["looked_ns"] != NEVER] += moved_ns

    def _match(self, found: Found) -> Matches:
        matches, image, self._image = super()._match(found), self._image, None
        if self._revival is None or image is None:
            return matches
        return self._revival.revive(self._rows, found, matches, image, self._now_ns or 0, self.class_aware)

    def _proven(self, rows: Rows) -> Mask:
        proven: Mask = super()._proven(rows) & (rows["score_sum"] >= self.confirm_score)
        return proven

    def _stays(self, unseen: Index, unseen_s: Array) -> Mask:
        rows = self._rows
        stays: Mask = unseen_s <= self.coast_s
        settled = (rows["state"][unseen] == CONFIRMED) & (rows["hits"][unseen] >= _SETTLED_HITS)
        unsure = (settled & ~stays & (unseen_s <= self.hidden_s)).nonzero()[0]
        if len(unsure):
            seen = ((rows["detection"] != NO_DETECTION) & (rows["state"] == CONFIRMED)).nonzero()[0]
            hidden = self._motion.decode(rows["mean"][unseen[unsure]])
            of_hidden, of_seen = self._cameras(rows[unseen[unsure]]), self._cameras(rows[seen])
            others = self._motion.decode(rows["mean"][seen])
            stays[unsure] = _covered(hidden, others, blocks(of_hidden, of_seen)) >= self.hidden_share
        return stays


def _covered(boxes: Array, others: Array, cameras: Blocks | None) -> Array:
    """Return the (N,) largest share of each box that any one other box covers."""
    pairs = overlapping_pairs(boxes, others, cameras)
    area, other_area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1), (others[:, 2:] - others[:, :2]).prod(axis=1)
    common = pairs.iou / (1.0 + pairs.iou) * (area[pairs.row] + other_area[pairs.col])
    share = np.zeros(len(boxes))
    np.maximum.at(share, pairs.row, common / area[pairs.row])
    return share
