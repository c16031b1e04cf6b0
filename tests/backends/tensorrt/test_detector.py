"""The detector on the fake GPU: its results do not depend on where frames are letterboxed and heads are read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backends.base import BackendOptions, ImageInput
from engine.boxes import iou_matrix
from engine.data import Detections, Frame
from engine.detection.detector import ModelDetector
from engine.detection.feeding import LetterboxOn
from engine.detection.letterbox import fit
from engine.detection.load import load_detector
from engine.errors import ConfigError
from engine.sources.live.pixels import DecodedImage
from engine.video.to_bgr import BgrConverter
from tests.backends.tensorrt.fake_gpu import FakeMachine
from tests.backends.tensorrt.gpu_detector import gpu_detector
from tests.onnx_models import save_constant_model

SIDE, ANCHORS, CLASSES = 128, 336, 30
PROTOTYPES = np.random.default_rng(2).normal(size=(32, 32, 32)).astype(np.float32)


def raw_output(rest: int, share: float = 0.05) -> NDArray[np.float32]:
    """Return (4 + classes + rest, anchors) with few levels of score, so that many tie."""
    rng = np.random.default_rng(rest)
    centres, sizes = rng.uniform(8, 120, (2, ANCHORS)), rng.uniform(4, 40, (2, ANCHORS))
    scores = rng.integers(1, 9, (CLASSES, ANCHORS)) / 8 * (rng.random((1, ANCHORS)) < share)
    return np.concatenate((centres, sizes, scores, rng.uniform(0, 3, (rest, ANCHORS)))).astype(np.float32)


def frames(count: int, width: int = 200, height: int = 160) -> list[Frame]:
    rng = np.random.default_rng(width)
    return [
        Frame(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), "camera", index, 0, 0) for index in range(count)
    ]


def assert_same(found: list[Detections], expected: list[Detections]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in ("xyxy", "score", "class_id"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert one.extra.keys() == other.extra.keys()
        for name, column in one.extra.items():
            np.testing.assert_array_equal(column, other.extra[name])


def detected(detector: ModelDetector, pictures: list[Frame]) -> list[Detections]:
    with detector:
        return detector.detect(pictures)


TASKS = [
    pytest.param("detect", 0, [], id="detect"),
    pytest.param("pose", 51, [], id="pose"),
    pytest.param("segment", 32, [PROTOTYPES], id="segment"),
    pytest.param("obb", 1, [], id="obb"),
]


def save_raw(folder: Path, task: str, rest: int, more: list[NDArray[np.float32]], share: float = 0.05) -> Path:
    metadata = {"task": task, "names": str({index: f"c{index}" for index in range(CLASSES)})}
    return save_constant_model(folder / "raw.onnx", [raw_output(rest, share), *more], SIDE, metadata)


@pytest.mark.parametrize("is_integrated", [pytest.param(False, id="discrete"), pytest.param(True, id="integrated")])
@pytest.mark.parametrize(("task", "rest", "more"), TASKS)
def test_candidates_give_the_detections_of_the_whole_head(
    task: str, rest: int, more: list[NDArray[np.float32]], is_integrated: bool, tmp_path: Path
):
    path = save_raw(tmp_path, task, rest, more)
    pictures = frames(11)
    whole = detected(load_detector(path, backend="onnxruntime", max_batch=4), pictures)
    detector = gpu_detector(path, tmp_path, is_integrated=is_integrated)
    found = detected(detector, pictures)
    assert detector.inference.outputs[0].shape == (None, 4 + 2 + rest, None)
    assert min(map(len, whole)) > 5
    assert_same(found, whole)


@pytest.mark.parametrize("is_integrated", [pytest.param(False, id="discrete"), pytest.param(True, id="integrated")])
@pytest.mark.parametrize(("task", "rest", "more"), TASKS)
def test_more_candidates_than_fit_are_not_lost(
    task: str, rest: int, more: list[NDArray[np.float32]], is_integrated: bool, tmp_path: Path
):
    path = save_raw(tmp_path, task, rest, more, share=0.9)
    pictures = frames(5)
    settings = {"iou_threshold": 0.99, "max_batch": 4}
    whole = detected(load_detector(path, backend="onnxruntime", **settings), pictures)
    found = detected(gpu_detector(path, tmp_path, is_integrated=is_integrated, **settings), pictures)
    assert min(map(len, whole)) > 100
    assert_same(found, whole)


def test_only_candidates_are_copied_and_the_whole_head_where_they_overflow(tmp_path: Path):
    copied = {}
    for share in (0.05, 0.9):
        operations: Counter[str] = Counter()
        path = save_raw(tmp_path, "detect", 0, [], share)
        with gpu_detector(path, tmp_path, before=lambda name, seen=operations: seen.update([name])) as detector:
            detector.detect(frames(1))
        copied[share] = operations["copy_to_host"]
    assert copied == {0.05: 1, 0.9: 2}


def test_a_threshold_lowered_while_running_brings_more_from_the_next_batch_on(tmp_path: Path):
    path = save_raw(tmp_path, "detect", 0, [])
    pictures = frames(3)
    with (
        gpu_detector(path, tmp_path, score_threshold=0.8) as detector,
        load_detector(path, backend="onnxruntime", max_batch=4) as reference,
    ):
        for threshold in (0.8, 0.8, 0.8, 0.8, 0.3, 0.3, 0.3, 0.3, 0.6):
            pending = detector.submit(pictures)
            detector.score_threshold = reference.score_threshold = threshold
            pending.result()
            assert_same(detector.detect(pictures), reference.detect(pictures))


def test_what_is_in_flight_keeps_the_threshold_it_was_submitted_with(tmp_path: Path):
    path = save_raw(tmp_path, "detect", 0, [])
    with gpu_detector(path, tmp_path, score_threshold=0.9) as detector:
        few = len(detector.detect(frames(1))[0])
        pending = detector.submit(frames(1))
        detector.score_threshold = 0.2
        assert len(pending.result()[0]) == few


@pytest.mark.parametrize(
    ("letterbox_on", "is_integrated"),
    [pytest.param("auto", False, id="discrete"), pytest.param("gpu", True, id="integrated, as asked for")],
)
def test_frames_letterboxed_on_the_gpu_give_the_detections_of_the_processor(
    data_dir: Path, tmp_path: Path, letterbox_on: str, is_integrated: bool
):
    """Real weights on real images of several sizes; both paths reduce them to the same pixels."""
    path = data_dir / "models" / "yolov8n_fp32_dequantised.onnx"
    files = [data_dir / "images" / "assets" / name for name in ("bus.jpg", "zidane.jpg")]
    pictures = [Frame(cv2.imread(str(file)), "a", index, 0, 0) for index, file in enumerate(files)]
    pictures.append(Frame(pictures[0].image[::-1, 100:], "a", 2, 0, 0))  # a view, as tiles are
    uploads: list[str] = []
    settings = {"max_batch": 1, "is_integrated": is_integrated}
    whole = detected(gpu_detector(path, tmp_path, letterbox_on="cpu", with_candidates=False, **settings), pictures)
    detector = gpu_detector(path, tmp_path, letterbox_on=letterbox_on, before=uploads.append, **settings)
    found = detected(detector, pictures)
    assert min(map(len, whole[:2])) >= 3
    assert_same(found, whole)
    assert uploads.count("launch") >= 2 * len(pictures)


class Kept(DecodedImage):
    """A decoded image that says whether it was converted."""

    is_converted = False

    def image(self) -> NDArray[np.uint8]:
        self.is_converted = True
        return super().image()


@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12"])
@pytest.mark.parametrize("letterbox_on", ["auto", "gpu", "cpu"])
def test_frames_that_hold_planes_go_to_the_gpu_unconverted(
    data_dir: Path, tmp_path: Path, letterbox_on: LetterboxOn, pixel_format: str
):
    """Real weights on a real image: the results equal those on the converted image."""
    path = data_dir / "models" / "yolov8n_fp32_dequantised.onnx"
    image = cv2.imread(str(data_dir / "images" / "assets" / "bus.jpg"))
    decoded = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pixel_format)
    kept = Kept(decoded, BgrConverter())
    detector = gpu_detector(path, tmp_path, letterbox_on=letterbox_on, max_batch=1)
    found = detected(detector, [Frame(kept, "a")])[0]  # type: ignore[arg-type]  # converted when it is read
    assert kept.is_converted == (letterbox_on == "cpu")
    reference = gpu_detector(path, tmp_path, letterbox_on="cpu", max_batch=1)
    expected = detected(reference, [Frame(DecodedImage(decoded, BgrConverter()).image(), "a")])[0]
    assert len(expected) >= 4
    np.testing.assert_array_equal(found.class_id, expected.class_id)
    assert iou_matrix(found.xyxy, expected.xyxy).diagonal().min() > 0.98
    np.testing.assert_allclose(found.score, expected.score, atol=0.02)


@pytest.mark.parametrize(
    ("size", "on", "expected"),
    [
        pytest.param((200, 160), "auto", "gpu", id="reduced"),
        pytest.param((SIDE, SIDE), "auto", "gpu", id="of the right size"),
        pytest.param((100, 100), "auto", "cpu", id="enlarged"),
        pytest.param((100, 100), "gpu", "gpu", id="enlarged as asked for"),
        pytest.param((640, 480), "auto", "cpu", id="too large to copy"),
        pytest.param((640, 480), "gpu", "gpu", id="large as asked for"),
        pytest.param((200, 160), "cpu", "cpu", id="as asked for"),
    ],
)
def test_where_frames_are_letterboxed(tmp_path: Path, size: tuple[int, int], on: str, expected: str):
    path = save_raw(tmp_path, "detect", 0, [])
    pinned: list[str] = []
    with gpu_detector(path, tmp_path, letterbox_on=on, before=pinned.append) as detector:
        pinned.clear()
        detector.detect(frames(2, *size))
    assert ("pinned" in pinned) == (expected == "gpu")  # the first frames need room in page-locked memory


def test_everything_is_given_back(tmp_path: Path):
    path = save_raw(tmp_path, "segment", 32, [PROTOTYPES])
    detector = gpu_detector(path, tmp_path)
    detector.open()
    cuda = detector.inference._opened()
    for size in ((200, 160), (300, 200), (100, 90)):
        detector.detect(frames(3, *size))
    detector.submit(frames(2))
    detector.close()
    assert cuda.live == 0


def test_a_frame_may_change_once_it_was_submitted(tmp_path: Path):
    backend = FakeMachine(tmp_path, SIDE).backend(BackendOptions(ImageInput((SIDE, SIDE)), max_batch=4))
    backend.open()
    image = np.full((160, 200, 3), 50, np.uint8)
    pending = backend.submit_images([image], [fit((200, 160), (SIDE, SIDE), "stretch")])
    image[:] = 200
    assert pending.result()[1] * 255 == pytest.approx(50, abs=1e-3)
    pending.release()
    backend.close()


def test_a_backend_that_cannot_letterbox_says_so(tmp_path: Path):
    path = save_raw(tmp_path, "detect", 0, [])
    with pytest.raises(ConfigError, match=r'letterbox_on is "gpu": backend onnxruntime cannot'):
        load_detector(path, backend="onnxruntime", letterbox_on="gpu").open()
    with pytest.raises(ConfigError, match=r"expected auto, cpu, gpu"):
        load_detector(path, backend="onnxruntime", letterbox_on="tpu").open()  # type: ignore[arg-type]
