"""The letterbox kernel for BGR: its real source compiled for the processor, its numpy twin, and the CUDA compilers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backends.base import ImageInput
from engine.backends.cuda import compile as cuda_compile
from engine.backends.cuda import letterbox as cuda_letterbox
from engine.backends.cuda.compile import compile_kernels
from engine.backends.cuda.letterbox import BLOCK, WholeFrame, grid, parameters
from engine.backends.pixels import Normaliser
from engine.detection.letterbox import Letterbox, draw, fit
from engine.errors import MissingDependencyError, ModelError
from engine.testing.cuda_kernels import letterbox_images
from tests.backends.cuda.processor_kernels import compiled_kernels, memory_at

Run = Callable[[int, bytes], None]


@pytest.fixture(params=["source", "numpy"])
def launch(request: pytest.FixtureRequest) -> Callable[[ImageInput, int, bytes], None]:
    if request.param == "numpy":
        return lambda image, count, values: letterbox_images(memory_at, count, values)
    return on_processor()


def on_processor(*options: str) -> Callable[[ImageInput, int, bytes], None]:
    """Return what launches the real source, compiled for the processor."""
    library = compiled_kernels(*options)

    def run(image: ImageInput, count: int, values: bytes) -> None:
        blocks_x, blocks_y, images = grid(image, count)
        block = cuda_letterbox.BLOCK
        library.run_letterbox(ctypes.create_string_buffer(values), images, blocks_x, blocks_y, block[0], block[1])

    return run


def picture(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth image with edges and noise: everything that a resize can meet."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(height // 16, 1), max(width // 16, 1), 3), dtype=np.uint8)
    smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, 3)
    noise = rng.integers(0, 256, smooth.shape, dtype=np.uint8)
    return np.where(rng.random((height, width, 1)) < 0.2, noise, smooth).astype(np.uint8)


def expected(image: ImageInput, source: NDArray[np.uint8], box: Letterbox) -> NDArray[np.float32]:
    """The result of the CPU's own path for the image."""
    rows, columns = image.size_hw
    canvas = np.empty((rows, columns, 3), np.uint8)
    draw(source, box, canvas)
    shape = (1, 3, rows, columns) if image.layout == "nchw" else (1, rows, columns, 3)
    out = np.empty(shape, np.float32)
    Normaliser(image).write(canvas[None], out)
    return out[0]


@pytest.mark.parametrize(
    ("size", "share"),
    [
        pytest.param((1920, 1080), 0.0, id="1080p"),
        pytest.param((768, 576), 0.0, id="576p"),
        pytest.param((1000, 333), 0.0, id="wide"),
        pytest.param((333, 1000), 0.0, id="tall"),
        pytest.param((641, 641), 0.0, id="one pixel too large"),
        pytest.param((640, 640), 0.0, id="already right"),
        pytest.param((320, 240), 0.01, id="enlarged"),
        pytest.param((17, 9), 0.02, id="tiny"),
        pytest.param((1, 1), 0.0, id="one pixel"),
    ],
)
def test_the_gpu_sees_the_pixels_of_the_processor(launch, size: tuple[int, int], share: float):
    """Reduced images are bit-identical; enlarged ones differ by one level in a few pixels of a thousand."""
    image = ImageInput((640, 640), std=(1.0, 1.0, 1.0))
    source = picture(*size)
    box = fit(size, (640, 640))
    found = np.full((3, 640, 640), np.nan, np.float32)
    launch(image, 1, parameters(image, box, source.ctypes.data, found.ctypes.data))
    difference = np.abs(found - expected(image, source, box))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= share


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("anchor", ["center", "top_left", "stretch"])
def test_layout_colour_normalisation_and_border_are_those_of_the_processor(launch, layout, color, anchor):
    image = ImageInput((48, 64), color, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), layout)
    source = picture(200, 100, 5)
    box = fit((200, 100), (64, 48), anchor)
    shape = (3, 48, 64) if layout == "nchw" else (48, 64, 3)
    found = np.full(shape, np.nan, np.float32)
    launch(image, 1, parameters(image, box, source.ctypes.data, found.ctypes.data))
    np.testing.assert_allclose(found, expected(image, source, box), rtol=1e-6, atol=1e-6)


def test_a_batch_that_was_letterboxed_before_is_one_launch(launch):
    image = ImageInput((24, 40))
    batch = np.stack([picture(40, 24, seed) for seed in range(3)])
    found = np.full((3, 3, 24, 40), np.nan, np.float32)
    launch(image, 3, parameters(image, WholeFrame((40, 24)), batch.ctypes.data, found.ctypes.data))
    wanted = np.empty_like(found)
    Normaliser(image).write(batch, wanted)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("size", [(200, 100), (31, 97), (40, 24), (1, 1)])
def test_taps_that_a_block_shares_are_those_of_each_pixel(size: tuple[int, int]):
    image = ImageInput((33, 70), "rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    source, box = picture(*size), fit(size, (70, 33))
    alone, shared = np.full((2, 3, 33, 70), np.nan, np.float32)
    on_processor()(image, 1, parameters(image, box, source.ctypes.data, alone.ctypes.data))
    on_processor("-DSHARES_TAPS", "-pthread")(image, 1, parameters(image, box, source.ctypes.data, shared.ctypes.data))
    np.testing.assert_array_equal(shared, alone)
    assert BLOCK == (32, 8, 1), "letterbox.cu has room for the taps of such a block"


@pytest.mark.parametrize(("mean", "std"), [(0.0, 255.0), (123.7, 58.4), (0.0, 1e-3), (100.0, 1e6), (0.0, 2e9)], ids=str)
def test_a_model_may_want_halves(launch, mean: float, std: float):
    """Large numbers become infinite and small ones subnormal, as in every FP16 conversion."""
    image = ImageInput((24, 40), "rgb", (mean,) * 3, (std,) * 3)
    batch = np.stack([picture(40, 24, seed) for seed in range(3)])
    floats, halves = np.full((3, 3, 24, 40), np.nan, np.float32), np.full((3, 3, 24, 40), np.nan, np.float16)
    launch(image, 3, parameters(image, WholeFrame((40, 24)), batch.ctypes.data, floats.ctypes.data))
    launch(image, 3, parameters(image, WholeFrame((40, 24)), batch.ctypes.data, halves.ctypes.data, "float16"))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(halves, floats.astype(np.float16))


def test_the_grid_covers_every_pixel():
    assert grid(ImageInput((33, 65)), 4) == (3, 5, 4)


@pytest.mark.parametrize("capability", [(7, 5), (8, 7), (9, 0)], ids=str)
def test_a_cuda_compiler_takes_the_source_without_a_gpu(capability: tuple[int, int]):
    try:
        image = compile_kernels(capability)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert image[:4] == b"\x7fELF"
    assert b"letterbox" in image


def test_an_architecture_that_does_not_exist_is_refused_with_the_compilers_words():
    try:
        compile_kernels((8, 9))
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with pytest.raises(ModelError, match=r"does not compile for sm_11: .*sm_11|CUDA compiler failed|sm_11"):
        compile_kernels((1, 1))


def test_without_a_compiler_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda_compile, "_nvrtc_places", lambda: iter(["libnvrtc-that-is-not-there.so"]))
    monkeypatch.setattr(cuda_compile.shutil, "which", lambda name, path=None: None)
    with pytest.raises(MissingDependencyError, match="pip install nvidia-cuda-nvrtc"):
        compile_kernels((8, 9))
