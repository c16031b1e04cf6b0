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


def test_nothing_found_is_nothing() -> None:
    assert len(merge(FRAME, [LEFT, RIGHT], [found(), found()], 0.5)) == 0


def test_tiles_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected sides from 32"):
        TiledDetector(object(), (10, 10))  # type: ignore[arg-type]


def test_small_people_are_found_in_tiles(data_dir: Path) -> None:
    """A street scene scaled down to a third in a large grey frame: tiles see what the scaled frame loses."""
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
