"""Sections of `gpu_check` about the letterbox kernels: equality with the CPU, in floats and halves, and their time."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from engine.backends.base import ImageInput
from engine.backends.cuda.driver import CudaApi
from engine.backends.cuda.letterbox import BLOCK, KERNEL_NAME, PLANES_KERNEL_NAME, grid, parameters, planes_parameters
from engine.backends.pixels import Normaliser
from engine.detection.letterbox import draw, fit
from engine.sources.live.pixels import DecodedImage
from engine.testing.cuda_kernels import letterbox_planes
from engine.video.to_bgr import BgrConverter
from tools.gpu.device import Device, Facts
from tools.gpu.gpu_sections import full_hd

SIZES = ((1920, 1080), (1280, 720), (768, 576), (640, 640), (1000, 333), (3840, 2160))


def letterbox_exactness(device: Device) -> Facts:
    """Compare the letterbox kernel with the CPU's letterbox, and time it, with its source in each kind of memory."""
    api = device.open_api()
    image = ImageInput((640, 640))
    rows: list[Facts] = []
    with api.current():
        kernel = api.load_kernel(device.compile(), KERNEL_NAME)
        repeats = max(device.repeats // 10, 1)
        for width, height in SIZES:
            picture = full_hd(1, (width, height))[0].image
            found, spent_ms = _letterboxed(api, kernel, image, picture, repeats=repeats)
            halves, _ = _letterboxed(api, kernel, image, picture, "float16", repeats=1)
            difference = np.abs(found - _expected(image, picture)) * 255
            row = {"picture": f"{width}x{height}", "largest difference, levels": float(difference.max().round(4))}
            row |= {"share": float((difference > 0.01).mean()), "kernel ms": round(spent_ms, 4)}
            row |= _source_ms(api, kernel, image, picture, repeats)
            rows.append(row | {"halves equal": bool((halves == found.astype(np.float16)).all())})
    api.close()
    reduced = [row for row, size in zip(rows, SIZES, strict=True) if max(size) >= 640]
    failed = any(row["largest difference, levels"] > 0.01 for row in reduced)
    return {"table": rows, "failed": failed or not all(row["halves equal"] for row in rows)}


def planes_exactness(device: Device) -> Facts:
    """Compare the letterbox kernel for planes with its numpy twin and with the conversion on the CPU, and time it."""
    api = device.open_api()
    image = ImageInput((640, 640))
    rows: list[Facts] = []
    with api.current():
        kernel = api.load_kernel(device.compile(), PLANES_KERNEL_NAME)
        for (width, height), pixel_format in product(SIZES, ("yuv420p", "nv12")):
            bgr = full_hd(1, (width, height))[0].image
            frame = av.VideoFrame.from_ndarray(bgr, format="bgr24").reformat(format=pixel_format)
            decoded = DecodedImage(frame, BgrConverter())
            planes = decoded.planes()
            if planes is None:
                return {"failed": True, "reason": f"{pixel_format} has no planes"}
            box = fit((width, height), image.size_hw[::-1])
            source = np.concatenate([plane.reshape(-1) for plane in (planes.luma, *planes.colours)])
            values = partial(planes_parameters, image, box, planes.chroma)
            found, spent_ms = _run(api, kernel, image, source, values, repeats=max(device.repeats // 10, 1))
            twin = np.empty_like(found)
            letterbox_planes(_memory_at, 1, values(source.ctypes.data, twin.ctypes.data, "float32"))
            difference = np.abs(found - _expected(image, decoded.image())) * 255
            row = {"picture": f"{width}x{height} {pixel_format}", "equal to numpy": bool((found == twin).all())}
            row |= {"largest difference, levels": float(difference.max().round(2))}
            row |= {"mean difference, levels": float(difference.mean().round(3)), "kernel ms": round(spent_ms, 4)}
            rows.append(row)
    api.close()
    return {"table": rows, "failed": not all(row["equal to numpy"] for row in rows)}


def _memory_at(address: int, size: int) -> NDArray[np.uint8]:
    """Return the process's own memory."""
    return np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address))


def _source_ms(api: CudaApi, kernel: int, image: ImageInput, picture: NDArray[np.uint8], repeats: int) -> Facts:
    """Return the time of copying and letterboxing, and that of letterboxing from mapped host memory."""
    mapped = api.pinned(picture.shape, np.uint8, mapped=True)
    mapped.array[...] = picture
    stream = api.create_stream()
    source, target = api.allocate(picture.nbytes), api.allocate(12 * image.size_hw[0] * image.size_hw[1])
    box = fit((picture.shape[1], picture.shape[0]), image.size_hw[::-1])
    spent = []
    for address in (source, mapped.device_address or 0):
        values = parameters(image, box, address, target)
        started = time.perf_counter()
        for _ in range(repeats):
            if address == source:
                api.copy_to_gpu(source, mapped.array, stream)
            api.launch(kernel, grid(image, 1), BLOCK, values, stream)
        api.synchronize(stream)
        spent.append((time.perf_counter() - started) / repeats * 1000)
    for address in (source, target):
        api.free(address)
    api.free_stream(stream)
    api.free_pinned(mapped)
    return {"copy and kernel ms": round(spent[0], 4), "from mapped memory ms": round(spent[1], 4)}


def _letterboxed(
    api: CudaApi, kernel: int, image: ImageInput, picture: NDArray[np.uint8], dtype: str = "float32", repeats: int = 50
) -> tuple[NDArray[Any], float]:
    box = fit((picture.shape[1], picture.shape[0]), image.size_hw[::-1])
    return _run(api, kernel, image, picture, partial(parameters, image, box), dtype, repeats)


def _run(
    api: CudaApi,
    kernel: int,
    image: ImageInput,
    picture: NDArray[np.uint8],
    values: Callable[[int, int, str], bytes],
    dtype: str = "float32",
    repeats: int = 50,
) -> tuple[NDArray[Any], float]:
    """Return a kernel's result for an image, and its milliseconds; `values` makes its parameter from two addresses."""
    found = np.empty((3, *image.size_hw), dtype)
    stream = api.create_stream()
    source, target = api.allocate(picture.nbytes), api.allocate(found.nbytes)
    given = values(source, target, dtype)
    api.copy_to_gpu(source, picture, stream)
    api.synchronize(stream)
    started = time.perf_counter()
    for _ in range(repeats):
        api.launch(kernel, grid(image, 1), BLOCK, given, stream)
    api.synchronize(stream)
    spent = time.perf_counter() - started
    api.copy_to_host(found, target, stream)
    api.synchronize(stream)
    for address in (source, target):
        api.free(address)
    api.free_stream(stream)
    return found, spent / repeats * 1000


def _expected(image: ImageInput, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    canvas = np.empty((1, *image.size_hw, 3), np.uint8)
    draw(picture, fit((picture.shape[1], picture.shape[0]), image.size_hw[::-1]), canvas[0])
    out = np.empty((1, 3, *image.size_hw), np.float32)
    Normaliser(image).write(canvas, out)
    expected: NDArray[np.float32] = out[0]
    return expected
