"""Section of `gpu_check` about the letterbox kernel: equality with the CPU, in floats and in halves, and its time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import ImageInput
from engine.backends.cuda.driver import CudaApi
from engine.backends.cuda.letterbox import BLOCK, KERNEL_NAME, grid, parameters
from engine.backends.pixels import Normaliser
from engine.detection.letterbox import draw, fit
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
    found = np.empty((3, *image.size_hw), dtype)
    stream = api.create_stream()
    source, target = api.allocate(picture.nbytes), api.allocate(found.nbytes)
    box = fit((picture.shape[1], picture.shape[0]), image.size_hw[::-1])
    values = parameters(image, box, source, target, dtype)
    api.copy_to_gpu(source, picture, stream)
    api.synchronize(stream)
    started = time.perf_counter()
    for _ in range(repeats):
        api.launch(kernel, grid(image, 1), BLOCK, values, stream)
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
