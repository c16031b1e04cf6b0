"""A detector that knows the answer, and a tracker that changes nothing: a box tells on which frame it was found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.data import Detections, Frame, TrackEvent, Tracks
from engine.protocols import DetectorBase, TrackerBase
from engine.sources.synthetic import SyntheticSource, number_in_image, scene_from_uri
from tests.imaging.markers import FindsPeople


class TruthDetector(DetectorBase):
    """Reads the number of a synthetic frame and returns the boxes that were painted on it."""

    name = "truth"
    class_names = ("person", "car", "dog")

    def __init__(self, uri: str) -> None:
        self._source = SyntheticSource(scene_from_uri(uri))

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [self._source.truth(number_in_image(frame.image)) for frame in frames]


class RowTracker(TrackerBase):
    """Gives the n-th box the id n, and leaves every box as it is."""

    def update(self, detections: Detections | None, captured_ns: int) -> Tracks:
        if detections is None:
            return Tracks.empty()
        rows = np.arange(len(detections), dtype=np.int32)
        return Tracks(detections.xyxy, detections.score, detections.class_id, rows + 1, rows + 9, rows)

    def reset(self) -> None:
        """Forget nothing: there is nothing to forget."""

    def clone(self) -> RowTracker:
        return type(self)()


class RestlessTracker(RowTracker):
    """Gives every box a new id every four seconds, as if it had left: paths of finished tracks are stored."""

    def __init__(self) -> None:
        self._alive: dict[int, TrackEvent] = {}
        self._ended: list[TrackEvent] = []

    def update(self, detections: Detections | None, captured_ns: int) -> Tracks:
        found = super().update(detections, captured_ns)
        ids = found.track_id + 10 * (captured_ns // 4_000_000_000 % 1_000_000)
        boxes = found.xyxy.tolist()
        now = {
            number: TrackEvent("ended", number, captured_ns, 0, captured_ns, captured_ns, 1.0, 9, tuple(box))
            for number, box in zip(ids.tolist(), boxes, strict=True)
        }
        self._ended = [event for number, event in self._alive.items() if number not in now]
        self._alive = now
        return Tracks(found.xyxy, found.score, found.class_id, ids, found.age, found.detection_index)

    def events(self) -> list[TrackEvent]:
        return self._ended


class BlindDetector(DetectorBase):
    """Finds nothing, so that a measurement covers everything else."""

    name = "blind"
    class_names = ("nothing",)

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [Detections.empty() for _ in frames]


class CoatDetector(FindsPeople):
    """Finds the people who carry the pattern of `tests.imaging.markers`."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self.uri = uri
