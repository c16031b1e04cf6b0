"""Sources that are detected in windows, in a whole pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from engine.boxes import iou_matrix
from engine.data import Frame, Packet, SourceInfo
from engine.errors import ConfigError, ModelError, StageError
from engine.flow.attention.gate import FrameGate, MotionGate
from engine.flow.attention.geometry import Window
from engine.flow.attention.planner import RegionWindows
from engine.flow.options import PipelineOptions
from engine.flow.pipeline import Pipeline
from engine.protocols import DetectorBase, SinkBase
from engine.sources.base import SourceBase
from engine.tracking.steady import SteadyTrack
from engine.wire import frame_message
from tests.flow.attention.scenes import FPS, HEIGHT, WIDTH, SeeingDetector, SeenParts, picture
from tests.patience import AT_ONCE_S

COUNT = 60
STANDING = (500.0, 250.0, 540.0, 340.0)
WINDOWS = FrameGate(windows=RegionWindows(whole_s=100))


class Scene(SourceBase):
    """Somebody walks past somebody who stands."""

    def __init__(self, source_id: str = "gate", count: int = COUNT) -> None:
        super().__init__(SourceInfo(source_id, f"scene://{source_id}", False, WIDTH, HEIGHT, FPS, count))
        self._count = count

    def _frames(self) -> Iterator[Frame]:
        for number in range(self._count):
            image = picture([(40.0 + 5 * number, 60.0, 70.0 + 5 * number, 130.0), STANDING], number)
            now_ns = time.monotonic_ns()
            yield Frame(image, self.info.source_id, number, now_ns, 0, number * 1_000_000_000 // FPS, "file")


def packets_of(
    detector: Any, rule: FrameGate, *sources: Scene, sinks: Sequence[Any] = (), **options: Any
) -> list[Packet]:
    sources = sources or (Scene(),)
    rules = {source.info.source_id: rule for source in sources}
    pipeline = Pipeline(list(sources), detector, SteadyTrack(), *sinks, rules=rules, options=PipelineOptions(**options))
    return list(pipeline)


def test_tracks_are_those_of_whole_frames_for_a_fraction_of_the_pixels() -> None:
    detector = SeeingDetector()
    windows, whole = packets_of(detector, WINDOWS), packets_of(SeeingDetector(), FrameGate())
    assert len(windows) == len(whole) == COUNT
    for packet, other in zip(windows[5:], whole[5:], strict=True):
        assert packet.tracks.track_id.tolist() == other.tracks.track_id.tolist()
        assert np.diagonal(iou_matrix(packet.tracks.xyxy, other.tracks.xyxy)).min() > 0.9
    area = sum(
        (x2 - x1) * (y2 - y1) for _, looks in detector.looks for x1, y1, x2, y2 in looks or [(0, 0, WIDTH, HEIGHT)]
    )
    assert area < 0.35 * COUNT * WIDTH * HEIGHT


def test_the_message_says_which_boxes_were_looked_at_and_which_are_held() -> None:
    packets = packets_of(SeeingDetector(), WINDOWS)
    by_place = [{one.xyxy[0]: one for one in frame_message(packet).objects} for packet in packets]
    standing = [objects[STANDING[0]] for objects in by_place[10:40]]
    assert all(one.held and not one.predicted for one in standing)
    walking = [one for objects in by_place[10:40] for x, one in objects.items() if x != STANDING[0]]
    assert len(walking) == 30
    assert not any(one.held or one.predicted for one in walking)


class SlowSink(SinkBase):
    """Delays the stages before it now and then."""

    def write(self, packet: Packet) -> None:
        time.sleep(0.02 * (packet.frame.frame_id % 3 == 0))


class SlowDetector(SeeingDetector):
    def submit_windows(self, frame: Frame, windows: Sequence[Window] | None) -> SeenParts:
        time.sleep(0.01 * (frame.frame_id % 2))
        return super().submit_windows(frame, windows)


def rows(packets: Sequence[Packet], source_id: str = "gate") -> list[tuple[int, list[int], list[list[float]]]]:
    chosen = [packet for packet in packets if packet.frame.source_id == source_id]
    return [(one.frame.frame_id, one.tracks.track_id.tolist(), one.tracks.xyxy.tolist()) for one in chosen]


def test_results_do_not_depend_on_the_speed_of_any_stage_or_on_other_sources() -> None:
    alone = rows(packets_of(SeeingDetector(), WINDOWS))
    assert rows(packets_of(SlowDetector(), WINDOWS, sinks=[SlowSink()])) == alone
    together = packets_of(SeeingDetector(), WINDOWS, Scene("gate"), Scene("yard"))
    assert rows(together) == alone
    assert rows(together, "yard") == alone


class FailingDetector(SeeingDetector):
    """Fails on one frame, when it is submitted or when its result is taken."""

    def __init__(self, at: int, where: str) -> None:
        super().__init__()
        self._at, self._where = at, where

    def submit_windows(self, frame: Frame, windows: Sequence[Window] | None) -> SeenParts:
        looks = super().submit_windows(frame, windows)
        if frame.frame_id == self._at:
            if self._where == "submit":
                raise ModelError("no")
            looks = BrokenParts(looks.parts)
        return looks


class BrokenParts(SeenParts):
    def result(self) -> Any:
        raise ModelError("no")


@pytest.mark.parametrize("where", ["submit", "result"])
def test_a_lost_inference_begins_with_a_whole_frame_and_every_frame_is_accounted_for(where: str) -> None:
    detector = FailingDetector(20, where)
    pipeline = Pipeline(
        Scene(), detector, SteadyTrack(), rules={"gate": WINDOWS}, options=PipelineOptions(on_inference_error="restart")
    )
    packets = list(pipeline)
    stats = pipeline.stats.source("gate")
    assert stats.captured == COUNT == len(packets) + sum(stats.dropped.values())
    assert 1 <= sum(stats.dropped.values()) <= 4
    after = next(looks for number, looks in detector.looks if number > 20)
    assert after is None


def test_a_stage_that_fails_ends_the_run_although_a_frame_is_planned() -> None:
    class BrokenTracker(SteadyTrack):
        def clone(self) -> BrokenTracker:
            return BrokenTracker()

        def update(self, detections: Any, captured_ns: int) -> Any:
            if captured_ns > 1_000_000_000:
                raise RuntimeError("no")
            return super().update(detections, captured_ns)

    pipeline = Pipeline(Scene(), SeeingDetector(), BrokenTracker(), rules={"gate": WINDOWS})
    began = time.monotonic()
    with pytest.raises(StageError):
        list(pipeline)
    assert time.monotonic() - began < AT_ONCE_S


def test_stopping_in_the_middle_is_prompt() -> None:
    pipeline = Pipeline(Scene(count=100_000), SlowDetector(), SteadyTrack(), rules={"gate": WINDOWS})
    for packet in pipeline:
        if packet.frame.frame_id == 15:
            break
    began = time.monotonic()
    assert pipeline.stop()
    assert time.monotonic() - began < AT_ONCE_S


def test_another_model_in_the_middle_begins_with_a_whole_frame() -> None:
    first, second = SeeingDetector(), SeeingDetector()
    pipeline = Pipeline(Scene(), first, SteadyTrack(), rules={"gate": WINDOWS})
    for packet in pipeline:
        if packet.frame.frame_id == 20:
            pipeline.exchange_detector(second)
    trial, *looks = second.looks  # a model is tried on a black frame before it is used
    assert trial == (0, None)
    assert looks[0][1] is None
    assert all(windows is not None for _, windows in looks[1:])
    assert len(first.looks) + len(looks) == COUNT
    assert pipeline.looks()["gate"]["whole_first"] == 2


@pytest.mark.parametrize("make", [DetectorBase, SeeingDetector])
def test_a_detector_without_windows_looks_at_whole_frames_and_one_line_says_so(
    make: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    class Whole(DetectorBase):
        name, class_names = "whole", ("person",)

        def detect(self, frames: Sequence[Frame]) -> Any:
            return SeeingDetector().detect(frames)

    detector = Whole() if make is DetectorBase else make()
    assert len(packets_of(detector, WINDOWS)) == COUNT
    told = [record for record in caplog.records if "cannot run on windows" in record.message]
    assert len(told) == (make is DetectorBase)


def test_windows_and_a_motion_gate_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="leave out motion_gate"):
        FrameGate(windows=RegionWindows(), motion_gate=MotionGate())
