"""Box arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.boxes import area, clip, cxcywh_from_xyxy, iou_matrix, xyxy_from_cxcywh, xyxy_from_tlwh

coordinate = st.integers(-1000, 1000)
box = st.tuples(coordinate, coordinate, st.integers(1, 500), st.integers(1, 500)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
boxes = st.lists(box, max_size=6).map(lambda rows: np.array(rows, np.float32).reshape(-1, 4))


def iou_by_pixels(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Counts pixels of two boxes: slow and obviously right."""
    grid_a, grid_b = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    grid_a[a[1] : a[3], a[0] : a[2]] = True
    grid_b[b[1] : b[3], b[0] : b[2]] = True
    return float((grid_a & grid_b).sum() / max((grid_a | grid_b).sum(), 1))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        pytest.param((0, 0, 4, 4), (0, 0, 4, 4), id="same"),
        pytest.param((0, 0, 4, 4), (4, 0, 8, 4), id="touching boxes"),
        pytest.param((0, 0, 10, 10), (2, 3, 5, 7), id="inside"),
        pytest.param((0, 0, 6, 6), (3, 3, 9, 9), id="corner"),
        pytest.param((0, 0, 1, 1), (0, 0, 1, 1), id="one pixel"),
        pytest.param((3, 3, 3, 3), (0, 0, 9, 9), id="no area"),
    ],
)
def test_iou_equals_counting_pixels(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    assert iou_matrix(np.float32([a]), np.float32([b]))[0, 0] == pytest.approx(iou_by_pixels(a, b))


@given(boxes, boxes)
def test_iou_is_symmetric_bounded_and_one_with_itself(a: np.ndarray, b: np.ndarray) -> None:
    iou = iou_matrix(a, b)
    assert iou.shape == (len(a), len(b))
    assert np.array_equal(iou, iou_matrix(b, a).T)
    assert ((iou >= 0) & (iou <= 1)).all()
    assert np.allclose(np.diag(iou_matrix(a, a)), 1)


@given(boxes)
def test_centre_and_size_convert_back(xyxy: np.ndarray) -> None:
    assert np.allclose(xyxy_from_cxcywh(cxcywh_from_xyxy(xyxy)), xyxy)


def test_inside_out_boxes_have_no_area() -> None:
    assert area(np.float32([[5, 5, 1, 9], [0, 0, 2, 3]])).tolist() == [0.0, 6.0]


@given(boxes)
def test_clipped_boxes_lie_inside_of_the_image(xyxy: np.ndarray) -> None:
    inside = clip(xyxy, 64, 48)
    assert (inside >= 0).all()
    assert (inside <= np.float32([64, 48, 64, 48])).all()


def test_left_top_and_size_convert() -> None:
    assert xyxy_from_tlwh(np.float32([[1, 2, 3, 4]])).tolist() == [[1, 2, 4, 6]]
