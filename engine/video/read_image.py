"""Reads and writes image files as BGR arrays: the only place that does, so that the same rules apply everywhere.

Files are read and written as bytes, whatever their names; the content decides how they are decoded. A truncated or
damaged image is an error, never a frame whose missing part is grey.
"""

from __future__ import annotations

import logging
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import MissingDependencyError
from engine.optional import require
from engine.paths import utf8_text
from engine.video.sizes.image_header import claims_more, is_heif
from engine.video.sizes.limits import MAX_PIXELS, check_image
from engine.video.sizes.more_images import has_more_images

logger = logging.getLogger(__name__)
IMAGE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("avif", "bmp", "gif", "heic", "heif", "jfif", "jp2", "jpe", "jpeg", "jpg"),
        *("pam", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
BYTES_PER_PIXEL = 16
"""Largest file size per pixel allowed: a file with more than four 32-bit channels per pixel is not an image."""
_END_OF_IMAGE = b"\xff\xd9"
_HUFFMAN_FRAMES = (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""A marker that has a length or ends the image, as opposed to stuffing or a restart within the coded pixels."""


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return an image as (H, W, 3) BGR, made upright by its EXIF orientation.

    Of several pages or frames it is the first; the log says so.

    Args:
        path: the file.
        max_pixels: largest width times height; checked in the header, before the pixels are decoded.

    Raises:
        FrameTooLargeError: it claims more pixels.
        ValueError: it is not an image, is damaged or truncated, or its decoder is not installed.
        OSError: it cannot be read.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("it is not a file: a pipe or a device would never end")
    size = facts.st_size
    if size > BYTES_PER_PIXEL * max_pixels:
        raise ValueError(f"{size / 1e6:.0f} MB is too large for an image of {max_pixels / 1e6:g} million pixels")
    encoded = np.fromfile(path, np.uint8)
    image = decode_image(encoded, max_pixels)
    if has_more_images(encoded.data):
        logger.warning(
            "%s holds several images, of which only the first is used: save them as files of their own, or as a video",
            utf8_text(str(path)),
        )
    return image


def decode_image(encoded: NDArray[np.uint8], max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return an encoded image as (H, W, 3) BGR, made upright by its EXIF orientation.

    Args:
        encoded: (N,) the bytes of the file.
        max_pixels: largest width times height.

    Raises:
        FrameTooLargeError: it claims more pixels.
        ValueError: it is not an image, is damaged or truncated, or its decoder is not installed.
    """
    import cv2

    check_image(encoded.data, max_pixels)
    if claims_more(encoded.data):
        raise ValueError("a part of the PNG claims more bytes than the file holds: copy it again")
    damage = damage_of_jpeg(encoded.tobytes())
    if damage is not None:
        raise ValueError(f"the JPEG is {damage}: copy it again")
    try:
        image: NDArray[np.uint8] | None = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot decode it: {error.err or 'damaged'}") from error
    if image is None and is_heif(encoded.data):
        return _decode_heif(encoded)
    if image is None:
        raise ValueError("OpenCV cannot decode it: the file is damaged or truncated")
    return image


def damage_of_jpeg(data: bytes) -> str | None:
    r"""Return what is wrong with a JPEG; None if it is intact, or if the data is not a JPEG.

    OpenCV silently fills a missing part with grey and shows a damaged part as noise. FFmpeg notices damage of a
    few hundred bytes and more; kinds that it does not decode (arithmetic coding, 12 bits) are left to OpenCV.

    >>> damage_of_jpeg(b"\xff\xd8 \xff\xda"), damage_of_jpeg(b"BM")
    ('truncated', None)
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    end, is_common = _first_image(data)
    if end is None:
        return "truncated"
    return "damaged" if is_common and not _decodes(data[:end]) else None


def _first_image(data: bytes) -> tuple[int | None, bool]:
    """Return the length of the first image, None if its end is missing, and whether it is Huffman-coded in 8 bits.

    Other images may follow it, and its own preview lies within a segment, which is skipped.
    """
    at, is_common = 2, False
    while (marker := _MARKER.search(data, at)) is not None:
        at = marker.end()
        if marker.group() == _END_OF_IMAGE:
            return at, is_common
        is_common |= marker.group() in _HUFFMAN_FRAMES and data[at + 2 : at + 3] == b"\x08"
        at += max(int.from_bytes(data[at : at + 2], "big"), 2)
    return None, is_common


def _decodes(data: bytes) -> bool:
    import av

    decoder: Any = av.codec.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    decoder.options = {"err_detect": "explode"}
    try:
        return bool([*decoder.decode(av.Packet(data)), *decoder.decode(None)])
    except (av.error.FFmpegError, ValueError):
        return False


def _decode_heif(encoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode with libheif a HEIC or AVIF image that OpenCV cannot decode."""
    try:
        pillow_heif: Any = require("pillow_heif", extra="heif")
    except MissingDependencyError as error:
        raise ValueError(f"HEIC needs a decoder: {error}") from error
    try:
        image = pillow_heif.read_heif(encoded.tobytes(), convert_hdr_to_8bit=True, bgr_mode=True)
    except (ValueError, RuntimeError, OSError, SyntaxError) as error:
        raise ValueError(f"libheif cannot decode it: {error}") from error
    pixels: NDArray[np.uint8] = np.asarray(image)
    return np.ascontiguousarray(pixels[:, :, :3] if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2))


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image in the format that the suffix names.

    Args:
        path: the file; replaced if it exists.
        image: (H, W, 3) BGR.

    Raises:
        ValueError: OpenCV cannot write this format.
        OSError: the file cannot be written.
    """
    import cv2

    try:
        is_encoded, encoded = cv2.imencode(path.suffix, image)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot write {path.suffix} files: {error.err}") from error
    if not is_encoded:
        raise ValueError(f"OpenCV cannot write {path.suffix} files of this size")
    path.write_bytes(encoded.tobytes())


def can_write(path: Path) -> bool:
    """Return whether OpenCV can write the image format that the suffix of a path names."""
    import cv2

    return bool(cv2.haveImageWriter(f"image{path.suffix}"))
