"""Files with several images: the first is used, and the log says so."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engine.video.read_image import read_image
from engine.video.sizes.more_images import has_more_images


def animated(path: Path, codec: str, container: str, pix_fmt: str, images: int) -> None:
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        for number in range(images):
            shade = np.full((48, 64, 3), 40 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(shade, format="bgr24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 5)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def pages(path: Path, images: int) -> None:
    assert cv2.imwritemulti(str(path), [np.full((48, 64, 3), 40 * n, np.uint8) for n in range(images)])


def tiff(pages: list[int], order: str = "<", *, big: bool = False) -> bytes:
    """Return the directories of a TIFF whose pages are of these kinds (NewSubfileType)."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head += struct.pack(order + ("HHQ" if big else "I"), *((8, 0, 16) if big else (8,)))
    data = head
    for number, kind in enumerate(pages):
        layout = "QHHQIIQ" if big else "HHHIII"
        after = len(data) + struct.calcsize(order + layout)
        following = after if number + 1 < len(pages) else 0
        tag = (1, 254, 4, 1, kind, *((0,) if big else ()), following)
        data += struct.pack(order + layout, *tag)
    return data


MAKERS: dict[str, Callable[[Path, int], None]] = {
    "a.tif": pages,
    "a.gif": lambda path, images: animated(path, "gif", "gif", "rgb8", images),
    "a.png": lambda path, images: animated(path, "apng", "apng", "rgb24", images),
    "a.webp": lambda path, images: animated(path, "libwebp_anim", "webp", "yuv420p", images),
}


@pytest.mark.parametrize("name", MAKERS)
def test_of_several_images_the_first_is_read_with_a_warning(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    MAKERS[name](tmp_path / name, 5)
    assert read_image(tmp_path / name).mean() < 20
    assert "a." in caplog.text
    assert "holds several images, of which only the first is used" in caplog.text


@pytest.mark.parametrize("name", [*MAKERS, "a.jpg", "a.bmp", "a.jp2", "a.ppm", "b.webp", "b.png"])
def test_a_single_image_is_read_without_a_warning(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    make = MAKERS.get(name, lambda path, _: cv2.imwrite(str(path), image))
    make(tmp_path / name, 1)
    read_image(tmp_path / name)
    assert "several images" not in caplog.text


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("kinds", "expected"), [([0], False), ([0, 0], True), ([0, 1], False), ([0, 4, 1], False), ([0, 1, 2], True)]
)
def test_previews_and_masks_are_no_pages(order: str, *, big: bool, kinds: list[int], expected: bool) -> None:
    assert has_more_images(tiff(kinds, order, big=big)) is expected


@pytest.mark.parametrize("name", MAKERS)
def test_damage_ends_no_search(tmp_path: Path, name: str) -> None:
    MAKERS[name](tmp_path / name, 3)
    good, rng = (tmp_path / name).read_bytes(), random.Random(1)
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(rng.choice((1, 4, 16))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        has_more_images(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)


@pytest.mark.parametrize("size", [8 << 20])
@pytest.mark.parametrize("unit", [b"\x01\x00", b"\x2c" + bytes(10), b"\x21\xff\x00"], ids=["blocks", "images", "more"])
def test_a_long_file_of_short_blocks_takes_no_longer_than_a_short_one(size: int, unit: bytes) -> None:
    def spent_s(data: bytes) -> float:
        begun = time.process_time()
        has_more_images(data)
        return time.process_time() - begun

    head = b"GIF89a" + bytes(7) + b"\x21\xff"
    short, long = (head + unit * (length // len(unit)) for length in (size // 8, size))
    assert min(spent_s(long) for _ in range(3)) < 2 * min(spent_s(short) for _ in range(3)) + 0.05
