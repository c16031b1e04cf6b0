"""Whether an image file holds more than one image, of which only the first is read. Imports no numpy.

Layouts: TIFF 6.0, WebP, APNG and GIF89a specifications. Every loop is bounded by the length of the data.
"""

from __future__ import annotations

import struct

from engine.video.sizes.image_header import is_image_sequence

_PNG = b"\x89PNG\r\n\x1a\n"
_KIND_OF_PAGE = 254
_REDUCED_OR_MASK = 0b101  # previews and masks are no pages
_MAX_TAGS, _MAX_PAGES, _MAX_BLOCKS = 10_000, 100, 200_000
_ANIMATED = 0x02
_GIF_HEAD, _GIF_IMAGE, _GIF_EXTENSION = 13, 0x2C, 0x21


def has_more_images(data: bytes | memoryview) -> bool:
    r"""Return whether a file has further pages or frames: TIFF, WebP, PNG, GIF, HEIC and AVIF.

    >>> has_more_images(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x08acTL\0\0\0\x05\0\0\0\0"), has_more_images(b"BM")
    (True, False)
    """
    view = memoryview(data)
    head = bytes(view[:32])
    try:
        if head[:2] in (b"II", b"MM"):
            return _has_pages(view, head)
        if head.startswith(_PNG):
            return _is_animated_png(view)
        if head.startswith(b"GIF8"):
            return _is_animated_gif(view)
    except (struct.error, IndexError, OverflowError):
        return False
    is_webp = head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & _ANIMATED)
    return is_webp or is_image_sequence(head)


def _has_pages(view: memoryview, head: bytes) -> bool:
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    offset, count_of, entry_bytes = ("Q", "Q", 20) if big else ("I", "H", 12)
    at: int = struct.unpack_from(order + offset, head, 8 if big else 4)[0]
    tags = 0
    for page in range(_MAX_PAGES):
        count: int = struct.unpack_from(order + count_of, view, at)[0]
        tags += count
        if tags > _MAX_TAGS:
            return False
        first = at + struct.calcsize(count_of)
        entries = range(first, first + count * entry_bytes, entry_bytes)
        kinds = [
            struct.unpack_from(order + "I", view, entry + (12 if big else 8))[0]
            for entry in entries
            if struct.unpack_from(order + "H", view, entry)[0] == _KIND_OF_PAGE
        ]
        if page and not any(kind & _REDUCED_OR_MASK for kind in kinds):
            return True
        at = struct.unpack_from(order + offset, view, first + count * entry_bytes)[0]
        if at == 0:
            return False
    return False


def _is_animated_png(view: memoryview) -> bool:
    at = len(_PNG)
    while at + 12 <= len(view):
        length: int = struct.unpack_from(">I", view, at)[0]
        kind = bytes(view[at + 4 : at + 8])
        if kind == b"acTL":
            return bool(struct.unpack_from(">I", view, at + 8)[0] > 1)
        if kind == b"IDAT":
            return False
        at += 12 + length
    return False


def _is_animated_gif(view: memoryview) -> bool:
    at, images, blocks = _GIF_HEAD + _colours(view[10]), 0, 0
    while images < 2 and blocks < _MAX_BLOCKS and view[at] in (_GIF_IMAGE, _GIF_EXTENSION):
        blocks += 1
        if view[at] == _GIF_IMAGE:
            images += 1
            at += 11 + _colours(view[at + 9])
        else:
            at += 2
        while view[at] and blocks < _MAX_BLOCKS:
            at, blocks = at + 1 + view[at], blocks + 1
        at += 1
    return images > 1


def _colours(flags: int) -> int:
    """Return the length of a colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
