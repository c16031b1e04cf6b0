"""The tracking stage updates the trackers of one inference together: packets as if one by one, in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.data import Detections, Frame, Packet
from engine.flow.pipeline import Pipeline
from engine.protocols import DetectorBase
from engine.sources.synthetic import Scene, SyntheticSource
from engine.tracking.registry import tracker_by_name


class Pending:
    stage_ms: dict[str, float] = {}  # noqa: RUF012

    def __init__(self, found: list[Detections]) -> None:
        self._found = found

    def result(self) -> list[Detections]:
        return self._found


class Boxes(DetectorBase):
    """Objects whose places follow from the number of the frame and the name of its source."""

    name, class_names = "boxes", ("thing",)

    def __init__(self, max_batch: int) -> None:
        self.max_batch, self.depth = max_batch, 2
        self.largest = 0

    def submit(self, frames: Sequence[Frame]) -> Pending:
        self.largest = max(self.largest, len(frames))
        return Pending([self._found(frame) for frame in frames])

    def _found(self, frame: Frame) -> Detections:
        random = np.random.default_rng([frame.frame_id, int(frame.source_id[1:])])
        corner = np.arange(5)[:, None] * 40 + frame.frame_id * 2 + random.normal(0, 1, (5, 2))
        seen = random.random(5) < 0.8
        xyxy = np.concatenate((corner, corner + 30), axis=1)[seen]
        return Detections(xyxy, np.full(len(xyxy), 0.9), np.zeros(len(xyxy)))


def run(max_batch: int) -> tuple[dict[str, list[Packet]], int]:
    sources = [SyntheticSource(Scene(width=64, height=48, count=40), f"c{index}") for index in range(4)]
    detector = Boxes(max_batch)
    packets: dict[str, list[Packet]] = {}
    with Pipeline(sources, detector, tracker_by_name("steady")) as pipeline:
        for packet in pipeline:
            packets.setdefault(packet.frame.source_id, []).append(packet)
    return packets, detector.largest


def test_cameras_of_one_inference_are_tracked_as_each_alone() -> None:
    alone, _ = run(1)
    together, largest = run(4)
    assert largest > 1
    assert set(alone) == set(together) == {"c0", "c1", "c2", "c3"}
    for source_id, expected in alone.items():
        found = together[source_id]
        assert [packet.frame.frame_id for packet in found] == list(range(40))
        for left, right in zip(found, expected, strict=True):
            np.testing.assert_array_equal(left.tracks.xyxy, right.tracks.xyxy)
            np.testing.assert_array_equal(left.tracks.track_id, right.tracks.track_id)
            assert [(event.kind, event.track_id) for event in left.events] == [
                (event.kind, event.track_id) for event in right.events
            ]
            assert left.stage_ms["track"] > 0
