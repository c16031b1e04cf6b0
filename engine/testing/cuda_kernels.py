"""Numpy versions of our kernels, which the fake GPU runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from engine.backends.cuda import candidates as cuda_candidates
from engine.backends.cuda import letterbox as cuda_letterbox

Bytes = NDArray[np.uint8]
View = Callable[[int, int], Bytes]
Kernel = Callable[[View, int, bytes], None]


def letterbox_images(view: View, images: int, values: bytes) -> None:
    """Do what the letterbox kernel does, with numpy, on memory found by `view(address, size)`."""
    source_w, source_h = cuda_letterbox.PARAMETERS.unpack(values)[6:8]
    _letterbox(view, images, values, lambda memory: memory.reshape(source_h, source_w, 3))


def letterbox_planes(view: View, images: int, values: bytes) -> None:
    """Do what the letterbox kernel for planes does, likewise."""
    size = cuda_letterbox.PARAMETERS.size
    source_w, source_h = cuda_letterbox.PARAMETERS.unpack(values[:size])[6:8]
    u, v, chroma_w, step, *numbers = cuda_letterbox.PLANES_PARAMETERS.unpack(values[size:])
    count = (source_h + 1) // 2 * chroma_w

    def image_of(memory: Bytes) -> Bytes:
        luma = memory[: source_w * source_h].reshape(source_h, source_w)
        blue, red = (memory[at : at + (count - 1) * step + 1 : step].reshape(-1, chroma_w) for at in (u, v))
        return bgr_from_planes(luma, blue, red, tuple(numbers))

    _letterbox(view, images, values[:size], image_of)


def bgr_from_planes(luma: Bytes, u: Bytes, v: Bytes, conversion: tuple[int, ...]) -> Bytes:
    """Return the (H, W, 3) image of 4:2:0 planes, with the kernel's arithmetic.

    Args:
        luma: (H, W).
        u: (ceil(H / 2), ceil(W / 2)).
        v: likewise.
        conversion: `engine.backends.cuda.letterbox.conversion` of the planes.
    """
    black, gain, blue_u, green_u, green_v, red_v = conversion
    height, width = luma.shape
    blue, red = (plane.repeat(2, 0).repeat(2, 1)[:height, :width].astype(np.int32) - 128 for plane in (u, v))
    light = (luma.astype(np.int32) - black) * gain
    levels = np.stack((light + blue_u * blue, light - green_u * blue - green_v * red, light + red_v * red), axis=2)
    return ((levels + 32768) >> 16).clip(0, 255).astype(np.uint8)


def _letterbox(view: View, images: int, values: bytes, image_of: Callable[[Bytes], Bytes]) -> None:
    """Write the letterboxed images; `image_of` makes an image (H, W, 3) of its memory."""
    source, target, source_step, target_step, scale_x, scale_y, *rest = cuda_letterbox.PARAMETERS.unpack(values)
    target_w, target_h, inner_w, inner_h, pad_x, pad_y, pad_value, *flags = rest[2:12]
    is_rgb, is_planar, is_half = flags
    mean, factor = np.asarray(rest[12:15], np.float32), np.asarray(rest[15:18], np.float32)
    dtype = np.dtype(np.float16 if is_half else np.float32)
    size = dtype.itemsize
    for index in range(images):
        image = image_of(view(source + index * source_step, source_step))
        canvas = np.full((target_h, target_w, 3), pad_value, np.int32)
        inner = scaled(image, (inner_w, inner_h), (scale_x, scale_y))
        canvas[pad_y : pad_y + inner_h, pad_x : pad_x + inner_w] = inner
        values_hwc = (canvas[..., ::-1] if is_rgb else canvas).astype(np.float32)
        numbers = (values_hwc - mean) * factor
        row = view(target + size * index * target_step, size * target_w * target_h * 3).view(dtype)
        with np.errstate(over="ignore"):  # a half that is too large is infinite
            row[:] = (numbers.transpose(2, 0, 1) if is_planar else numbers).reshape(-1)


def scaled(image: Bytes, inner_wh: tuple[int, int], scale_xy: tuple[float, float]) -> NDArray[np.int32]:
    """Resize an image (H, W, 3) with the kernel's arithmetic: bilinear, 11-bit weights."""
    left, right, left_weight, right_weight = _taps(inner_wh[0], scale_xy[0], image.shape[1])
    upper, lower, upper_weight, lower_weight = _taps(inner_wh[1], scale_xy[1], image.shape[0])
    wide = (
        image[:, left].astype(np.int32) * left_weight[:, None]
        + image[:, right].astype(np.int32) * right_weight[:, None]
    )
    above, below = wide[upper] >> 4, wide[lower] >> 4
    total = ((above * upper_weight[:, None, None]) >> 16) + ((below * lower_weight[:, None, None]) >> 16)
    result: NDArray[np.int32] = (total + 2) >> 2
    return result


def _taps(count_out: int, scale: float, size: int) -> tuple[NDArray[np.int32], ...]:
    exact = ((np.arange(count_out) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(exact).astype(np.int32)
    fraction = exact - first.astype(np.float32)
    outside = (first < 0) | (first >= size - 1)
    fraction[outside] = 0
    first = np.clip(first, 0, size - 1)
    second = np.minimum(first + 1, size - 1).astype(np.int32)
    weights = [np.rint(part * np.float32(2048)).astype(np.int32) for part in (np.float32(1) - fraction, fraction)]
    return first, second, weights[0], weights[1]


def keep_candidates(view: View, images: int, values: bytes) -> None:
    """Do what the candidates kernel does. The last anchors come first, because the order is not guaranteed."""
    head, counts, kept, rows, anchors, first, classes, limit, above = cuda_candidates.PARAMETERS.unpack(values)
    width = 1 + rows - classes + 2
    numbers = view(head, 4 * images * rows * anchors).view(np.float32).reshape(images, rows, anchors)
    places = view(kept, 4 * images * limit * width).view(np.float32).reshape(images, limit, width)
    count = view(counts, 4 * images).view(np.int32)
    for image in range(images):
        scores = numbers[image, first : first + classes]
        for anchor in np.flatnonzero(scores.max(axis=0) > np.float32(above))[::-1].tolist():
            if count[image] < limit:
                column = numbers[image, :, anchor]
                best = scores[:, anchor].argmax()
                places[image, count[image]] = [
                    anchor,
                    *column[:first],
                    *(column[first + best], best),
                    *column[first + classes :],
                ]
            count[image] += 1


KERNELS: Mapping[str, Kernel] = {
    cuda_letterbox.KERNEL_NAME: letterbox_images,
    cuda_letterbox.PLANES_KERNEL_NAME: letterbox_planes,
    cuda_candidates.KERNEL_NAME: keep_candidates,
}
