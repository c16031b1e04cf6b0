from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.boxes import iou_matrix
from engine.data import Frame
from engine.detection.classic import HogPeopleDetector, MotionDetector
from engine.errors import ConfigError, MissingDependencyError
from engine.protocols import Detector


def scene(frame_id: int, source_id: str = "a", moving: bool = True) -> Frame:
    """A still textured room with a bright square that moves right by four pixels per frame."""
    image = np.random.default_rng(0).integers(90, 110, (240, 320, 3), dtype=np.uint8)
    if moving:
        left = 20 + 4 * frame_id
        image[100:140, left : left + 40] = 250
    return Frame(image, source_id, frame_id, frame_id, 0)


def test_a_moving_square_is_found_where_it_is() -> None:
    detector = MotionDetector()
    assert isinstance(detector, Detector)
    detector.detect([scene(index, moving=False) for index in range(20)])
    found = [detector.submit([scene(index)]).result()[0] for index in range(20)]
    assert all(len(one) >= 1 for one in found[2:])
    left = 20 + 4 * 19
    assert iou_matrix(found[-1].xyxy[:1], np.float32([[left, 100, left + 40, 140]]))[0, 0] > 0.5
    assert (found[-1].score > 0).all()


def test_a_still_scene_shows_nothing() -> None:
    detector = MotionDetector()
    assert [len(one) for one in detector.detect([scene(index, moving=False) for index in range(30)])] == [0] * 30


def test_each_source_has_its_own_background() -> None:
    detector = MotionDetector()
    detector.detect([scene(index, "a", moving=False) for index in range(10)])
    assert len(detector.detect([scene(0, "b")])[0]) == 0  # the first frame of a source is its background
    assert len(detector.detect([scene(11, "a")])[0]) == 1
    detector.close()
    assert len(detector.detect([scene(12, "a")])[0]) == 0


def test_pedestrians_of_a_still_camera_move(data_dir: Path) -> None:
    capture = cv2.VideoCapture(str(data_dir / "videos" / "vtest.avi"))
    frames = [Frame(capture.read()[1], "a", index, index, 0) for index in range(60)]
    found = MotionDetector().detect(frames)[-1]
    assert 2 <= len(found) <= 20
    assert (found.xyxy[:, 2:] <= [768, 576]).all()


@pytest.mark.parametrize("options", [{"min_area": 0}, {"history": 1}, {"sensitivity": 0}, {"scale_to": 8}])
def test_motion_arguments_that_cannot_work_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected a share"):
        MotionDetector(**options)  # type: ignore[arg-type]


def test_people_are_found_by_hog_or_it_says_what_is_missing(data_dir: Path) -> None:
    if not hasattr(cv2, "HOGDescriptor"):
        with pytest.raises(MissingDependencyError, match="no-deps opencv-contrib-python"):
            HogPeopleDetector()
        return
    capture = cv2.VideoCapture(str(data_dir / "videos" / "vtest.avi"))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 100)
    [found] = HogPeopleDetector().detect([Frame(capture.read()[1], "a", 0, 0, 0)])
    walkers = np.float32([[346, 199, 378, 275], [590, 154, 618, 235]])  # as yolo11n sees them
    assert (iou_matrix(walkers, found.xyxy).max(axis=1) > 0.4).all()
    assert (np.diff(found.score) <= 0).all()


@pytest.mark.parametrize("options", [{"score_threshold": 2}, {"stride": 5}, {"scale": 1.0}])
def test_hog_arguments_that_cannot_work_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="a multiple of 8"):
        HogPeopleDetector(**options)  # type: ignore[arg-type]
