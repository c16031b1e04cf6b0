"""Parameters of the letterbox kernels.

One launch turns uint8 images, BGR or the planes of a decoder, into the model's tensor, of floats or halves. A batch
that the host has letterboxed already has a scale of 1 and no border.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from engine.backends.base import ImageInput
from engine.backends.device import Placement
from engine.lazy_image import Chroma

KERNEL_NAME = "letterbox"
PLANES_KERNEL_NAME = "letterbox_planes"
BLOCK = (32, 8, 1)
PAD_VALUE = 114
PARAMETERS = struct.Struct("PPqqdd12i3f3f")
"""`struct Letterbox` of letterbox.cu. Two addresses come first, which aligns it."""
PLANES_PARAMETERS = struct.Struct("qq8i")
"""What `struct Planes` has after a `Letterbox`."""
_GAIN = 1 << 16


@dataclass(frozen=True, slots=True)
class WholeFrame:
    """The placement of an image that already has the size of the model's frame."""

    source_wh: tuple[int, int]

    @property
    def inner_wh(self) -> tuple[int, int]:
        """The size of the image itself."""
        return self.source_wh

    @property
    def pad_xy(self) -> tuple[int, int]:
        """No border."""
        return 0, 0


def parameters(image: ImageInput, placement: Placement, source: int, target: int, dtype: str = "float32") -> bytes:
    """Return the kernel's parameter.

    Args:
        image: what the model wants.
        placement: where the image goes.
        source: address of the first uint8 BGR image on the GPU.
        target: address of the first row that is written.
        dtype: of the target, `float32` or `float16`.
    """
    source_w, source_h = placement.source_wh
    return _packed(image, placement, source, target, dtype, source_w * source_h * 3)


def planes_parameters(
    image: ImageInput, placement: Placement, chroma: Chroma, source: int, target: int, dtype: str = "float32"
) -> bytes:
    """Return the parameter of the kernel that reads planes.

    Args:
        image: what the model wants.
        placement: where the image goes.
        chroma: how U and V are stored, and what the numbers mean.
        source: address of the first image on the GPU: rows of luma, then of U and V, without gaps.
        target: address of the first row that is written.
        dtype: of the target, `float32` or `float16`.
    """
    source_w, source_h = placement.source_wh
    chroma_w, chroma_h = (source_w + 1) // 2, (source_h + 1) // 2
    luma_bytes, chroma_bytes = source_w * source_h, chroma_w * chroma_h
    step = 2 if chroma.is_interleaved else 1
    return _packed(image, placement, source, target, dtype, luma_bytes + 2 * chroma_bytes) + PLANES_PARAMETERS.pack(
        *(luma_bytes, luma_bytes + (1 if chroma.is_interleaved else chroma_bytes)),
        *(chroma_w, step),
        *conversion(chroma),
    )


def conversion(chroma: Chroma) -> tuple[int, int, int, int, int, int]:
    """Return the luma of black, then the gains of luma, of U in blue and green, and of V in green and red.

    Gains are in 65536ths; the gains in green are subtracted. The sum is rounded and cut to 0..255.

    >>> conversion(Chroma())
    (16, 76309, 132201, 25675, 53279, 104597)
    """
    red, blue = (0.2126, 0.0722) if chroma.is_bt709 else (0.299, 0.114)
    green = 1.0 - red - blue
    luma, colour = (1.0, 1.0) if chroma.is_full_range else (255 / 219, 255 / 224)
    of_blue, of_red = 2 * (1 - blue) * colour, 2 * (1 - red) * colour
    gains = luma, of_blue, of_blue * blue / green, of_red * red / green, of_red
    return (0 if chroma.is_full_range else 16, *(round(gain * _GAIN) for gain in gains))  # type: ignore[return-value]


def _packed(image: ImageInput, placement: Placement, source: int, target: int, dtype: str, source_bytes: int) -> bytes:
    rows, columns = image.size_hw
    (source_w, source_h), (inner_w, inner_h) = placement.source_wh, placement.inner_wh
    return PARAMETERS.pack(
        *(source, target),
        *(source_bytes, rows * columns * 3),
        *(source_w / inner_w, source_h / inner_h),
        *(source_w, source_h, columns, rows, inner_w, inner_h, *placement.pad_xy),
        *(PAD_VALUE, int(image.color == "rgb"), int(image.layout == "nchw"), int(dtype == "float16")),
        *image.mean,
        *(1.0 / std for std in image.std),
    )


def grid(image: ImageInput, count: int) -> tuple[int, int, int]:
    """Return the launch grid for `count` contiguous images of one size."""
    rows, columns = image.size_hw
    return -(-columns // BLOCK[0]), -(-rows // BLOCK[1]), count
