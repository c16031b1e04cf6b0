"""Conversion of decoded frames."""

from __future__ import annotations

import weakref
from itertools import product

import av
import cv2
import numpy as np
import pytest

from engine.lazy_image import Chroma
from engine.sources.live.pixels import DecodedImage, PackedPlanes, image_from_frame
from engine.video.frames import chroma_of, mark, stride_of_all
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


def packed_rows(frame: av.VideoFrame) -> np.ndarray:
    """Return the planes of a frame as the reader process puts them into the ring."""
    parts = [np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size] for plane in frame.planes]
    return np.concatenate(parts).reshape(-1, frame.planes[0].line_size)


@pytest.mark.parametrize("width", [pytest.param(192, id="full rows"), pytest.param(130, id="padded rows")])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "nv12"])
def test_packed_planes_are_the_decoded_frame_to_the_bit(pixel_format: str, width: int) -> None:
    """Of every matrix and range: the image that FFmpeg makes of the decoded frame, its brightness and its planes."""
    rows = np.random.default_rng(1).integers(0, 256, (144, 192), dtype=np.uint8)
    frame = av.VideoFrame.from_numpy_buffer(rows, format=pixel_format, width=width)
    for space, reach in product((1, 2, 5, 6), (0, 1, 2)):
        frame.colorspace, frame.color_range = space, reach
        assert stride_of_all(frame) == 192
        chroma = chroma_of(frame)
        assert chroma is not None
        packed = PackedPlanes(packed_rows(frame), width, chroma, BgrConverter())
        decoded = DecodedImage(frame, BgrConverter())
        assert (packed.width, packed.height) == (decoded.width, decoded.height)
        np.testing.assert_array_equal(packed.luma(), decoded.luma())
        found, expected = packed.planes(), decoded.planes()
        assert found is not None
        assert expected is not None
        assert found.chroma == expected.chroma
        for plane, other in zip(found.colours, expected.colours, strict=True):
            np.testing.assert_array_equal(plane, other)
        np.testing.assert_array_equal(packed.image(), decoded.image())
        assert packed.image() is packed.image()
        assert packed.luma() is None
        assert packed.planes() is None


def test_packed_planes_let_go_of_their_memory_once_converted_and_unused() -> None:
    rows = np.full((72, 64), 128, np.uint8)
    packed, gone = PackedPlanes(rows, 64, Chroma(), BgrConverter()), weakref.ref(rows)
    luma = packed.luma()
    del rows
    assert packed.image().shape == (48, 64, 3)
    assert gone() is not None  # the brightness is a view of it
    del luma
    assert gone() is None


@pytest.mark.parametrize(
    ("pixel_format", "size_wh", "space"),
    [
        pytest.param("yuv444p", (64, 48), 5, id="4:4:4"),
        pytest.param("yuv420p10le", (64, 48), 5, id="10 bit"),
        pytest.param("yuv420p", (64, 48), 9, id="BT.2020"),
        pytest.param("yuv420p", (63, 48), 5, id="odd width"),
        pytest.param("nv12", (64, 47), 5, id="odd height"),
        pytest.param("yuv420p", (64, 46), 5, id="a height that PyAV cuts"),
    ],
)
def test_other_frames_are_not_handed_on_as_planes(pixel_format: str, size_wh: tuple[int, int], space: int) -> None:
    frame = av.VideoFrame(*size_wh, pixel_format)
    frame.colorspace = space
    assert chroma_of(frame) is None or stride_of_all(frame) is None


@pytest.mark.parametrize("chroma", [Chroma(*kind) for kind in product((False, True), repeat=3)], ids=str)
def test_a_marked_frame_is_read_as_it_was_marked(chroma: Chroma) -> None:
    frame = av.VideoFrame(64, 48, "nv12" if chroma.is_interleaved else "yuv420p")
    mark(frame, chroma)
    assert chroma_of(frame) == chroma
