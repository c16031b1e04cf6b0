"""The small grey copy that changes are sought in."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.flow.attention.small import small_copy


@pytest.mark.parametrize("size_wh", [(160, 90), (192, 108)])
@pytest.mark.parametrize("frame_wh", [(768, 432), (704, 396), (1920, 1080), (640, 360)])
def test_it_is_the_average_of_the_pixels_of_each_cell(frame_wh: tuple[int, int], size_wh: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(16, 235, frame_wh[::-1], dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), frame_wh[0] / 100)
    expected = cv2.blur(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), (3, 3)).astype(int)
    assert np.abs(small_copy(image, size_wh).astype(int) - expected).max() <= 2
    coloured = small_copy(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), size_wh).astype(int)
    assert np.abs(coloured - expected).max() <= 2


def test_one_bright_cell_stays_where_it_is() -> None:
    image = np.zeros((432, 768), np.uint8)
    image[240:245, 480:485] = 255
    small = small_copy(image, (160, 90))
    row, column = np.unravel_index(small.argmax(), small.shape)
    assert (abs(int(row) - 50), abs(int(column) - 100)) <= (1, 1)


def test_an_image_smaller_than_its_copy_is_enlarged() -> None:
    assert small_copy(np.full((40, 60), 77, np.uint8), (160, 120)).tolist() == np.full((120, 160), 77).tolist()
