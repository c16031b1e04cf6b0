"""The letterbox kernel for planes: its real source compiled for the processor, and its numpy twin.

Both are compared with FFmpeg's conversion to BGR followed by the letterbox of the processor.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import product
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backends.base import ImageInput
from engine.backends.cuda.compile import compile_kernels
from engine.backends.cuda.letterbox import BLOCK, grid, parameters, planes_parameters
from engine.detection.letterbox import draw, fit
from engine.errors import MissingDependencyError
from engine.lazy_image import Chroma, YuvPlanes
from engine.sources.live.pixels import DecodedImage
from engine.testing.cuda_kernels import letterbox_images, letterbox_planes
from engine.video.to_bgr import BgrConverter
from tests.backends.cuda.processor_kernels import compiled_kernels, memory_at
from tests.backends.cuda.test_letterbox import picture

Launch = Callable[[ImageInput, int, bytes], None]
CHROMAS = [Chroma(*kind) for kind in product((False, True), repeat=3)]
WHOLE = ImageInput((48, 64), std=(1.0, 1.0, 1.0))


def on_processor(*options: str) -> Launch:
    """Return what launches the real source, compiled for the processor."""
    library = compiled_kernels(*options)

    def run(image: ImageInput, count: int, values: bytes) -> None:
        blocks_x, blocks_y, images = grid(image, count)
        given = ctypes.create_string_buffer(values)
        library.run_letterbox_planes(given, images, blocks_x, blocks_y, *BLOCK[:2])

    return run


@pytest.fixture(params=["source", "numpy"])
def launch(request: pytest.FixtureRequest) -> Launch:
    if request.param == "numpy":
        return lambda image, count, values: letterbox_planes(memory_at, count, values)
    return on_processor()


def frame_of(width: int, height: int, chroma: Chroma, seed: int = 0) -> Any:
    """Return an `av.VideoFrame` of any colours, with the marks of its matrix and range."""
    image = picture(width, height, seed)
    frame = av.VideoFrame(width, height, "nv12" if chroma.is_interleaved else "yuv420p")
    frame.colorspace, frame.color_range = (1 if chroma.is_bt709 else 5), (2 if chroma.is_full_range else 1)
    small = image[::2, ::2]
    u, v = small[..., 1], small[..., 2]
    colours = [np.stack((u, v), axis=2).reshape(len(u), -1)] if chroma.is_interleaved else [u, v]
    for plane, rows in zip(frame.planes, [image[..., 0], *colours], strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[: len(rows), : rows.shape[1]] = rows
        plane.update(padded.tobytes())
    return frame


def planes_of(frame: Any) -> YuvPlanes:
    planes = DecodedImage(frame, BgrConverter()).planes()
    assert planes is not None
    return planes


def packed(*images: YuvPlanes) -> NDArray[np.uint8]:
    """Return images as they lie on the GPU."""
    return np.concatenate([plane.reshape(-1) for one in images for plane in (one.luma, *one.colours)])


def letterboxed(launch: Launch, image: ImageInput, *images: YuvPlanes, dtype: str = "float32") -> NDArray[Any]:
    """Return the batch that one launch makes."""
    height, width = images[0].luma.shape
    box, memory = fit((width, height), image.size_hw[::-1]), packed(*images)
    found = np.full((len(images), 3, *image.size_hw), np.nan, dtype)
    values = planes_parameters(image, box, images[0].chroma, memory.ctypes.data, found.ctypes.data, dtype)
    launch(image, len(images), values)
    return found


@pytest.mark.parametrize("size", [(64, 48), (65, 49), (192, 108), (31, 97), (2, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("chroma", CHROMAS, ids=str)
def test_the_source_and_its_twin_are_equal_to_the_bit(chroma: Chroma, size: tuple[int, int]):
    planes = planes_of(frame_of(*size, chroma))
    found = letterboxed(on_processor(), WHOLE, planes)
    twin = letterboxed(lambda _, count, values: letterbox_planes(memory_at, count, values), WHOLE, planes)
    assert not np.isnan(found).any()
    np.testing.assert_array_equal(found, twin)


@pytest.mark.parametrize("size", [(192, 108), (64, 48), (640, 360)], ids=str)
@pytest.mark.parametrize("chroma", [one for one in CHROMAS if not one.is_interleaved], ids=str)
def test_planes_give_the_pixels_of_ffmpegs_conversion(launch: Launch, chroma: Chroma, size: tuple[int, int]):
    """FFmpeg's tables are coarse: up to three levels off, one on average; it converts odd sizes by other code."""
    frame = frame_of(*size, chroma)
    canvas = np.empty((48, 64, 3), np.uint8)
    image = DecodedImage(frame, BgrConverter()).image()
    draw(image, fit(size, (64, 48)), canvas)
    difference = np.abs(letterboxed(launch, WHOLE, planes_of(frame))[0] - canvas[..., ::-1].transpose(2, 0, 1))
    assert difference.max() <= 3.5
    assert difference.mean() <= 1.2


@pytest.mark.parametrize(("is_bt709", "is_full_range"), list(product((False, True), repeat=2)))
def test_pairs_of_colours_are_two_planes_of_them(launch: Launch, is_bt709: bool, is_full_range: bool):
    apart = planes_of(frame_of(192, 108, Chroma(False, is_bt709, is_full_range), 3))
    pairs = planes_of(frame_of(192, 108, Chroma(True, is_bt709, is_full_range), 3))
    assert len(pairs.colours) == 1
    np.testing.assert_array_equal(letterboxed(launch, WHOLE, pairs), letterboxed(launch, WHOLE, apart))


@pytest.mark.parametrize("chroma", CHROMAS, ids=str)
def test_grey_stays_grey_and_black_and_white_are_reached(launch: Launch, chroma: Chroma):
    low, high = (0, 255) if chroma.is_full_range else (16, 235)
    middle = np.full((24, 32, 2) if chroma.is_interleaved else (24, 32), 128, np.uint8)
    for level, expected in ((low, 0), (high, 255)):
        colours = (middle,) if chroma.is_interleaved else (middle, middle)
        planes = YuvPlanes(np.full((48, 64), level, np.uint8), colours, chroma)
        np.testing.assert_array_equal(letterboxed(launch, WHOLE, planes), expected)


def test_layout_colour_normalisation_and_border_are_those_of_images(launch: Launch):
    """A frame without colour: its planes are its image, so the other kernel must make the same batch of it."""
    chroma = Chroma(is_full_range=True)
    luma, middle = picture(200, 100, 5)[..., 0].copy(), np.full((50, 100), 128, np.uint8)
    planes, bgr = YuvPlanes(luma, (middle, middle), chroma), np.repeat(luma[..., None], 3, axis=2)
    for color, layout, anchor in product(("rgb", "bgr"), ("nchw", "nhwc"), ("center", "top_left", "stretch")):
        image = ImageInput((48, 64), color, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), layout)  # type: ignore[arg-type]
        box, memory = fit((200, 100), (64, 48), anchor), packed(planes)  # type: ignore[arg-type]
        found, expected = np.full((2, 3 * 48 * 64), np.nan, np.float32)
        launch(image, 1, planes_parameters(image, box, chroma, memory.ctypes.data, found.ctypes.data))
        letterbox_images(memory_at, 1, parameters(image, box, bgr.ctypes.data, expected.ctypes.data))
        np.testing.assert_array_equal(found, expected)


def test_a_batch_is_one_launch_and_may_be_halves(launch: Launch):
    images = [planes_of(frame_of(65, 49, Chroma(True), seed)) for seed in range(3)]
    floats = letterboxed(launch, WHOLE, *images)
    for row, alone in zip(floats, images, strict=True):
        np.testing.assert_array_equal(letterboxed(launch, WHOLE, alone)[0], row)
    halves = letterboxed(launch, WHOLE, *images, dtype="float16")
    np.testing.assert_array_equal(halves, floats.astype(np.float16))


@pytest.mark.parametrize("size", [(200, 100), (31, 97), (1, 1)], ids=str)
def test_taps_that_a_block_shares_are_those_of_each_pixel(size: tuple[int, int]):
    image, planes = ImageInput((33, 70)), planes_of(frame_of(*size, Chroma(True)))
    shared = letterboxed(on_processor("-DSHARES_TAPS", "-pthread"), image, planes)
    np.testing.assert_array_equal(shared, letterboxed(on_processor(), image, planes))


@pytest.mark.parametrize("capability", [(7, 5), (8, 7), (9, 0)], ids=str)
def test_a_cuda_compiler_takes_the_source_without_a_gpu(capability: tuple[int, int]):
    try:
        assert b"letterbox_planes" in compile_kernels(capability)
    except MissingDependencyError as error:
        pytest.skip(str(error))
