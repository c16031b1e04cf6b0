"""Frames are displayed with square pixels, as players display them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.imaging.square import displayed, jpeg_of

IMAGE = np.random.default_rng(1).integers(0, 256, (90, 160, 3), np.uint8)


def test_square_pixels_are_not_copied() -> None:
    assert displayed(IMAGE, 1.0) is IMAGE
    assert displayed(IMAGE, 1.0, 160) is IMAGE


@pytest.mark.parametrize(
    ("aspect", "max_side", "size_wh"),
    [
        pytest.param(2.0, None, (320, 90), id="wide"),
        pytest.param(0.5, None, (80, 90), id="narrow"),
        pytest.param(2.0, 160, (160, 45), id="wide and limited"),
        pytest.param(0.1, 45, (8, 45), id="the longer side is the displayed one"),
        pytest.param(10.0, 20, (20, 1), id="at least one row"),
    ],
)
def test_the_columns_change_and_the_rows_stay(aspect: float, max_side: int | None, size_wh: tuple[int, int]) -> None:
    shown = displayed(IMAGE, aspect, max_side)
    assert (shown.shape[1], shown.shape[0]) == size_wh
    jpeg, told_wh = jpeg_of(IMAGE, max_side or 10_000, 80, aspect)
    found = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    assert told_wh == size_wh == found.shape[1::-1]
