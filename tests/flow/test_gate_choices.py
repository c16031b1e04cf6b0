"""What one source keeps: its own classes, scores, sizes and rate."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from engine.data import Detections
from engine.errors import ConfigError
from engine.flow.attention.gate import FrameGate, RateLimit
from engine.flow.options import PipelineOptions
from engine.flow.pipeline import Pipeline
from engine.sources.open import open_source
from engine.tracking.untracked import Untracked
from tests.fakes import PixelDetector

NAMES = ("person", "bicycle", "car")
FOUND = Detections([[0, 0, 10, 10], [0, 0, 20, 20], [0, 0, 2, 2]], [0.9, 0.5, 0.3], [0, 1, 2])
MS = 1_000_000


@pytest.mark.parametrize(
    ("gate", "kept"),
    [
        pytest.param(FrameGate(), [0, 1, 2], id="all"),
        pytest.param(FrameGate(classes=("Person", 2)), [0, 2], id="by name in any case, and by number"),
        pytest.param(FrameGate(classes=()), [], id="none"),
        pytest.param(FrameGate(score_threshold=0.5), [0, 1], id="by score"),
        pytest.param(FrameGate(min_area=100), [0, 1], id="by size"),
        pytest.param(FrameGate(classes=("car",), min_area=100), [], id="by both"),
    ],
)
def test_a_source_keeps_what_it_is_to_keep(gate: FrameGate, kept: list[int]) -> None:
    assert gate.keep(FOUND, NAMES).class_id.tolist() == kept
    assert len(gate.keep(Detections.empty(), NAMES)) == 0


def test_a_class_that_the_model_has_not_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    gate = FrameGate(classes=("unicorn",))
    with caplog.at_level(logging.ERROR):
        assert [len(gate.keep(FOUND, NAMES)) for _ in range(3)] == [0, 0, 0]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("fps", [25, 30, 60])
@pytest.mark.parametrize("limit", [1, 7.5, 10, 29.97])
def test_a_rate_is_kept_on_the_average(fps: float, limit: float) -> None:
    rate, seconds = RateLimit(), 20
    jitter = np.random.default_rng(3).integers(-3 * MS, 3 * MS, fps * seconds)
    times = [int(n * 1e9 / fps + jitter[n]) for n in range(fps * seconds)]
    admitted = sum(rate.admits(time_ns, limit) for time_ns in times)
    assert admitted == pytest.approx(min(limit, fps) * seconds, rel=0.06)


def test_time_that_steps_back_does_not_stop_a_source() -> None:
    rate = RateLimit()
    assert rate.admits(3_600_000 * MS, 10)
    assert rate.admits(0, 10)
    assert not rate.admits(50 * MS, 10)


def test_frames_above_the_rate_are_dropped_by_that_name() -> None:
    source = open_source("synthetic://?count=50&fps=25&width=160&height=120", source_id="gate")
    pipeline = Pipeline(
        source, PixelDetector(), Untracked(), options=PipelineOptions(), rules={"gate": FrameGate(max_fps=5)}
    )
    pipeline.run()
    stats = pipeline.stats.source("gate")
    assert stats.captured == 50
    assert stats.published == 10
    assert stats.dropped["max_fps"] == 40


def test_shares_of_the_frame_are_no_pixels() -> None:
    with pytest.raises(ConfigError, match="not shares of it"):
        FrameGate(regions=[[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]])


def test_polygons_outside_of_the_frame_are_found() -> None:
    inside, outside = [(0, 0), (50, 0), (50, 50)], [(1000, 0), (1900, 0), (1900, 900)]
    assert FrameGate(regions=[inside], ignore=[outside]).outside(810, 1080) == [outside]


def test_a_source_is_detected_at_its_rate_and_predicted_in_between() -> None:
    """25 frames per second of stream time; the first is detected, whatever the rate."""
    sources = [open_source("synthetic://?width=64&height=48&count=50", source_id=name) for name in ("slow", "all")]
    detected: dict[str, list[bool]] = {"slow": [], "all": []}
    rules = {"slow": FrameGate(detect_hz=5.0)}
    with Pipeline(sources, PixelDetector(), Untracked(), rules=rules) as pipeline:
        for packet in pipeline:
            detected[packet.frame.source_id].append(packet.is_detected)
    assert detected["all"] == [True] * 50
    assert detected["slow"] == ([True] + [False] * 4) * 10


def test_a_rate_of_detection_wins_over_every_nth_frame() -> None:
    source = open_source("synthetic://?width=64&height=48&count=20", source_id="a")
    options = PipelineOptions(detect_every=2)
    with Pipeline([source], PixelDetector(), Untracked(), rules={"a": FrameGate(detect_hz=25)}, options=options) as run:
        assert all(packet.is_detected for packet in run)
