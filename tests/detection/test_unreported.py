"""Objects found only for privacy do not change what a detector reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.data import Detections, Frame
from engine.detection.detector import ModelDetector
from engine.detection.load import load_detector
from engine.detection.tiles import TiledDetector
from engine.errors import ConfigError
from engine.flow.attention.gate import FrameGate
from engine.flow.pipeline import Pipeline
from engine.imaging.privacy import Privacy, PrivacyRules
from engine.tracking.bytetrack import ByteTrack
from pipelines.build.detector import build_detector
from pipelines.config.models import Config
from tests.fakes import CountingSource, ListSink
from tests.onnx_models import save_constant_model

FRAME = Frame(np.zeros((64, 64, 3), np.uint8))
PERSON, CAR = 0, 1


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Finds a person of 0.9, another of 0.15, a car of 0.8 and one of 0.12, a person of 0.05."""
    output = np.zeros((6, 84), np.float32)
    rows = [(10, 0.9, PERSON), (30, 0.15, PERSON), (50, 0.8, CAR), (20, 0.12, CAR), (40, 0.05, PERSON)]
    for column, (x, score, kind) in enumerate(rows):
        output[:4, column] = [x, 32, 8, 40]
        output[4 + kind, column] = score
    return save_constant_model(tmp_path / "m.onnx", [output], metadata={"names": "['person', 'car']"})


def opened(model: Path, **options: object) -> ModelDetector:
    return load_detector(model, backend="onnxruntime", **options)  # type: ignore[arg-type]


def rows(found: Detections | None) -> list[tuple[float, int]]:
    return (
        []
        if found is None
        else sorted((round(float(s), 2), int(c)) for s, c in zip(found.score, found.class_id, strict=True))
    )


@pytest.mark.parametrize("classes", [None, [CAR], [PERSON]])
def test_the_reported_objects_are_the_same_and_the_others_are_handed_out(
    model: Path, classes: list[int] | None
) -> None:
    with opened(model, classes=classes) as detector:
        [plain] = detector.detect([FRAME])
        assert plain.unreported is None
        detector.also_find([PERSON], 0.1)
        [found] = detector.detect([FRAME])
    assert rows(found) == rows(plain)
    np.testing.assert_array_equal(found.xyxy, plain.xyxy)
    assert rows(found.unreported) == [(0.15, PERSON)] + ([(0.9, PERSON)] if classes == [CAR] else [])


def test_a_floor_above_the_threshold_hands_out_nothing(model: Path) -> None:
    with opened(model) as detector:
        detector.also_find([PERSON], 0.5)
        assert rows(detector.detect([FRAME])[0].unreported) == []
        with pytest.raises(ConfigError, match="floor"):
            detector.also_find([PERSON], 2)


def test_tiles_hand_out_theirs_in_pixels_of_the_frame(model: Path) -> None:
    inner = opened(model)
    inner.also_find([PERSON], 0.1)
    tiled = TiledDetector(inner, (64, 64), overlap=0, whole=False)
    [found] = tiled.detect([Frame(np.zeros((64, 128, 3), np.uint8))])
    tiled.close()
    assert found.unreported is not None
    assert sorted(found.unreported.xyxy[:, 0].round().tolist()) == [26, 90]


def test_the_configuration_asks_for_what_its_sources_hide(model: Path) -> None:
    sources = [{"uri": "a.mp4", "privacy": {"mode": "blur", "classes": ["car"], "score_floor": 0.11}}, {"uri": "b.mp4"}]
    told = {"model": str(model), "backend": "onnxruntime", "classes": ["person"]}
    detector = build_detector(Config.model_validate({"sources": sources, "detector": told}), [])
    assert isinstance(detector, ModelDetector)
    with detector:
        assert rows(detector.detect([FRAME])[0].unreported) == [(0.12, CAR), (0.8, CAR)]


def test_what_a_gate_drops_is_hidden_too(model: Path) -> None:
    sink = ListSink()
    gate = FrameGate(classes=("car",), min_area=1e6)
    rules, privacy = {"numbers": gate}, Privacy(PrivacyRules())
    Pipeline(CountingSource(count=3), opened(model), ByteTrack(), sink, rules=rules, privacy=privacy).run()
    assert [len(packet.detections) for packet in sink.packets] == [0] * 3
    assert [packet.hidden is not None and len(packet.hidden) >= 1 for packet in sink.packets] == [True] * 3
    assert all(packet.detections.unreported is None for packet in sink.packets)
