"""What every detector must do: the model detector on each backend, on a model with known results."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.backends.select import why_not
from engine.data import Frame
from engine.detection.classic import MotionDetector
from engine.detection.detector import ModelDetector
from engine.detection.load import load_detector
from engine.detection.tiles import TiledDetector
from engine.errors import ConfigError
from engine.protocols import Detector
from engine.testing import DETECTOR_CHECKS, name_of
from tests.fakes import PixelDetector
from tests.onnx_models import save_constant_model

METADATA = {"task": "detect", "names": "{0: 'person', 1: 'car', 2: 'dog'}", "imgsz": "[64, 64]", "stride": "32"}
Make = Callable[..., ModelDetector]


def output() -> np.ndarray:
    """(7, 84): a person over the left half of the frame and its duplicate, a car, and a faint dog."""
    table = np.zeros((7, 84), np.float32)
    table[:, 3] = [16, 32, 32, 32, 0.9, 0, 0]
    table[:, 4] = [17, 32, 32, 32, 0.8, 0, 0]
    table[:, 9] = [48, 32, 16, 16, 0, 0.6, 0.1]
    table[:, 11] = [48, 32, 16, 16, 0, 0, 0.1]
    return table


@pytest.fixture(params=["onnxruntime", "openvino"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if obstacle := why_not(request.param):
        pytest.skip(f"backend {request.param}: {obstacle}")

    def load(batch: int | str = "batch", **options: object) -> ModelDetector:
        path = save_constant_model(tmp_path / "known.onnx", [output()], metadata=METADATA, batch=batch)
        return load_detector(path, backend=request.param, **options)  # type: ignore[arg-type]

    return load


@pytest.fixture
def detector(make: Make) -> Iterator[ModelDetector]:
    with make(max_batch=3, depth=2) as detector:
        yield detector


def frame(width: int = 128, height: int = 128, frame_id: int = 0) -> Frame:
    return Frame(np.zeros((height, width, 3), np.uint8), "a", frame_id, 0, 0)


def test_it_is_a_detector(detector: ModelDetector) -> None:
    assert isinstance(detector, Detector)
    assert detector.name == "known.onnx"
    assert detector.class_names == ("person", "car", "dog")
    assert (detector.max_batch, detector.depth) == (3, 2)


def test_boxes_are_in_pixels_of_the_frame(detector: ModelDetector) -> None:
    [found] = detector.submit([frame()]).result()
    assert found.class_id.tolist() == [0, 1]
    np.testing.assert_allclose(found.score, [0.9, 0.6], atol=1e-6)
    np.testing.assert_allclose(found.xyxy, [[0, 32, 64, 96], [80, 48, 112, 80]], atol=1e-4)


def test_frames_of_different_sizes_share_a_batch(detector: ModelDetector) -> None:
    found = detector.submit([frame(64, 64), frame(128, 64), frame(256, 256)]).result()
    np.testing.assert_allclose(found[0].xyxy[0], [0, 16, 32, 48], atol=1e-4)
    np.testing.assert_allclose(found[1].xyxy[0], [0, 0, 64, 64], atol=1e-4)  # clipped at the border of the frame
    np.testing.assert_allclose(found[2].xyxy[0], [0, 64, 128, 192], atol=1e-4)


def test_any_number_of_frames_is_detected_in_order(detector: ModelDetector) -> None:
    found = detector.detect([frame(64 + 64 * index, 64 + 64 * index) for index in range(8)])
    assert [len(one) for one in found] == [2] * 8
    np.testing.assert_allclose([one.xyxy[0, 2] for one in found], [32 * (index + 1) for index in range(8)], atol=1e-3)
    assert detector.detect([]) == []


def test_a_model_of_fixed_batch_takes_fewer_frames(make: Make) -> None:
    with make(batch=2) as detector:
        assert detector.max_batch == 2
        assert [len(found) for found in detector.detect([frame()] * 3)] == [2, 2, 2]


def test_a_model_of_batch_one_takes_one_frame(make: Make) -> None:
    with make(batch=1, max_batch=4) as detector:
        assert detector.max_batch == 1
        assert len(detector.detect([frame()] * 3)) == 3


def test_it_opens_by_itself_to_detect(make: Make) -> None:
    detector = make()
    assert len(detector.detect([frame()])[0]) == 2
    detector.close()
    detector.close()


def test_closed_it_refuses_frames(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"open\(\)"):
        make().submit([frame()])


def test_too_many_or_no_frames_are_refused(detector: ModelDetector) -> None:
    for count in (0, 4):
        with pytest.raises(ConfigError, match="expected 1 to 3"):
            detector.submit([frame()] * count)


def test_a_picture_on_its_own_needs_no_more_than_its_pixels(detector: ModelDetector) -> None:
    picture = np.zeros((128, 128, 3), np.uint8)
    [found] = detector.detect([Frame(picture)])
    assert found.class_id.tolist() == [0, 1]
    with pytest.raises(ConfigError, match=r"ndarray submitted: expected frames, make one with Frame\(image\)"):
        detector.detect([picture])  # type: ignore[list-item]


def test_results_come_on_another_thread(detector: ModelDetector) -> None:
    pending = [detector.submit([frame()]) for _ in range(detector.depth)]
    counts: list[int] = []
    thread = threading.Thread(target=lambda: counts.extend(len(one.result()[0]) for one in pending))
    thread.start()
    thread.join()
    assert counts == [2, 2]


def test_each_step_is_timed(detector: ModelDetector) -> None:
    pending = detector.submit([frame()])
    pending.result()
    assert set(pending.stage_ms) == {"preprocess", "infer", "postprocess", "nms"}
    assert all(spent >= 0 for spent in pending.stage_ms.values())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"score_threshold": 0.7}, [0], id="score"),
        pytest.param({"score_threshold": 0.05}, [0, 1, 2], id="low score"),
        pytest.param({"iou_threshold": 0.99}, [0, 0, 1], id="overlap"),
        pytest.param({"classes": ["Car"]}, [1], id="class by name"),
        pytest.param({"classes": [0, "1"]}, [0, 1], id="class by id"),
        pytest.param({"classes": ["dog"]}, [], id="class that is not there"),
    ],
)
def test_thresholds_and_classes_choose(make: Make, options: dict[str, object], expected: list[int]) -> None:
    with make(**options) as detector:
        assert detector.detect([frame()])[0].class_id.tolist() == expected


def test_classes_keep_the_best_class_of_a_box(make: Make) -> None:
    """A box whose best class is not wanted is not reported under its second-best class."""
    with make(classes=["dog"], score_threshold=0.05) as detector:
        [found] = detector.detect([frame()])
    np.testing.assert_allclose(found.score, [0.1])
    assert found.class_id.tolist() == [2]


def test_frames_are_not_changed(detector: ModelDetector) -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    before = image.copy()
    detector.detect([Frame(image, "a", 0, 0, 0)])
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("check", DETECTOR_CHECKS, ids=name_of)
@pytest.mark.parametrize("kind", ["model", "tiles", "motion", "fake"])
def test_it_keeps_the_public_contract(make: Make, kind: str, check: Callable[[Callable[[], Detector]], None]) -> None:
    kinds: dict[str, Callable[[], Detector]] = {
        "model": make,
        "tiles": lambda: TiledDetector(make(), (64, 64)),
        "motion": MotionDetector,
        "fake": PixelDetector,
    }
    check(kinds[kind])
