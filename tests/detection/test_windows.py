"""Windows of a frame through real models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.assets import demo_model
from engine.backends.select import why_not
from engine.boxes import iou_matrix
from engine.data import Frame
from engine.detection.detector import ModelDetector
from engine.detection.input_size.windows import STRIDES_WH
from engine.detection.load import load_detector
from engine.detection.tiles import TiledDetector
from engine.errors import ConfigError
from engine.flow.attention.attention import DetectsInWindows
from engine.flow.attention.cover import Grid, cover
from engine.flow.attention.geometry import in_model, is_inside
from tests.detection.test_shapes import save_cells

FILE = "file"


@pytest.fixture(scope="module")
def detector() -> Iterator[ModelDetector]:
    if obstacle := why_not("onnxruntime"):
        pytest.skip(obstacle)
    with load_detector(demo_model(), backend="onnxruntime", size="auto") as opened:
        yield opened


@pytest.fixture(scope="module")
def frame() -> Frame:
    """The first frame of the embedded clip."""
    from engine.assets import demo_clip

    capture = cv2.VideoCapture(str(demo_clip()))
    _, image = capture.read()
    capture.release()
    return Frame(np.asarray(image, np.uint8), captured_source="file")


def test_a_window_shows_what_the_whole_frame_shows_there(detector: ModelDetector, frame: Frame) -> None:
    place = detector.window_grid(frame, wait=True)
    assert place is not None
    placement, grid = place
    [whole] = detector.submit_windows(frame, None).result()
    assert whole.window is None
    np.testing.assert_array_equal(whole.detections.xyxy, detector.detect([frame])[0].xyxy)
    sure = whole.detections[whole.detections.score > 0.5]
    boxes = in_model(sure.xyxy, placement)
    overlaps = []
    for width, height in {(32 * w, 32 * h) for w, h in grid.sizes}:
        for box, given in zip(boxes, sure.xyxy, strict=True):
            middle = (box[:2] + box[2:]) / 2 - (width / 2, height / 2)
            left, top = (
                int(np.clip(round(side / 32) * 32, 0, limit))
                for side, limit in zip(middle, (32 * grid.columns - width, 32 * grid.rows - height), strict=True)
            )
            window = left, top, left + width, top + height
            if not is_inside(box[None], window, (32 * grid.columns, 32 * grid.rows), by=16)[0]:
                continue
            [part] = detector.submit_windows(frame, [window]).result()
            overlaps.append(float(iou_matrix(given[None], part.detections.xyxy).max(initial=0)))
    assert len(overlaps) >= 10
    assert np.mean(np.array(overlaps) > 0.7) >= 0.95


def test_several_windows_of_one_frame_are_one_submission(detector: ModelDetector, frame: Frame) -> None:
    place = detector.window_grid(frame, wait=True)
    assert place is not None
    windows = [
        (0, 0, 192, 192),
        (32, 0, 224, 192),
        (64, 32, 256, 224),
        (0, 32, 192, 224),
        (0, 0, 192, 192),
        (32, 32, 224, 224),
    ]
    under_way = [detector.submit_windows(frame, windows) for _ in range(detector.depth)]
    for pending in under_way:
        parts = pending.result()
        assert [part.window for part in parts] == windows
        np.testing.assert_array_equal(parts[0].detections.xyxy, parts[4].detections.xyxy)
        assert {"preprocess", "infer", "nms", "postprocess"} <= pending.stage_ms.keys()


def test_privacy_sees_weak_boxes_of_windows(detector: ModelDetector, frame: Frame) -> None:
    detector.window_grid(frame, wait=True)
    detector.also_find(range(len(detector.class_names)), 0.15)
    try:
        [whole] = detector.submit_windows(frame, None).result()
        plain = detector.detect([frame])[0]
        assert plain.unreported is not None
        assert whole.detections.unreported is not None
        assert sorted(whole.detections.unreported.score) == pytest.approx(sorted(plain.unreported.score))
    finally:
        detector.also_find([], 0.15)


def test_a_size_that_is_not_loaded_is_refused(detector: ModelDetector, frame: Frame) -> None:
    detector.window_grid(frame, wait=True)
    with pytest.raises(ConfigError, match="no window of 64 x 64"):
        detector.submit_windows(frame, [(0, 0, 64, 64)])


def test_windows_are_loaded_in_the_background_for_a_camera(frame: Frame) -> None:
    with load_detector(demo_model(), backend="onnxruntime", size="auto") as opened:
        assert opened.window_grid(frame, wait=False) is None
        assert len(opened.detect([frame])) == 1
        assert opened.window_grid(frame, wait=True) is not None


def test_a_model_that_keeps_its_size_says_so_once(frame: Frame, caplog: pytest.LogCaptureFixture) -> None:
    with load_detector(demo_model(), backend="onnxruntime", letterbox="stretch") as opened:
        assert opened.window_grid(frame, wait=True) is None
        assert opened.window_grid(frame, wait=True) is None
        assert len(opened.detect([frame])) == 1
    assert len([one for one in caplog.records if "windows are not used" in one.message]) == 1


def test_a_model_smaller_than_any_window_has_none(tmp_path: Path, frame: Frame) -> None:
    with load_detector(save_cells(tmp_path / "m.onnx"), backend="onnxruntime", size="auto") as opened:
        assert opened.window_grid(frame, wait=True) is None


@pytest.mark.parametrize("place", [(7, 12), (8, 11), (12, 7), (11, 8)], ids=str)
def test_what_is_high_gets_no_larger_a_window_than_what_is_wide(place: tuple[int, int]) -> None:
    """A person who is as tall as the frame is half as wide."""
    grid = Grid.of((640, 384), 32, [(32 * w, 32 * h) for w, h in STRIDES_WH])
    needed = grid.nothing()
    needed[: place[1], 2 : 2 + place[0]] = 1
    [(left, top, right, bottom)] = cover(needed, grid) or [(0, 0, 640, 384)]
    assert (right - left) * (bottom - top) <= 32 * 32 * 8 * 12


def test_tiles_have_no_windows(detector: ModelDetector) -> None:
    assert isinstance(detector, DetectsInWindows)
    assert not isinstance(TiledDetector(detector), DetectsInWindows)
