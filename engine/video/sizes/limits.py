"""Limits frame sizes before memory is allocated for them. Imports no numpy: the reader process uses it too.

A few bytes of a header can claim any size: a JPEG of 135 kB that claims 30000x30000 makes a decoder request 5 GB. So
one limit, `max_pixels`, holds for every decoder and every image reader. FFmpeg gets it as its own option of that name;
images are refused by their header before OpenCV sees them.
"""

from __future__ import annotations

from engine.video.sizes.image_header import image_size_wh

MAX_PIXELS = 64_000_000
"""Largest width times height: 8000 x 8000. 8K video has 33 million, the largest common photo cameras 61 million."""
BYTES_PER_PIXEL = 24
"""Largest memory of a decoder per pixel: about ten YUV reference frames and two BGR copies."""
FIXED_BYTES = 768_000_000
"""Memory of a decoding process besides its frames: the interpreter, FFmpeg and a GPU driver."""


class FrameTooLargeError(ValueError):
    """A frame or image has more pixels than `max_pixels`."""


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Raise `FrameTooLargeError` if a frame has more than `max_pixels`."""
    if width * height > max_pixels:
        raise FrameTooLargeError(
            f"the frame is {width}x{height}, {width * height / 1e6:.0f} million pixels, and max_pixels is"
            f" {max_pixels / 1e6:g} million: raise max_pixels of the source if that is correct"
        )


def check_image(data: bytes | memoryview, max_pixels: int = MAX_PIXELS) -> None:
    """Check the size in the header of an encoded image before it is decoded.

    Args:
        data: the file, or enough of its beginning to contain the header.
        max_pixels: largest width times height.

    Raises:
        FrameTooLargeError: it claims more pixels.
        ValueError: it is not an image in a known format, or its header is truncated.
    """
    size_wh = image_size_wh(data)
    if size_wh is None:
        raise ValueError(
            "not a BMP, JPEG, JPEG 2000, PNG, PNM, TIFF, WebP, GIF, AVIF or HEIC image, or its header is damaged"
        )
    check_size(*size_wh, max_pixels)


def decoder_bytes(max_pixels: int) -> int:
    """Return the memory limit to set for a decoding process."""
    return FIXED_BYTES + BYTES_PER_PIXEL * max_pixels
