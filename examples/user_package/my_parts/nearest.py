"""The simplest tracker there is: each detection continues the nearest object of the previous frame."""

from __future__ import annotations

import numpy as np

from engine import Detections, TrackerBase, Tracks


class NearestTracker(TrackerBase):
    """Matches boxes by the distance of their centres.

    Args:
        reach: maximum pixels that an object moves from frame to frame.
    """

    def __init__(self, reach: float = 40.0) -> None:
        self._reach = reach
        self._next_id = 1
        self._last = Tracks.empty()

    def update(self, detections: Detections | None, captured_ns: int) -> Tracks:
        """Return the tracks on this frame; without a detection they stay where they are."""
        if detections is None:
            last = self._last
            return Tracks(last.xyxy, last.score, last.class_id, last.track_id)
        ids = self._matched(detections)
        rows = np.argsort(ids)
        self._last = Tracks(
            detections.xyxy[rows], detections.score[rows], detections.class_id[rows], ids[rows], detection_index=rows
        )
        return self._last

    def reset(self) -> None:
        """Forget all objects; ids continue counting."""
        self._last = Tracks.empty()

    def clone(self) -> NearestTracker:
        """Return a tracker for another source."""
        return NearestTracker(self._reach)

    def _matched(self, detections: Detections) -> np.ndarray:
        here, there = _centres(detections.xyxy), _centres(self._last.xyxy)
        distance = np.linalg.norm(here[:, None] - there[None], axis=2)
        ids = np.full(len(here), -1)
        for row, column in zip(*np.unravel_index(np.argsort(distance, axis=None), distance.shape), strict=True):
            free = ids[row] < 0 and self._last.track_id[column] not in ids
            if free and distance[row, column] <= self._reach:
                ids[row] = self._last.track_id[column]
        new = np.flatnonzero(ids < 0)
        ids[new] = np.arange(self._next_id, self._next_id + len(new))
        self._next_id += len(new)
        return ids


def _centres(xyxy: np.ndarray) -> np.ndarray:
    return (xyxy[:, :2] + xyxy[:, 2:]) / 2
