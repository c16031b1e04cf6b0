"""Faces on the frames of all sources, found by a separate detector, because most models do not detect faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.data import NO_IDENTITY, Detections, Packet
from engine.imaging.people import Places
from engine.protocols import Detector, Tracker

FACE = "face"
FACE_ID = -2
"""Class id of faces in `Packet.hidden`, since the source's model does not have that class."""
FIRST_TRACK = 1 << 48
"""Track ids of faces begin here, so that they never equal an object's."""


@dataclass(slots=True, eq=False)
class _Followed:
    """The faces of one source."""

    tracker: Tracker
    last_ns: int = 0
    stream_epoch: int = 0


class Faces:
    """Finds and follows faces; used by one thread.

    Args:
        make_detector: returns a detector whose only class is faces; called, and the result opened, when first needed.
        tracker: a prototype; every source gets a `clone()`.
    """

    def __init__(self, make_detector: Callable[[], Detector], tracker: Tracker) -> None:
        self._make_detector = make_detector
        self._detector: Detector | None = None
        self._tracker = tracker
        self._sources: dict[str, _Followed] = {}

    def prepare(self) -> Detector:
        """Return the detector. Raises `EngineError` if it cannot be created."""
        if self._detector is None:
            self._detector = self._make_detector()
        return self._detector

    def find(self, packet: Packet, floor: float, *, follow: bool = True) -> Places:
        """Return the faces on a packet's frame: those found, and those that the tracker predicts.

        Args:
            packet: whose frame to search; a frame equal to the previous one is not searched.
            floor: lowest score.
            follow: the frame is the next one of its source; otherwise it is searched in isolation.

        Raises:
            EngineError: the detector cannot be loaded, or fails.
        """
        if packet.is_held:
            return _places(Detections.empty(), None, packet.frame.scene_ns)
        [found] = self.prepare().detect([packet.frame])
        found = found[found.score >= floor]
        return _places(found, self._tracks(packet, found) if follow else None, packet.frame.scene_ns)

    def _tracks(self, packet: Packet, found: Detections) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes and track ids of the followed faces."""
        frame = packet.frame
        source = self._sources.get(frame.source_id)
        if source is None:
            source = self._sources[frame.source_id] = _Followed(self._tracker.clone())
        elif frame.scene_ns <= source.last_ns or frame.stream_epoch != source.stream_epoch:
            source.tracker.reset()
        source.last_ns, source.stream_epoch = frame.scene_ns, frame.stream_epoch
        tracks = source.tracker.update(found, frame.scene_ns)
        return tracks.xyxy, tracks.track_id + FIRST_TRACK


def _places(found: Detections, tracks: tuple[np.ndarray, np.ndarray] | None, scene_ns: int) -> Places:
    boxes, ids = tracks if tracks is not None else (np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    xyxy = np.concatenate((found.xyxy, boxes)).astype(np.float32)
    count = len(xyxy)
    track_id = np.concatenate((np.full(len(found), NO_IDENTITY, np.int64), ids))
    class_id = np.full(count, FACE_ID, np.int32)
    return Places(xyxy, class_id, track_id, np.full(count, scene_ns, np.int64), np.zeros((count, 2)))
