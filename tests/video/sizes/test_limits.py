"""The limit of a frame's size: every kind of image is checked by its header, before anything is allocated."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.video.sizes.image_header import image_size_wh
from engine.video.sizes.limits import MAX_PIXELS, FrameTooLargeError, check_image, check_size

SUFFIXES = ("bmp", "jpg", "jp2", "png", "ppm", "tif", "webp", "pgm", "pbm", "pam")


def encoded(suffix: str, width: int = 57, height: int = 33, *flags: int) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(f".{suffix}", image[:, :, 0] if suffix in ("pgm", "pbm") else image, flags)[1].tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_size_is_read_from_the_header(suffix: str) -> None:
    assert image_size_wh(encoded(suffix)) == (57, 33)


def test_the_size_of_a_lossless_webp_is_read() -> None:
    assert image_size_wh(encoded("webp", 57, 33, cv2.IMWRITE_WEBP_QUALITY, 101)) == (57, 33)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("length", [0, 1, 4, 12, 17, 20])
def test_a_header_that_is_cut_short_is_refused(suffix: str, length: int) -> None:
    with pytest.raises(ValueError, match="not a BMP, JPEG"):
        check_image(encoded(suffix)[: min(length, 6 if suffix in ("ppm", "pgm", "pbm") else length)])


def test_what_a_header_claims_counts_and_not_what_is_there() -> None:
    forged = bytearray(encoded("jpg"))
    at = forged.find(b"\xff\xc0")
    forged[at + 5 : at + 9] = struct.pack(">HH", 30000, 30000)
    with pytest.raises(FrameTooLargeError, match="30000x30000, 900 million pixels.*raise max_pixels"):
        check_image(bytes(forged))


def test_a_size_behind_a_large_comment_and_a_thumbnail_is_the_one_of_the_image() -> None:
    plain = encoded("jpg", 640, 480)
    thumbnail = encoded("jpg", 16, 16)
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", 60002) + (thumbnail + bytes(60000))[:60000] for _ in range(20))
    assert image_size_wh(plain[:2] + segments + plain[2:]) == (640, 480)


@pytest.mark.parametrize("stuffing", [b"\x00", b"\xff", b"\xff\x01", b"\xff\xe0\x00\x02"])
def test_a_file_of_stuffing_ends_the_search(stuffing: bytes) -> None:
    assert image_size_wh(b"\xff\xd8" + stuffing * 1_000_000) is None


@given(st.sampled_from(SUFFIXES).map(encoded), st.data())
def test_damaged_headers_give_a_size_or_none(image: bytes, data: st.DataObject) -> None:
    damaged = bytearray(image[: data.draw(st.integers(0, len(image)))])
    for _ in range(data.draw(st.integers(0, 8)) if damaged else 0):
        damaged[data.draw(st.integers(0, min(len(damaged), 64) - 1))] = data.draw(st.integers(0, 255))
    size = image_size_wh(bytes(damaged))
    assert size is None or len(size) == 2


@pytest.mark.parametrize(("width", "height"), [(8000, 8000), (7680, 4320), (1, MAX_PIXELS)])
def test_sizes_up_to_the_limit_are_allowed(width: int, height: int) -> None:
    check_size(width, height)


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (65500, 65500), (1 << 31, 1 << 31)])
def test_sizes_above_the_limit_are_refused(width: int, height: int) -> None:
    with pytest.raises(FrameTooLargeError):
        check_size(width, height)


def test_an_offset_beyond_every_file_is_no_size() -> None:
    """Found by tools/attack.py: a BigTIFF whose directory lies at 2**64 - 1."""
    assert image_size_wh(b"II\x2b\x00\x08\x00\x00\x00" + b"\xff" * 64) is None
