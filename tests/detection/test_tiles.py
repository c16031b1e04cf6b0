from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data import Detections, Frame
from engine.detection.load import load_detector
from engine.detection.tiles import TiledDetector, merge, tiles
from engine.errors import ConfigError
from engine.protocols import Detector

FRAME = Frame(np.zeros((100, 180, 3), np.uint8), "a", 0, 0, 0)
LEFT, RIGHT, WHOLE = (0, 0, 100, 100), (80, 0, 180, 100), (0, 0, 180, 100)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 900), st.integers(32, 900), st.floats(0, 0.9))
def test_tiles_cover_the_frame_and_overlap(width: int, height: int, side: int, rows: int, overlap: float) -> None:
    places = np.array(tiles(width, height, (side, rows), overlap))
    assert (places[:, :2] >= 0).all()
    assert (places[:, 2:] <= [width, height]).all()
    assert (places[:, 2:] - places[:, :2] == [min(side, width), min(rows, height)]).all()
    starts = np.unique(places[:, 0])
    assert starts[0] == 0
    assert starts[-1] + min(side, width) == width
    if len(starts) > 1:
        assert np.diff(starts).max() <= side * (1 - overlap) + 1


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5])


def test_boxes_move_to_their_place_in_the_frame() -> None:
    merged = merge(FRAME, [LEFT, RIGHT], [found((10, 10, 20, 20, 0.5, 1)), found((50, 5, 60, 15, 0.9, 2))], 0.5)
    assert merged.xyxy.tolist() == [[130, 5, 140, 15], [10, 10, 20, 20]]
    assert merged.class_id.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        pytest.param((82, 10, 95, 30, 0.5, 0), (2, 10, 15, 30, 0.9, 0), [[82, 10, 95, 30]], id="the same box twice"),
        pytest.param((70, 10, 95, 30, 0.5, 0), (0, 10, 15, 30, 0.9, 0), [[70, 10, 95, 30]], id="whole beats cut"),
        pytest.param((82, 10, 95, 30, 0.5, 0), (2, 10, 15, 30, 0.9, 1), None, id="other class"),
        pytest.param((82, 10, 95, 30, 0.5, 0), (2, 50, 15, 70, 0.9, 0), None, id="apart"),
    ],
)
def test_an_object_on_a_seam_is_reported_once(left, right, expected) -> None:  # type: ignore[no-untyped-def]
    merged = merge(FRAME, [LEFT, RIGHT], [found(left), found(right)], 0.5)
    assert len(merged) == (2 if expected is None else 1)
    if expected is not None:
        assert merged.xyxy.tolist() == expected


def test_the_whole_frame_joins_the_halves_of_a_large_object() -> None:
    halves = [found((40, 10, 100, 90, 0.9, 0)), found((0, 10, 60, 90, 0.9, 0))]
    merged = merge(FRAME, [LEFT, RIGHT, WHOLE], [*halves, found((40, 10, 140, 90, 0.6, 0))], 0.5)
    assert merged.xyxy.tolist() == [[40, 10, 140, 90]]


def test_a_piece_that_ends_near_the_border_of_a_large_tile_gives_way_to_the_whole() -> None:
    frame = Frame(np.zeros((720, 1280, 3), np.uint8), "a", 0, 0, 0)
    places = [(390, 0, 890, 720), (0, 0, 1280, 720)]
    piece, whole = found((4.2, 197, 497.1, 718, 0.91, 0)), found((154, 204, 1074, 706, 0.88, 0))
    assert merge(frame, places, [piece, whole], 0.5).xyxy.tolist() == [[154, 204, 1074, 706]]


def test_columns_of_a_task_move_with_their_box() -> None:
    mask = np.zeros((2, 100, 100), bool)
    mask[0, 20:30, 5:15], mask[1, 10:20, 2:4] = True, True
    left = found((82, 10, 95, 30, 0.5, 0))
    right = found((2, 20, 15, 30, 0.9, 3), (2, 10, 15, 30, 0.8, 0))
    left_extra = {"keypoints": np.float32([[[90, 15, 0.5]]]), "xyxyxyxy": np.ones((1, 4, 2)), "mask": mask[:1]}
    points = np.float32([[[7, 25, 0.9]], [[10, 15, 0.8]]])
    right_extra = {"keypoints": points, "xyxyxyxy": np.zeros((2, 4, 2), np.float32), "mask": mask}
    both = [
        Detections(left.xyxy, left.score, left.class_id, left_extra),
        Detections(right.xyxy, right.score, right.class_id, right_extra),
    ]
    merged = merge(FRAME, [LEFT, RIGHT], both, 0.5)
    assert merged.score.tolist() == pytest.approx([0.9, 0.5])  # of two, the one that no border cuts
    np.testing.assert_allclose(merged.extra["keypoints"], [[[87, 25, 0.9]], [[90, 15, 0.5]]], rtol=1e-6)
    assert merged.extra["xyxyxyxy"][:, 0].tolist() == [[80, 0], [1, 1]]
    assert points[0, 0, 0] == 7, "the tile's own array is left alone"
    drawn = np.zeros((2, 100, 180), bool)
    drawn[0, 20:30, 85:95], drawn[1, 20:30, 5:15] = True, True
    np.testing.assert_array_equal(merged.extra["mask"], drawn)


def test_keypoints_are_found_in_tiles(data_dir: Path) -> None:
    model = data_dir / "models" / "yolov8n_pose_int8_openvino_model"
    image = cv2.imread(str(data_dir / "images" / "assets" / "bus.jpg"))
    frame = Frame(image, "a", 0, 0, 0)
    tiled = TiledDetector(load_detector(model), (500, 700))
    [people] = tiled.detect([frame])
    tiled.close()
    points = people.extra["keypoints"]
    assert len(people) >= 3
    sure = points[..., 2] > 0.8
    low, high = people.xyxy[:, None, :2] - 30, people.xyxy[:, None, 2:] + 30
    inside = ((points[..., :2] >= low) & (points[..., :2] <= high)).all(axis=2)
    assert sure.sum() > 20
    assert inside[sure].all()


def test_nothing_found_is_nothing() -> None:
    assert len(merge(FRAME, [LEFT, RIGHT], [found(), found()], 0.5)) == 0


def test_tiles_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected sides from 32"):
        TiledDetector(object(), (10, 10))  # type: ignore[arg-type]


def test_small_people_are_found_in_tiles(data_dir: Path) -> None:
    """A street scene scaled down to a third in a large grey frame: tiles detect what the scaled frame loses."""
    image = cv2.imread(str(data_dir / "images" / "assets" / "bus.jpg"))
    small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    canvas = np.full((1080, 1920, 3), 114, np.uint8)
    canvas[700 : 700 + small.shape[0], 1500 : 1500 + small.shape[1]] = small
    frame = Frame(canvas, "a", 0, 0, 0)
    inner = load_detector(data_dir / "models" / "yolo11n_int8_openvino_model", classes=["person"], score_threshold=0.4)
    plain = inner.detect([frame])[0]
    tiled = TiledDetector(inner, (480, 480))
    assert isinstance(tiled, Detector)
    [people] = tiled.detect([frame])
    tiled.close()
    assert len(people) >= 3
    assert len(people) > len(plain)
    assert (people.xyxy[:, 0] > 1490).all()
