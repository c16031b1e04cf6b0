"""Rectangular input: the same objects as with square input, at a size of the frame's aspect ratio."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import helper

from engine.assets import demo_model
from engine.backends.select import why_not
from engine.boxes import iou_matrix
from engine.data import Detections, Frame
from engine.detection.detector import ModelDetector
from engine.detection.input_size import sizes
from engine.detection.input_size.shapes import at_size, rectangle, why_not_rectangular
from engine.detection.load import load_detector
from engine.detection.model import inspect_model
from engine.errors import ModelError
from tests.onnx_models import save_model

BACKENDS = ("openvino", "onnxruntime")
SIDE = 64
STRIDES = (8, 16, 32)


def save_cells(path: Path, *, extra: np.ndarray | None = None) -> Path:
    """Write a raw Ultralytics head of fixed size whose only class scores the brightness of each cell.

    Its anchors and strides are constants, its reshapes name the number of cells, as an export has them.
    """
    nodes, weights, names = [], {}, []
    source = "images"
    if extra is not None:
        weights["position"] = extra
        nodes.append(helper.make_node("Add", ["images", "position"], ["moved"]))
        source = "moved"
    for stride in STRIDES:
        pool = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        nodes.append(helper.make_node("AveragePool", [source], [f"pool{stride}"], **pool))
        nodes.append(helper.make_node("Reshape", [f"pool{stride}", f"to{stride}"], [f"row{stride}"]))
        weights[f"to{stride}"] = np.array([1, 3, (SIDE // stride) ** 2])
        names.append(f"row{stride}")
    middles, steps = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: SIDE // stride, : SIDE // stride]
        middles.append(np.stack((x.ravel() + 0.5, y.ravel() + 0.5)))
        steps.append(np.full(x.size, stride))
    weights["middles"] = np.concatenate(middles, axis=1)[None].astype(np.float32)
    weights["steps"] = np.concatenate(steps)[None, None].astype(np.float32)
    weights |= {"one": np.ones((1, 2, 1), np.float32), "channels": np.array([1, 2])}
    nodes += [
        helper.make_node("Concat", names, ["score"], axis=2),
        helper.make_node("Mul", ["middles", "steps"], ["centre"]),
        helper.make_node("Mul", ["one", "steps"], ["size"]),
        helper.make_node("Split", ["score", "channels"], ["first", "others"], axis=1),
        helper.make_node("Concat", ["centre", "size", "first"], ["output0"], axis=1),
    ]
    return save_model(path, nodes, {"images": (1, 3, SIDE, SIDE)}, {"output0": (1, 5, 84)}, weights, {"stride": "32"})


def frame(width: int, height: int, spot_xy: tuple[int, int] = (16, 16)) -> Frame:
    """A dark frame with one bright square of 16 pixels."""
    image = np.zeros((height, width, 3), np.uint8)
    image[spot_xy[1] : spot_xy[1] + 16, spot_xy[0] : spot_xy[0] + 16] = 255
    return Frame(image, "a", 0, 0, 0)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if obstacle := why_not(request.param):
        pytest.skip(f"backend {request.param}: {obstacle}")
    return str(request.param)


@pytest.mark.parametrize(
    ("size_wh", "expected"),
    [
        pytest.param((1920, 1080), (384, 640), id="16:9"),
        pytest.param((768, 576), (480, 640), id="4:3"),
        pytest.param((1080, 1920), (640, 384), id="portrait"),
        pytest.param((100, 100), (640, 640), id="square"),
        pytest.param((5000, 10), (32, 640), id="one row of pixels"),
        pytest.param((1, 1), (640, 640), id="one pixel"),
    ],
)
def test_a_rectangle_is_the_smallest_of_the_stride_that_holds_the_aspect(
    tmp_path: Path, size_wh: tuple[int, int], expected: tuple[int, int]
) -> None:
    nodes = [helper.make_node("Identity", ["images"], ["output0"])]
    model = save_model(tmp_path / "m.onnx", nodes, {"images": (1, 3, 640, 640)}, {"output0": (1, 84, 8400)})
    facts = inspect_model(model)
    assert rectangle(size_wh, facts) == expected
    assert at_size(facts, expected).layout.outputs[0].shape[2] == sum(
        (expected[0] // stride) * (expected[1] // stride) for stride in STRIDES
    )


@pytest.mark.parametrize("size_wh", [(64, 30), (30, 64), (128, 40)])
def test_a_fixed_graph_gives_the_same_boxes_at_the_size_of_the_frame(
    tmp_path: Path, backend: str, size_wh: tuple[int, int]
) -> None:
    """Cells of this model see nothing beyond themselves; a border of 8 pixels keeps the grids of both in step."""
    model = save_cells(tmp_path / "cells.onnx")
    given = {"backend": backend, "score_threshold": 0.6, "letterbox": "top_left"}
    with load_detector(model, **given) as square, load_detector(model, **given, size="auto") as fitted:  # type: ignore[arg-type]
        [expected], [found] = square.detect([frame(*size_wh)]), fitted.detect([frame(*size_wh)])
        assert min(fitted.size_hw) == 32
        assert square.size_hw == (SIDE, SIDE)
    assert len(expected)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-4)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-6)


def test_cameras_of_several_aspects_have_a_size_each(tmp_path: Path, backend: str) -> None:
    wide, tall, square = frame(128, 50), frame(50, 128), frame(70, 70)
    with load_detector(save_cells(tmp_path / "m.onnx"), backend=backend, score_threshold=0.6, size="auto") as detector:
        depth = detector.depth
        alone = [detector.detect([one])[0] for one in (wide, tall, square)]
        together = detector.detect([wide, tall, square, tall, wide])
        assert detector.depth == depth
    for found, expected in zip(together, [alone[0], alone[1], alone[2], alone[1], alone[0]], strict=True):
        np.testing.assert_array_equal(found.xyxy, expected.xyxy)
        assert len(found)


def test_a_batch_of_several_aspects_comes_back_in_order(tmp_path: Path) -> None:
    if obstacle := why_not("openvino"):
        pytest.skip(f"backend openvino: {obstacle}")
    frames = [frame(64, 30), frame(30, 64), frame(64, 30, (40, 5)), frame(64, 64)]
    with load_detector(demo_model(), size="auto", max_batch=4, score_threshold=0.0001, backend="openvino") as detector:
        pending = detector.submit(frames)
        together = pending.result()
        assert {"preprocess", "infer", "nms", "postprocess"} <= set(pending.stage_ms)
        alone = [detector.detect([one])[0] for one in frames]
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=0.05)


def test_a_graph_that_depends_on_its_size_stays_at_it(
    tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An embedding of positions, as transformers have it, fits no other size."""
    embedding = np.random.default_rng(1).random((1, 3, SIDE, SIDE)).astype(np.float32) * 1e-3
    model = save_cells(tmp_path / "m.onnx", extra=embedding)
    with caplog.at_level(logging.INFO, "engine.detection.input_size.sizes"):
        with load_detector(model, backend=backend, score_threshold=0.6, size="auto") as detector:
            [found] = detector.detect([frame(128, 50)])
            assert detector.size_hw == (SIDE, SIDE)
        assert len(found)
    assert "stays at its own size" in caplog.text


def test_the_size_that_was_guessed_is_freed_when_no_frame_has_it(tmp_path: Path, backend: str) -> None:
    detector = load_detector(save_cells(tmp_path / "m.onnx"), backend=backend, size="auto")
    with detector:
        guessed = detector.inference
        assert detector.size_hw == (SIDE, SIDE)  # 16:9 of 64 pixels is 36 rows
        detector.detect([frame(128, 40)])
        assert detector.size_hw == (32, SIDE)
        assert detector.inference is not guessed


def test_sizes_are_few_and_further_aspects_take_that_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "MAX_SHAPES", 1)
    detector = load_detector(
        save_cells(tmp_path / "m.onnx"), backend="onnxruntime", size="auto", expected_wh=[(128, 40)]
    )
    with detector:
        frames = frame(128, 40), frame(40, 128), frame(64, 64)
        opened = [detector._sizes.of(one).facts.size_hw for one in frames]
    assert opened == [(32, 64), (64, 64), (64, 64)]


def test_sizes_that_are_expected_are_loaded_at_once(tmp_path: Path, backend: str) -> None:
    model = save_cells(tmp_path / "m.onnx")
    detector = load_detector(model, backend=backend, size="auto", expected_wh=[(40, 128), (128, 40)])
    with detector:
        assert detector.size_hw == (64, 32)


def test_a_broken_model_is_refused_at_any_size(tmp_path: Path, backend: str) -> None:
    model = save_cells(tmp_path / "m.onnx")
    detector = load_detector(model, backend=backend, size="auto")
    model.write_bytes(model.read_bytes()[:200])
    with pytest.raises(ModelError):
        detector.open()
    detector.close()


def test_models_that_stretch_their_frames_have_no_border_to_leave_out(tmp_path: Path) -> None:
    facts = inspect_model(save_cells(tmp_path / "m.onnx"), letterbox="stretch")
    assert "stretched" in (why_not_rectangular(facts) or "")
    with pytest.raises(ModelError, match="stretched"):
        at_size(facts, (32, 64))


@pytest.fixture
def photographs(data_dir: Path) -> list[Frame]:
    """Frames of 16:9 and 4:3 with large objects."""
    zidane = cv2.imread(str(data_dir / "images" / "assets" / "zidane.jpg"))
    bus = cv2.imread(str(data_dir / "images" / "assets" / "bus.jpg"))
    return [Frame(image, "a", index, 0, 0) for index, image in enumerate((zidane, bus))]


def best_overlaps(square: Detections, fitted: Detections) -> np.ndarray:
    """Return the (N,) best IoU that each sure object of the square has with one of its class in the rectangle."""
    wanted = sure(square)
    overlap = iou_matrix(wanted.xyxy, fitted.xyxy) * (wanted.class_id[:, None] == fitted.class_id[None])
    return np.asarray(overlap.max(axis=1, initial=0))


def sure(found: Detections) -> Detections:
    return found[found.score > 0.5]


@pytest.mark.parametrize(
    "name",
    [
        "yolo11n_int8_openvino_model",
        "yolov8n_pose_int8_openvino_model",
        "yolov8n_fp32_dequantised.onnx",
        "yolov8n_int8.onnx",
        "yolo11n_int8_320.onnx",
        "yolox_nano",
        "nanodet_320.onnx",
        "demo",
    ],
)
def test_real_models_find_the_same_objects(data_dir: Path, photographs: list[Frame], backend: str, name: str) -> None:
    """What surrounds an object differs, border or the edge of the image: a shift of a few pixels costs as much."""
    model = demo_model() if name == "demo" else data_dir / "models" / name
    if backend == "onnxruntime" and Path(model).is_dir() and name.endswith("openvino_model"):
        pytest.skip("an OpenVINO folder runs on OpenVINO only")
    found: dict[str | None, list[Detections]] = {}
    sizes: dict[str | None, ModelDetector] = {}
    for size in (None, "auto"):
        sizes[size] = load_detector(model, backend=backend, size=size, score_threshold=0.25)  # type: ignore[arg-type]
        with sizes[size] as detector:
            found[size] = detector.detect(photographs)
            if size == "auto":
                assert detector.size_hw[0] < detector.facts.size_hw[0]
    assert sum(len(sure(one)) for one in found[None]) >= 2
    overlaps = [best_overlaps(*pair) for pair in zip(found[None], found["auto"], strict=True)]
    assert np.median(np.concatenate(overlaps)) > 0.75
    assert np.concatenate(overlaps).min() > 0.5
