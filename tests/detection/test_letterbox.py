from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.detection.letterbox import Canvas, draw, fit, points_from_target, source_from_target, target_from_source
from engine.errors import ConfigError

SIZES = st.tuples(st.integers(1, 4000), st.integers(1, 4000))
ANCHORS = st.sampled_from(["center", "top_left", "stretch"])


@pytest.mark.parametrize(
    ("source", "target", "anchor", "inner", "pad"),
    [
        pytest.param((768, 576), (640, 640), "center", (640, 480), (0, 80), id="landscape"),
        pytest.param((810, 1080), (640, 640), "center", (480, 640), (80, 0), id="portrait"),
        pytest.param((1280, 720), (640, 640), "center", (640, 360), (0, 140), id="wide"),
        pytest.param((1280, 720), (416, 416), "top_left", (416, 234), (0, 0), id="top left"),
        pytest.param((640, 426), (416, 416), "top_left", (416, 276), (0, 0), id="top left cuts 276.9 to 276"),
        pytest.param((720, 576), (416, 416), "top_left", (415, 332), (0, 0), id="top left cuts 415.9999 to 415"),
        pytest.param((640, 426), (416, 416), "center", (416, 277), (0, 69), id="centred rounds"),
        pytest.param((1280, 720), (320, 320), "stretch", (320, 320), (0, 0), id="stretched"),
        pytest.param((640, 640), (640, 640), "center", (640, 640), (0, 0), id="already right"),
        pytest.param((100, 33), (64, 64), "center", (64, 21), (0, 21), id="odd padding leaves less at the top"),
        pytest.param((1, 1), (640, 640), "center", (640, 640), (0, 0), id="one pixel"),
        pytest.param((4000, 1), (640, 640), "center", (640, 1), (0, 319), id="a line"),
    ],
)
def test_image_lands_where_the_training_code_puts_it(source, target, anchor, inner, pad) -> None:  # type: ignore[no-untyped-def]
    box = fit(source, target, anchor)
    assert (box.inner_wh, box.pad_xy) == (inner, pad)


@settings(max_examples=200, deadline=None)
@given(SIZES, SIZES, ANCHORS, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_come_back_to_where_they_were(source, target, anchor, corners) -> None:  # type: ignore[no-untyped-def]
    box = fit(source, target, anchor)
    x, y = sorted(corners[:2]), sorted(corners[2:])
    xyxy = np.float32([[x[0] * source[0], y[0] * source[1], x[1] * source[0], y[1] * source[1]]])
    back = source_from_target(target_from_source(xyxy, box), box)
    assert np.abs(back - xyxy).max() <= 1e-6 * max(*source, 1) * (1 + max(target) / min(box.inner_wh))


@settings(max_examples=200, deadline=None)
@given(SIZES, SIZES, ANCHORS)
def test_the_scaled_image_fills_one_side_and_stays_inside(source, target, anchor) -> None:  # type: ignore[no-untyped-def]
    box = fit(source, target, anchor)
    gap = min(size - inner for size, inner in zip(target, box.inner_wh, strict=True))
    assert gap == 0 or (gap == 1 and anchor == "top_left")
    places = zip(box.pad_xy, box.inner_wh, target, strict=True)
    assert all(pad >= 0 and pad + inner <= size for pad, inner, size in places)
    assert all(side >= 1 for side in box.inner_wh)


def test_boxes_are_cut_at_the_borders_of_the_image() -> None:
    box = fit((768, 576), (640, 640))
    outside = np.float32([[-50, 0, 700, 640]])
    assert source_from_target(outside, box).tolist() == [[0, 0, 768, 576]]


def test_points_go_back_like_corners() -> None:
    box = fit((768, 576), (640, 640))
    points = points_from_target(np.float32([[[0, 80], [320, 320]], [[640, 560], [0, 0]]]), box)
    np.testing.assert_allclose(points, [[[0, 0], [384, 288]], [[768, 576], [0, 0]]], atol=1e-3)


def test_pixels_are_those_of_a_resize_in_a_grey_frame() -> None:
    image = np.random.default_rng(0).integers(0, 256, (57, 100, 3), dtype=np.uint8)
    box = fit((100, 57), (64, 64))
    out = np.zeros((64, 64, 3), np.uint8)
    draw(image, box, out)
    expected = np.full((64, 64, 3), 114, np.uint8)
    expected[14:50] = cv2.resize(image, (64, 36), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(out, expected)


def test_an_image_of_the_right_size_is_copied_exactly() -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    out = np.zeros((64, 64, 3), np.uint8)
    draw(image, fit((48, 64), (64, 64)), out)
    np.testing.assert_array_equal(out[:, 8:56], image)


def test_images_of_changing_sizes_leave_nothing_behind_in_a_reused_batch() -> None:
    random = np.random.default_rng(2)
    canvas = Canvas(np.empty((2, 64, 64, 3), np.uint8), "center")
    for size_wh in [(100, 50), (50, 100), (50, 100), (64, 64), (100, 50), (3, 90)]:
        image = random.integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
        for row in (0, 1):
            box = canvas.place(row, image)
            fresh = np.empty((64, 64, 3), np.uint8)
            draw(image, box, fresh)
            np.testing.assert_array_equal(canvas.batch[row], fresh)


def test_an_image_that_is_a_view_is_fine() -> None:
    image = np.random.default_rng(3).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    image.flags.writeable = False
    view = image[10:90, 20:80]
    out, expected = np.empty((2, 32, 32, 3), np.uint8)
    box = fit((60, 80), (32, 32))
    draw(view, box, out)
    draw(np.ascontiguousarray(view), box, expected)
    np.testing.assert_array_equal(out, expected)


def test_an_image_without_area_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 x 10"):
        fit((0, 10), (64, 64))
