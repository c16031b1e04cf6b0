"""The size of an image from its header, without decoding it. Imports no numpy.

Covers what `engine.video.read_image` reads. Layouts: ITU-T T.81 (JPEG), ISO 15444-1 (JPEG 2000), ISO 23008-12 (HEIF:
HEIC and AVIF), the PNG, GIF89a, TIFF 6.0 and WebP specifications, Windows BMP, Netpbm. Every loop is bounded by the
length of the data.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping

_PNM = re.compile(
    rb"P[1-6](?:\s|#[^\n\r]{0,1000}[\n\r]){1,100}(\d{1,9})(?:\s|#[^\n\r]{0,1000}[\n\r]){1,100}(\d{1,9})\s"
)
_PAM = re.compile(rb"WIDTH\s{1,9}(\d{1,9})\s.{0,500}?HEIGHT\s{1,9}(\d{1,9})\s", re.S)
_JPEG_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_NUMBERS: Mapping[int, str] = {1: "B", 3: "H", 4: "I", 16: "Q"}
_PNG = b"\x89PNG\r\n\x1a\n"
_HEAD_BYTES = 4096
_META_BYTES = 1 << 20
_MAX_TAGS = 10_000
_MAX_STRAY = 100_000
_MAX_ITEMS = 10_000
_HEIF_BRANDS = frozenset({b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1", b"miaf"})
_SEQUENCE_BRANDS = frozenset({b"avis", b"hevc", b"hevx", b"msf1"})

Size = tuple[int, int]


def image_size_wh(data: bytes | memoryview) -> Size | None:
    """Return the width and height that an image claims, None if its format is unknown or it is truncated.

    >>> image_size_wh(b"P5 640 480 255 ..."), image_size_wh(b"hello"), image_size_wh(b"")
    ((640, 480), None, None)
    """
    view = memoryview(data)
    head = bytes(view[:_HEAD_BYTES])
    for mark, offset, read in _KINDS:
        if head.startswith(mark, offset):
            try:
                return read(view, head)
            except (struct.error, IndexError, KeyError, OverflowError):  # an offset of 64 bits
                return None
    return None


def claims_more(data: bytes | memoryview) -> bool:
    r"""Return whether a chunk of a PNG claims more bytes than the file has: OpenCV would allocate all of them.

    >>> claims_more(b"\x89PNG\r\n\x1a\n" + b"\x48\0\0\0IDAT"), claims_more(b"BM")
    (True, False)
    """
    view = memoryview(data)
    if bytes(view[: len(_PNG)]) != _PNG:
        return False
    at = len(_PNG)
    while at + 8 <= len(view):
        length: int = struct.unpack_from(">I", view, at)[0]
        if at + 8 + length > len(view):
            return True
        if bytes(view[at + 4 : at + 8]) == b"IEND":
            return False
        at += 12 + length
    return False


def _jpeg(view: memoryview, head: bytes) -> Size | None:
    """Return the size in the first frame header, skipping earlier segments by their lengths."""
    at, stray = 2, 0
    while at + 9 <= len(view) and stray < _MAX_STRAY:
        marker = view[at + 1]
        if view[at] != 0xFF or marker == 0xFF:  # libjpeg skips fill bytes and stray bytes between segments
            at, stray = at + 1, stray + 1
        elif marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", view, at + 5)
            return width, height
        elif marker in _JPEG_ALONE or marker == 0:
            at, stray = at + 2, stray + 2
        else:
            at += 2 + max(struct.unpack_from(">H", view, at + 2)[0], 2)
            stray += 1
    return None


def _png(view: memoryview, head: bytes) -> Size | None:
    return _pair(">II", head, 16) if head[12:16] == b"IHDR" else None


def _bmp(view: memoryview, head: bytes) -> Size | None:
    if struct.unpack_from("<I", head, 14)[0] == 12:  # OS/2
        return _pair("<HH", head, 18)
    width, height = _pair("<ii", head, 18)
    return abs(width), abs(height)


def _webp(view: memoryview, head: bytes) -> Size | None:
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", head, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = _pair("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff(view: memoryview, head: bytes) -> Size | None:
    """Return the size of the first image; if a tag occurs twice, the larger value counts."""
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    at: int = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)[0]
    count: int = struct.unpack_from(order + ("Q" if big else "H"), view, at)[0]
    found = {_TIFF_WIDTH: 0, _TIFF_HEIGHT: 0}
    entry_bytes, value_at, at = (20, 12, at + 8) if big else (12, 8, at + 2)
    for number in range(min(count, _MAX_TAGS)):
        entry = at + number * entry_bytes
        tag, kind = struct.unpack_from(order + "HH", view, entry)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            size = int(struct.unpack_from(order + _TIFF_NUMBERS[kind], view, entry + value_at)[0])
            found[tag] = max(found[tag], size)
    return found[_TIFF_WIDTH], found[_TIFF_HEIGHT]


def _pnm(view: memoryview, head: bytes) -> Size | None:
    found = (_PAM if head.startswith(b"P7") else _PNM).search(head)
    return (int(found[1]), int(found[2])) if found else None


def _jp2(view: memoryview, head: bytes) -> Size | None:
    """Return the size of the codestream (SIZ), which the decoder allocates."""
    at = head.find(b"\xff\x4f\xff\x51")
    if at < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", head, at + 8)
    return right - left, bottom - top


def _gif(view: memoryview, head: bytes) -> Size | None:
    return _pair("<HH", head, 6)


def _heif(view: memoryview, head: bytes) -> Size | None:
    """Return the largest size of any item (`ispe`): that of the whole image if it consists of tiles."""
    if head[8:12] not in _HEIF_BRANDS | _SEQUENCE_BRANDS:
        return None
    data = bytes(view[:_META_BYTES])
    found: list[Size] = []
    at = data.find(b"ispe")
    while at >= 0 and len(found) < _MAX_ITEMS:
        found.append(_pair(">II", data, at + 8))
        at = data.find(b"ispe", at + 4)
    return max(found, key=lambda size: size[0] * size[1], default=None)


def is_heif(data: bytes | memoryview) -> bool:
    """Return whether data are a HEIC or AVIF file, a still image or a sequence."""
    head = bytes(memoryview(data)[:16])
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS | _SEQUENCE_BRANDS


def is_image_sequence(head: bytes) -> bool:
    """Return whether a HEIF file holds an image sequence: `avis`, `hevc` and similar brands.

    Args:
        head: at least the first 16 bytes of the file.
    """
    return head[4:8] == b"ftyp" and head[8:12] in _SEQUENCE_BRANDS


def _pair(layout: str, head: bytes, offset: int) -> Size:
    first, second = struct.unpack_from(layout, head, offset)
    return first, second


_KINDS: tuple[tuple[bytes, int, Callable[[memoryview, bytes], Size | None]], ...] = (
    (b"\xff\xd8", 0, _jpeg),
    (_PNG, 0, _png),
    (b"BM", 0, _bmp),
    (b"WEBP", 8, _webp),
    (b"II", 0, _tiff),
    (b"MM", 0, _tiff),
    (b"jP  ", 4, _jp2),
    (b"\xff\x4f\xff\x51", 0, _jp2),
    (b"GIF8", 0, _gif),
    (b"ftyp", 4, _heif),
    *((b"P%d" % number, 0, _pnm) for number in range(1, 8)),
)
