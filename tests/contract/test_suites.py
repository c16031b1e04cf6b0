"""The public contract suites: parts that keep the contract pass, and each way to break it is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import Detections, Frame, Packet, SourceStatus, Tracks
from engine.detection.heads.base import Candidates, Head, Outputs
from engine.detection.load import load_detector
from engine.detection.model import inspect_model
from engine.protocols import AnalyserBase, DetectorBase, SinkBase, TrackerBase
from engine.sources.open import open_source
from engine.testing import (
    ContractError,
    check_analyser,
    check_detector,
    check_head,
    check_sink,
    check_source,
    check_tracker,
)
from tests.fakes import ListSink, OneTracker, PixelDetector
from tests.onnx_models import save_constant_model


class Mark(AnalyserBase):
    name = "mark"

    def analyse(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        return [packet.with_analysis(self.name, len(packet.tracks)) for packet in packets]


class Follow(TrackerBase):
    """Gives an id to each class of a frame."""

    def __init__(self) -> None:
        self.base = 0
        self.last = 0

    def update(self, detections: Detections | None, captured_ns: int) -> Tracks:
        if detections is None:
            return Tracks.empty()
        rows = np.arange(len(detections))
        self.last = max(self.last, self.base + len(rows))
        return Tracks(detections.xyxy, detections.score, detections.class_id, rows + self.base, detection_index=rows)

    def reset(self) -> None:
        self.base = self.last + 1

    def clone(self) -> Follow:
        return Follow()


def test_parts_that_keep_the_contract_pass() -> None:
    check_analyser(Mark)
    check_tracker(Follow)
    check_detector(PixelDetector)
    check_sink(ListSink)
    check_source(lambda: open_source("synthetic://?width=64&height=48&count=12"))


class Wrong(DetectorBase):
    name, class_names = "wrong", ("thing",)

    def __init__(self, found: Callable[[Frame], Detections], count: Callable[[int], int] = lambda n: n) -> None:
        self._found, self._count = found, count

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [self._found(frame) for frame in frames[: self._count(len(frames))]]


@pytest.mark.parametrize(
    ("detector", "expected"),
    [
        pytest.param(lambda: Wrong(lambda f: Detections([[0, 0, 9999, 9]], [0.5], [0])), "boxes end on", id="off"),
        pytest.param(lambda: Wrong(lambda f: Detections([[9, 9, 1, 1]], [0.5], [0])), "not below", id="inside out"),
        pytest.param(lambda: Wrong(lambda f: Detections([[0, 0, 1, 1]], [2.0], [0])), r"in \[0, 1\]", id="score"),
        pytest.param(lambda: Wrong(lambda f: Detections([[0, 0, 1, 1]], [0.5], [7])), "class ids", id="class"),
        pytest.param(lambda: Wrong(lambda f: Detections.empty(), lambda n: n - 1), "one result per frame", id="count"),
        pytest.param(object, "members of engine.Detector", id="no detector"),
    ],
)
def test_a_detector_that_breaks_the_contract_is_told_how(detector: Callable[[], Any], expected: str) -> None:
    with pytest.raises(ContractError, match=expected):
        check_detector(detector)


class Reused(Follow):
    def reset(self) -> None:
        self.base = 0


class Shared(Follow):
    def clone(self) -> Shared:
        return self


class Twice(Follow):
    def update(self, detections: Detections | None, captured_ns: int) -> Tracks:
        tracks = super().update(detections, captured_ns)
        return Tracks(tracks.xyxy, tracks.score, tracks.class_id, tracks.track_id * 0)


@pytest.mark.parametrize(
    ("tracker", "expected"),
    [
        pytest.param(Reused, "no id comes back after a reset", id="ids again"),
        pytest.param(Shared, "clone returns another object", id="no clone"),
        pytest.param(Twice, "an id occurs once per frame", id="one id twice"),
    ],
)
def test_a_tracker_that_breaks_the_contract_is_told_how(tracker: Callable[[], Any], expected: str) -> None:
    with pytest.raises(ContractError, match=expected):
        check_tracker(tracker)


class Draws(SinkBase):
    def write(self, packet: Packet) -> None:
        packet.frame.image.flags.writeable = True
        packet.frame.image[:4] = 7


class OpensLate(SinkBase):
    is_open = False

    def write(self, packet: Packet) -> None:
        """Writes."""

    def close(self) -> None:
        if self.is_open is None:
            raise ContractError("closed twice")
        self.is_open = None  # type: ignore[assignment]


def test_sinks_that_break_the_contract_are_told_how() -> None:
    with pytest.raises(ContractError, match="arrays of a packet stay"):
        check_sink(Draws)
    with pytest.raises(ContractError, match="closing is harmless: closed twice"):
        check_sink(OpensLate)


class Loses(AnalyserBase):
    def analyse(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        return packets[1:]


class Overwrites(AnalyserBase):
    def analyse(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        return [replace(packet, analyses={"mine": 1}) for packet in packets]


class SwallowsStates(Mark):
    def status(self, status: SourceStatus) -> SourceStatus:
        return replace(status, state="live")


@pytest.mark.parametrize(
    ("analyser", "expected"),
    [
        pytest.param(Loses, "every packet comes back: 1 of 2", id="loses"),
        pytest.param(Overwrites, "results of other analysers are kept", id="overwrites"),
        pytest.param(SwallowsStates, "the state comes back unchanged", id="states"),
    ],
)
def test_an_analyser_that_breaks_the_contract_is_told_how(analyser: Callable[[], Any], expected: str) -> None:
    with pytest.raises(ContractError, match=expected):
        check_analyser(analyser)


class Camera:
    """A source that breaks the contract in a chosen way."""

    def __init__(self, fault: str) -> None:
        self._inner, self._fault = open_source("synthetic://?width=64&height=48&count=12"), fault
        self.info = self._inner.info

    def attach(self, listener: Any) -> None:
        if self._fault != "silent":
            self._inner.attach(listener)

    def interrupt(self) -> None:
        if self._fault != "deaf":
            self._inner.interrupt()

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._inner:
            if self._fault == "gaps":
                yield replace(frame, frame_id=2 * frame.frame_id)
            elif self._fault == "other name":
                yield replace(frame, source_id="else")
            else:
                yield frame


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        pytest.param("gaps", "a source that can wait loses no frame", id="gaps"),
        pytest.param("other name", "frames carry the source_id", id="name"),
        pytest.param("silent", "the first state is connecting or live", id="states"),
        pytest.param("deaf", "no frame after an interrupt", id="interrupt"),
    ],
)
def test_a_source_that_breaks_the_contract_is_told_how(fault: str, expected: str) -> None:
    check_source(lambda: Camera(""))
    with pytest.raises(ContractError, match=expected):
        check_source(lambda: Camera(fault))


class Careless(Head):
    """Reports every row, whatever its score."""

    def __init__(self, inner: Head) -> None:
        self._inner = inner

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        return self._inner.decode(outputs, row, 0.0)


def test_a_head_is_checked_on_the_outputs_of_a_model(tmp_path: Path) -> None:
    output = np.zeros((6, 84), np.float32)
    output[:, 5], output[:, 6] = (20, 20, 10, 10, 0.95, 0), (21, 20, 10, 10, 0.4, 0)
    path = save_constant_model(tmp_path / "two.onnx", [output], 64, {"names": "{0: 'person', 1: 'car'}"})
    head = inspect_model(path).head()
    check_head(head, [output[None]])
    with pytest.raises(ContractError, match=r"scores are above 0.9"):
        check_head(Careless(head), [output[None]])


def test_the_models_of_the_tests_are_within_the_contract(tmp_path: Path) -> None:
    output = np.zeros((5, 84), np.float32)
    output[:, 5] = (20, 20, 10, 10, 0.9)
    path = save_constant_model(tmp_path / "one.onnx", [output], 64, {"names": "{0: 'person'}"})
    check_detector(lambda: load_detector(path, backend="onnxruntime"))


def test_a_tracker_that_is_only_a_fake_is_found_out() -> None:
    with pytest.raises(ContractError, match="no id comes back|ids stay with|comes back"):
        check_tracker(OneTracker)
