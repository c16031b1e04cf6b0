"""Conversion of decoded pictures."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from engine.sources.bgr import BgrImages
from engine.sources.convert import BgrConverter
from engine.sources.pixels import image_from_packed


def picture(width: int, height: int, pixel_format: str) -> av.VideoFrame:
    noise = np.random.default_rng(3).integers(0, 255, (6, 8, 3), np.uint8)
    image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pixel_format)


@pytest.mark.parametrize(
    ("width", "height", "pixel_format"),
    [
        pytest.param(64, 48, "yuv420p", id="common"),
        pytest.param(63, 47, "yuv420p", id="odd size"),
        pytest.param(66, 50, "yuv420p", id="padded rows"),
        pytest.param(64, 48, "yuvj420p", id="full range"),
        pytest.param(64, 48, "yuv444p", id="4:4:4"),
        pytest.param(64, 48, "gray", id="grayscale"),
        pytest.param(64, 48, "yuv420p10le", id="10 bit"),
    ],
)
def test_images_equal_those_of_the_scaler_of_ffmpeg(width: int, height: int, pixel_format: str) -> None:
    frame = picture(width, height, pixel_format)
    image = BgrImages().image(frame)
    reference = image_from_packed(BgrConverter().packed(frame))
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    difference = np.abs(image.astype(int) - reference.astype(int))
    assert difference.mean() < 2.5  # the scaler rounds down and interpolates colour, OpenCV rounds and repeats it
