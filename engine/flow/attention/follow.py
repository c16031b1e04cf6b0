"""What the tracks say about the known boxes: which are confirmed, how fast they move, and which have vanished."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.boxes import Boxes, iou_matrix
from engine.data import NO_DETECTION, Tracks
from engine.flow.attention.geometry import Placement, in_model
from engine.flow.attention.known import Known

DOUBT_S = 1.0
"""How long the place of a track that vanished is looked at."""
BACK_IOU = 0.4


@dataclass(frozen=True, slots=True)
class _Last:
    """A track's last box, in pixels of the model's frame, when it was seen, and its velocity per second."""

    box: NDArray[np.float32]
    seen_s: float
    velocity: NDArray[np.float32]


class Followed:
    """Relates the tracks of one camera to its known boxes."""

    def __init__(self) -> None:
        self._last: dict[int, _Last] = {}
        self._doubts: list[tuple[NDArray[np.float32], float]] = []

    def doubts(self, now_s: float) -> list[NDArray[np.float32]]:
        """Return (4,) boxes of the model's frame where a track has vanished within the last second."""
        self._doubts = [(box, since_s) for box, since_s in self._doubts if now_s - since_s <= DOUBT_S]
        return [box for box, _ in self._doubts]

    def note(self, known: Known, tracks: Tracks, placement: Placement, now_s: float) -> None:
        """Read the tracks of a frame: `detection_index` is the row in `known`."""
        boxes = in_model(known.xyxy, placement)
        before, self._last = self._last, {}
        known.is_new[:] = True
        for track_id, row in zip(tracks.track_id.tolist(), tracks.detection_index.tolist(), strict=True):
            last = before.get(track_id)
            if row == NO_DETECTION:
                if last is not None:
                    self._last[track_id] = last
                continue
            known.is_new[row] = False
            if last is None or known.looked_s[row] >= now_s:
                last = _next(last, boxes[row], now_s)
            self._last[track_id] = last
            known.velocity[row] = last.velocity
        gone = [last for track_id, last in before.items() if track_id not in self._last]
        self._doubts += [(last.box, now_s) for last in gone if now_s - last.seen_s <= DOUBT_S]
        self._settle(boxes[~known.is_new], now_s)

    def _settle(self, followed: Boxes, now_s: float) -> None:
        """Forget vanished tracks at places that have a track again."""
        places = self.doubts(now_s)
        if places and len(followed):
            is_back: NDArray[np.bool_] = iou_matrix(np.stack(places), followed).max(axis=1) > BACK_IOU
            self._doubts = [doubt for doubt, back in zip(self._doubts, is_back.tolist(), strict=True) if not back]


def _next(last: _Last | None, box: NDArray[np.float32], now_s: float) -> _Last:
    if last is None:
        return _Last(box.copy(), now_s, np.zeros(2, np.float32))
    moved = ((box[:2] + box[2:]) - (last.box[:2] + last.box[2:])) / 2
    velocity = 0.5 * last.velocity + 0.5 * moved / max(now_s - last.seen_s, 1e-3)
    return _Last(box.copy(), now_s, velocity.astype(np.float32))
