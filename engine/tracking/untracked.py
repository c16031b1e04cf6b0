"""No tracking: every detection is an object on its own frame only."""

from __future__ import annotations

import numpy as np

from engine.data import NO_IDENTITY, Detections, Tracks


class Untracked:
    """Returns detections as rows without an identity: `track_id` is -1 for all.

    >>> Untracked().update(Detections([[0, 0, 4, 4]], [0.9], [2]), 0).track_id
    array([-1])
    """

    def update(self, detections: Detections | None, captured_ns: int) -> Tracks:
        """Return one row per detection, or none if the detector did not run."""
        found = Detections.empty() if detections is None else detections
        ids = np.full(len(found), NO_IDENTITY, np.int64)
        return Tracks(found.xyxy, found.score, found.class_id, ids, detection_index=np.arange(len(found)))

    def reset(self) -> None:
        """Nothing to forget."""

    def clone(self) -> Untracked:
        """Return another one."""
        return Untracked()
