"""Conversion of decoded frames."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from engine.sources.live.pixels import image_from_frame
from engine.video.to_bgr import BgrConverter


def smooth_image(width: int, height: int) -> np.ndarray:
    noise = np.random.default_rng(3).integers(30, 226, (4, 5, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
    ("width", "height", "pixel_format"),
    [
        pytest.param(128, 96, "yuv420p", id="common"),
        pytest.param(127, 95, "yuv420p", id="odd size"),
        pytest.param(130, 98, "yuv420p", id="padded rows"),
        pytest.param(128, 96, "yuvj420p", id="full range"),
        pytest.param(128, 96, "yuv444p", id="4:4:4"),
        pytest.param(128, 96, "nv12", id="as hardware decodes"),
        pytest.param(128, 96, "yuv420p10le", id="10 bit"),
        pytest.param(128, 96, "bgr24", id="packed already"),
    ],
)
def test_a_picture_has_the_colours_that_it_was_made_of(width: int, height: int, pixel_format: str) -> None:
    original = smooth_image(width, height)
    frame = av.VideoFrame.from_ndarray(original, format="bgr24").reformat(format=pixel_format)
    image = image_from_frame(frame, BgrConverter())
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - original).mean() < 3.5


def test_a_grey_picture_stays_grey() -> None:
    original = smooth_image(64, 48)
    frame = av.VideoFrame.from_ndarray(original, format="bgr24").reformat(format="gray")
    image = image_from_frame(frame, BgrConverter())
    assert (image == image[:, :, :1]).all()
    assert np.abs(image[..., 0].astype(int) - cv2.cvtColor(original, cv2.COLOR_BGR2GRAY)).mean() < 3.5


def test_bt709_is_told_from_bt601() -> None:
    """Pure red is another Y, U, V in either; read as the other it would be off by 20 levels and more."""
    planes = {1: (63, 102, 240), 5: (81, 90, 240)}  # AVCOL_SPC_BT709, AVCOL_SPC_BT470BG in limited range
    for space, (y, u, v) in planes.items():
        packed = np.concatenate([np.full(64 * 48, y), np.full(32 * 24, u), np.full(32 * 24, v)]).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(packed.reshape(72, 64), format="yuv420p")
        frame.colorspace, frame.color_range = space, 1
        blue, green, red = image_from_frame(frame, BgrConverter())[24, 32].tolist()
        assert blue <= 4, (space, blue, green, red)
        assert green <= 4, (space, blue, green, red)
        assert red >= 250, (space, blue, green, red)


def test_pictures_are_not_overwritten_by_later_ones() -> None:
    convert = BgrConverter()
    frames = [av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="bgr24") for level in (40, 90)]
    first, second = (image_from_frame(frame.reformat(format="yuv420p"), convert) for frame in frames)
    assert (abs(int(first.mean()) - 40) < 4, abs(int(second.mean()) - 90) < 4) == (True, True)
