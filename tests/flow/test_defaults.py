"""Parts that have only the required members of their protocol: the pipeline fills in the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.data import Detections, Frame, Packet, Run, SourceStatus, TrackEvent, Tracks
from engine.flow.defaults import address_of, complete_classifier, complete_tracker, describe, files_of, takes_packets
from engine.flow.pipeline import Pipeline
from engine.leases import Leases
from engine.protocols import Detector, DetectorFacts, PendingDetections, Sink, SinkBase, Tracker
from tests.fakes import CountingSource, ListSink, PixelDetector


class BareTracker:
    """`update`, `reset` and `clone`, and nothing else; no attribute can be added to it."""

    __slots__ = ()

    def update(self, detections: Detections | None, captured_ns: int) -> Tracks:
        if detections is None:
            return Tracks.empty()
        return Tracks(detections.xyxy, detections.score, detections.class_id, np.arange(len(detections)))

    def reset(self) -> None:
        """Nothing is remembered."""

    def clone(self) -> BareTracker:
        return BareTracker()


class WithEvents(BareTracker):
    __slots__ = ()

    def events(self) -> Sequence[TrackEvent]:
        return [TrackEvent("new", 1, 0, 0, 0, 0, 0.5, 1, (0, 0, 1, 1))]

    def clone(self) -> WithEvents:
        return WithEvents()


class WithFrames(BareTracker):
    __slots__ = ("seen",)
    wants_frames = True

    def __init__(self) -> None:
        self.seen: list[int] = []

    def observe(self, frame: Frame) -> None:
        self.seen.append(frame.frame_id)

    def clone(self) -> WithFrames:
        return self


class BareClassifier:
    class_names = ("dark", "bright")

    def open(self) -> None:
        """Nothing to load."""

    def update(self, frame: Frame, tracks: Tracks) -> Mapping[int, NDArray[np.float32]]:
        return {int(track_id): np.float32([[0, 1]]) for track_id in tracks.track_id}

    def clone(self) -> BareClassifier:
        return BareClassifier()

    def close(self) -> None:
        """Nothing to free."""


class BareSink:
    """The members of `Sink`, without `takes_packets`."""

    name, blocking = "bare", True

    def __init__(self) -> None:
        self.packets: list[Packet] = []

    def open(self, run: Run) -> None:
        """Nothing to open."""

    def write(self, packet: Packet) -> None:
        self.packets.append(packet)

    def status(self, status: SourceStatus) -> None:
        """States are of no interest."""

    def tick(self) -> None:
        """Nothing is due."""

    def close(self) -> None:
        """Nothing to close."""


class BareDetector:
    """The members of `Detector`, without `describe`."""

    def __init__(self) -> None:
        self._inner = PixelDetector()
        self.name, self.class_names = self._inner.name, self._inner.class_names
        self.max_batch = self.depth = 1

    def open(self) -> None:
        self._inner.open()

    def submit(self, frames: Sequence[Frame]) -> PendingDetections:
        return self._inner.submit(frames)

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return self._inner.detect(frames)

    def close(self) -> None:
        self._inner.close()


def test_a_run_of_parts_with_only_the_required_members_is_whole() -> None:
    sink = BareSink()
    assert isinstance(BareTracker(), Tracker)
    assert isinstance(sink, Sink)
    assert isinstance(BareDetector(), Detector)
    pipeline = Pipeline(CountingSource(count=6), BareDetector(), BareTracker(), sink, second_stage=BareClassifier())
    pipeline.run()
    assert [p.frame.frame_id for p in sink.packets] == list(range(6))
    assert all(p.events == () and p.track_classes is not None for p in sink.packets)


def test_events_are_taken_from_a_tracker_that_looks_at_no_frames() -> None:
    sink = ListSink()
    Pipeline(CountingSource(count=3), PixelDetector(), WithEvents(), sink).run()
    assert [event.kind for p in sink.packets for event in p.events] == ["new"] * 3


def test_frames_are_shown_to_a_tracker_without_events() -> None:
    tracker = WithFrames()
    Pipeline(CountingSource(count=3), PixelDetector(), tracker).run()
    assert tracker.seen == [0, 1, 2]


@pytest.mark.parametrize("tracker", [BareTracker(), WithEvents(), WithFrames()], ids=lambda one: type(one).__name__)
def test_a_clone_is_completed_as_well(tracker: Tracker) -> None:
    clone = complete_tracker(complete_tracker(tracker).clone())
    assert isinstance(clone.events(), Sequence)
    assert isinstance(clone.wants_frames, bool)


def test_what_is_complete_is_not_wrapped() -> None:
    from engine.tracking.steady import SteadyTrack

    tracker = SteadyTrack()
    assert complete_tracker(tracker) is tracker


def test_defaults_are_those_of_the_base_classes() -> None:
    assert takes_packets(BareSink())
    assert files_of(BareSink()) == () == files_of(SinkBase())
    assert address_of(BareSink()) == ""
    SinkBase().use_leases(Leases())
    assert describe(BareDetector()) == DetectorFacts() == describe(PixelDetector())
    complete_classifier(BareClassifier()).clone().read_classes(("person",))
