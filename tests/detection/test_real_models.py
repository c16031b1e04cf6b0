"""Detection with real weights on real images: backends agree, batches are exact, scores are as known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.assets import demo_model
from engine.backends.select import why_not
from engine.boxes import iou_matrix
from engine.data import Detections, Frame
from engine.detection.load import load_detector
from pipelines.scoring.detect import evaluate_detect

BACKENDS = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def frames(data_dir: Path) -> list[Frame]:
    """Two well-known images and six from COCO, all of different sizes."""
    files = sorted((data_dir / "images" / "assets").glob("*.jpg"))
    files += sorted((data_dir / "images" / "coco128_train" / "images").glob("*.jpg"))[:6]
    return [Frame(cv2.imread(str(path)), "a", index, 0, 0) for index, path in enumerate(files)]


def skip_without(*backends: str) -> None:
    for name in backends:
        if obstacle := why_not(name):
            pytest.skip(f"backend {name}: {obstacle}")


def assert_equal(left: Detections, right: Detections, iou: float, score: float) -> None:
    """Every box has a partner of the same class, matched by overlap, because boxes of equal score may change order."""
    assert len(left) == len(right)
    if not len(left):
        return
    overlap = iou_matrix(left.xyxy, right.xyxy) * (left.class_id[:, None] == right.class_id[None])
    partner = overlap.argmax(axis=1)
    assert sorted(partner.tolist()) == list(range(len(right)))
    assert overlap.max(axis=1).min() >= iou
    assert np.abs(left.score - right.score[partner]).max() <= score


@pytest.mark.parametrize("model", ["yolov8n_fp32_dequantised.onnx", "yolox_nano", "nanodet_320.onnx", "demo"])
def test_backends_find_the_same_boxes(data_dir: Path, frames: list[Frame], model: str) -> None:
    skip_without(*BACKENDS)
    path = demo_model() if model == "demo" else data_dir / "models" / model
    found = []
    for backend in BACKENDS:
        with load_detector(path, backend=backend, score_threshold=0.25) as detector:
            found.append(detector.detect(frames[:4]))
    assert sum(map(len, found[0])) > 8
    for left, right in zip(*found, strict=True):
        assert_equal(left, right, iou=0.99, score=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_is_exactly_its_frames(frames: list[Frame], backend: str) -> None:
    """Frames of different sizes; the tolerance is one rounding of single precision at 640 pixels."""
    skip_without(backend)
    with load_detector(demo_model(), backend=backend, max_batch=4, depth=2) as detector:
        together = detector.detect(frames)
        alone = [detector.detect([frame])[0] for frame in frames]
    assert sum(map(len, together)) > 8
    for left, right in zip(together, alone, strict=True):
        np.testing.assert_array_equal(left.class_id, right.class_id)
        np.testing.assert_allclose(left.score, right.score, atol=1e-5)
        np.testing.assert_allclose(left.xyxy, right.xyxy, atol=1e-2)


@pytest.mark.parametrize("performance", ["latency", "throughput"])
def test_the_way_of_running_changes_no_result(data_dir: Path, frames: list[Frame], performance: str) -> None:
    skip_without("openvino")
    model = data_dir / "models" / "yolox_nano"
    with load_detector(model, backend="openvino", performance=performance, depth=3) as detector:  # type: ignore[arg-type]
        found = detector.detect(frames)
    with load_detector(model, backend="openvino", performance="latency", depth=1) as detector:
        for left, right in zip(found, detector.detect(frames), strict=True):
            assert_equal(left, right, iou=0.999, score=1e-4)


def test_a_compiled_model_is_kept_for_the_next_start(data_dir: Path, frames: list[Frame], tmp_path: Path) -> None:
    skip_without("openvino")
    model = data_dir / "models" / "yolox_nano"
    for _ in range(2):
        with load_detector(model, backend="openvino", cache_dir=tmp_path) as detector:
            found = detector.detect(frames[:1])
    assert list(tmp_path.iterdir())
    with load_detector(model, backend="openvino") as detector:
        assert_equal(found[0], detector.detect(frames[:1])[0], iou=0.999, score=1e-4)


def test_people_and_the_bus_are_found(data_dir: Path) -> None:
    skip_without("openvino")
    image = cv2.imread(str(data_dir / "images" / "assets" / "bus.jpg"))
    with load_detector(data_dir / "models" / "yolo11n_int8_openvino_model") as detector:
        [found] = detector.detect([Frame(image, "a", 0, 0, 0)])
    names = [detector.class_names[class_id] for class_id in found.class_id]
    assert names.count("bus") == 1
    assert names.count("person") == 4


def test_a_pose_model_finds_shoulders_above_hips(data_dir: Path) -> None:
    skip_without("openvino")
    image = cv2.imread(str(data_dir / "images" / "assets" / "bus.jpg"))
    with load_detector(data_dir / "models" / "yolov8n_pose_int8_openvino_model") as detector:
        [found] = detector.detect([Frame(image, "a", 0, 0, 0)])
    points = found[found.score > 0.6].extra["keypoints"]
    assert points.shape[1:] == (17, 3)
    assert len(points) >= 3
    shoulders, hips = points[:, 5:7, 1].mean(axis=1), points[:, 11:13, 1].mean(axis=1)
    assert (shoulders < hips).all()


@pytest.mark.parametrize(
    ("model", "backend", "map50", "map50_95"),
    [
        pytest.param("yolox_nano", "openvino", 0.509, 0.326, id="YOLOX-nano on OpenVINO"),
        pytest.param("yolo11n_int8_320.onnx", "onnxruntime", 0.448, 0.324, id="YOLO11n INT8 on ONNX Runtime"),
    ],
)
def test_average_precision_is_as_known(data_dir: Path, model: str, backend: str, map50: float, map50_95: float) -> None:
    """128 images; the known figures were measured with another implementation."""
    skip_without(backend)
    scores = evaluate_detect(data_dir / "models" / model, data_dir / "images" / "coco128_train", backend=backend)
    assert (scores.images, scores.objects) == (128, 929)
    assert scores.map50 == pytest.approx(map50, abs=0.01)
    assert scores.map50_95 == pytest.approx(map50_95, abs=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nanodet_keeps_the_aspect_and_stretched_scores_what_is_known(data_dir: Path, backend: str) -> None:
    """The known figure was measured with stretched frames; this model was trained with the aspect kept."""
    skip_without(backend)
    model, images = data_dir / "models" / "nanodet_320.onnx", data_dir / "images" / "coco128_train"
    stretched = evaluate_detect(model, images, backend=backend, letterbox="stretch")
    assert stretched.map50 == pytest.approx(0.426, abs=0.01)
    assert stretched.map50_95 == pytest.approx(0.282, abs=0.01)
    kept = evaluate_detect(model, images, backend=backend)
    assert kept.map50 == pytest.approx(0.484, abs=0.01)
    assert kept.map50_95 == pytest.approx(0.306, abs=0.01)
