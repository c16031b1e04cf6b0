"""Parameters of the letterbox kernel.

One launch turns uint8 BGR images into the model's tensor, of floats or halves. A batch that the host has letterboxed
already has a scale of 1 and no border.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from engine.backends.base import ImageInput
from engine.backends.device import Placement

KERNEL_NAME = "letterbox"
BLOCK = (32, 8, 1)
PAD_VALUE = 114
PARAMETERS = struct.Struct("PPqqdd12i3f3f")
"""`struct Letterbox` of letterbox.cu. Two addresses come first, which aligns it."""


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
    rows, columns = image.size_hw
    (source_w, source_h), (inner_w, inner_h) = placement.source_wh, placement.inner_wh
    return PARAMETERS.pack(
        *(source, target),
        *(source_w * source_h * 3, rows * columns * 3),
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
