"""Regions, ignored places and the motion gate."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.data import Detections
from engine.errors import ConfigError
from engine.flow.attention.gate import FrameGate, MotionGate
from engine.flow.options import PipelineOptions
from engine.flow.pipeline import Pipeline
from engine.tracking.bytetrack import ByteTrack
from tests.fakes import CountingSource, ListSink, PixelDetector

LEFT = [(0.0, 0.0), (50.0, 0.0), (50.0, 100.0), (0.0, 100.0)]
NS = 1_000_000_000


def standing_at(*feet: tuple[float, float]) -> Detections:
    return Detections([[x - 2, y - 10, x + 2, y] for x, y in feet], [0.9] * len(feet), range(len(feet)))


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        pytest.param(FrameGate(), [0, 1, 2], id="no rules"),
        pytest.param(FrameGate(regions=[LEFT]), [0, 2], id="region"),
        pytest.param(FrameGate(ignore=[LEFT]), [1], id="ignored"),
        pytest.param(FrameGate(regions=[LEFT], ignore=[[(0, 0), (20, 0), (20, 100), (0, 100)]]), [2], id="both"),
    ],
)
def test_objects_count_by_where_they_stand(rules: FrameGate, kept: list[int]) -> None:
    assert rules.keep(standing_at((10, 50), (80, 50), (50, 99))).class_id.tolist() == kept


def test_no_detections_stay_none() -> None:
    assert len(FrameGate(regions=[LEFT]).keep(Detections.empty())) == 0


@pytest.mark.parametrize("polygon", [[(0, 0), (1, 1)], [(0, 0), (1, 1), (float("nan"), 2)]], ids=["line", "NaN"])
def test_polygons_that_enclose_nothing_are_refused(polygon: list[tuple[float, float]]) -> None:
    with pytest.raises(ConfigError, match="encloses no area"):
        FrameGate(regions=[polygon])


def picture(offset: int = 0, noise: int = 0) -> np.ndarray:
    image = np.full((240, 320, 3), 90, np.uint8)
    image[100:160, 40 + offset : 70 + offset] = 220
    grain = np.random.default_rng(noise).integers(-noise, noise + 1, image.shape)
    return np.clip(image.astype(int) + grain, 0, 255).astype(np.uint8)


def test_gate_opens_for_the_first_picture_and_closes_while_nothing_moves() -> None:
    gate = MotionGate()
    assert [gate.is_due(picture(), n * NS // 10) for n in range(5)] == [True, False, False, False, False]


def test_gate_opens_for_a_small_movement_and_not_for_noise() -> None:
    gate = MotionGate()
    gate.is_due(picture(), 0)
    assert not gate.is_due(picture(noise=8), NS // 10)
    assert gate.is_due(picture(offset=6), NS // 5)


def test_slow_movement_adds_up_until_the_gate_opens() -> None:
    gate = MotionGate(max_hold_s=1000)
    due = [gate.is_due(picture(offset=n // 4), n * NS // 10) for n in range(60)]
    assert 3 <= sum(due) <= 20


def test_gate_opens_from_time_to_time_whatever_is_seen() -> None:
    gate = MotionGate(max_hold_s=1.0)
    assert [gate.is_due(picture(), n * NS // 2) for n in range(6)] == [True, False, True, False, True, False]


@pytest.mark.parametrize("size_wh", [(320, 120), (640, 480), (160, 120)], ids=["cut", "larger", "smaller"])
def test_gate_opens_when_the_size_changes(size_wh: tuple[int, int]) -> None:
    gate = MotionGate()
    gate.is_due(picture(), 0)
    assert gate.is_due(np.ascontiguousarray(cv2.resize(picture(), size_wh)), 1)


def test_gate_opens_after_a_reset() -> None:
    gate = MotionGate()
    gate.is_due(picture(), 0)
    gate.reset()
    assert gate.is_due(picture(), 1)


class StillSource(CountingSource):
    """The same frame repeated."""

    def frame(self, frame_id: int):  # type: ignore[no-untyped-def]
        frame = super().frame(0)
        return type(frame)(frame.image, "numbers", frame_id, frame.captured_ns, 0, frame_id * NS // 10, "file")


def test_still_scene_saves_inference_and_holds_its_tracks() -> None:
    sink, detector = ListSink(), PixelDetector()
    rules = {"numbers": FrameGate(motion_gate=MotionGate(max_hold_s=1.0))}
    pipeline = Pipeline(StillSource(count=40), detector, ByteTrack(), sink, rules=rules)
    pipeline.run()
    assert len(detector.batches) == 4
    assert pipeline.stats.by_source()["numbers"] == {
        "captured": 40, "published": 40, "detected": 4, "dropped": {}, "reconnects": 0,
    }  # fmt: skip
    held = [p for p in sink.packets if p.is_held]
    assert len(held) == 36
    assert {tuple(p.tracks.track_id) for p in sink.packets[2:]} == {tuple(sink.packets[-1].tracks.track_id)}
    assert all((p.tracks.detection_index == -1).all() and not len(p.detections) for p in held)


@pytest.mark.parametrize("detect_every", [1, 1000])
def test_a_still_picture_is_detected_anew_by_another_model(detect_every: int) -> None:
    class Other(PixelDetector):
        name = "other"
        class_names = tuple(f"other {n}" for n in range(256))

    sink = ListSink()
    rules = {"numbers": FrameGate(motion_gate=MotionGate(max_hold_s=1000))}
    options = PipelineOptions(detect_every=detect_every)
    source = StillSource(count=1_000_000, gap_s=0.001)
    with Pipeline(source, PixelDetector(), ByteTrack(), sink, rules=rules, options=options) as pipeline:
        for number, packet in enumerate(pipeline):
            if number == 5:
                pipeline.exchange_detector(Other())
            if packet.run.model == "other":
                break
    assert packet.is_detected
    assert len(packet.detections) == 1
    assert [p.run.model for p in sink.packets if p.is_detected] == ["pixel", "other"]


class SceneSource(CountingSource):
    """A still frame that changes permanently at frame 4."""

    def frame(self, frame_id: int):  # type: ignore[no-untyped-def]
        frame = super().frame(0 if frame_id < 4 else 200)
        return type(frame)(frame.image, "numbers", frame_id, frame.captured_ns, 0, frame_id * NS // 10, "file")


def test_a_change_between_two_detections_is_detected_on_the_next_one() -> None:
    sink = ListSink()
    rules = {"numbers": FrameGate(motion_gate=MotionGate(max_hold_s=1000))}
    options = PipelineOptions(detect_every=3)
    pipeline = Pipeline(SceneSource(count=12), PixelDetector(), ByteTrack(), sink, rules=rules, options=options)
    pipeline.run()
    assert [p.frame.frame_id for p in sink.packets if p.is_detected] == [0, 4]
    assert [p.frame.frame_id for p in sink.packets if p.is_held] == [3, 7, 8, 9, 10, 11]


def test_detections_outside_of_the_region_reach_neither_tracker_nor_packet() -> None:
    sink = ListSink()
    rules = {"numbers": FrameGate(ignore=[[(-1, -1), (9, -1), (9, 9), (-1, 9)]])}
    Pipeline(CountingSource(count=5), PixelDetector(), ByteTrack(), sink, rules=rules).run()
    assert all(not len(p.detections) and not len(p.tracks) and p.is_detected for p in sink.packets)
