"""Writes coded images as fragmented MP4, one fragment per image, in the form that browsers play. Imports no numpy.

FFmpeg's muxer would hold back each fragment until the next image arrives, because it waits for its duration; every
viewer would be one frame interval later. Boxes: ISO/IEC 14496-12 and -15.
"""

from __future__ import annotations

import struct
from fractions import Fraction

from engine.video.coded.nal import ParameterSets

TIMESCALE = 1_000_000
TRACK = 1
SQUARE = Fraction(1)
MAX_SIDE = 0xFFFF
_SYNC, _NOT_SYNC = 0x02000000, 0x01010000  # sample flags: depends on none / on others, and is not a starting point
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def box(kind: bytes, *parts: bytes) -> bytes:
    """Return a box.

    >>> box(b"free", b"ab")
    b'\\x00\\x00\\x00\\nfreeab'
    """
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def init_segment(sets: ParameterSets, width: int, height: int, pixel_aspect: Fraction = SQUARE) -> bytes:
    """Return what a player needs before the first fragment.

    Args:
        sets: complete parameter sets.
        width: pixels of an image.
        height: rows of an image.
        pixel_aspect: width by height of a pixel; browsers ignore what the video itself says.
    """
    zero = b"\x00" * 4
    entry_head = bytes(6) + struct.pack(">H", 1) + bytes(16) + struct.pack(">HH", width, height)
    entry_head += struct.pack(">IIIH", 0x480000, 0x480000, 0, 1) + bytes(32) + struct.pack(">Hh", 24, -1)
    names = (b"avc1", b"avcC") if sets.codec == "h264" else (b"hvc1", b"hvcC")
    aspect = struct.pack(">II", pixel_aspect.numerator, pixel_aspect.denominator)
    entry = box(names[0], entry_head, box(names[1], sets.configuration), box(b"pasp", aspect))
    table = box(
        b"stbl",
        box(b"stsd", zero, struct.pack(">I", 1), entry),
        box(b"stts", zero, zero),
        box(b"stsc", zero, zero),
        box(b"stsz", zero, zero, zero),
        box(b"stco", zero, zero),
    )
    location = box(b"dinf", box(b"dref", zero, struct.pack(">I", 1), box(b"url ", struct.pack(">I", 1))))
    media = box(
        b"mdia",
        box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, TIMESCALE, 0, 0x55C4, 0)),
        box(b"hdlr", zero, zero, b"vide", bytes(12), b"video\x00"),
        box(b"minf", box(b"vmhd", struct.pack(">I", 1), bytes(8)), location, table),
    )
    size = struct.pack(">II", min(round(width * pixel_aspect), MAX_SIDE) << 16, height << 16)
    track = box(b"tkhd", struct.pack(">IIIIII", 3, 0, 0, TRACK, 0, 0), bytes(16), _MATRIX, size)
    movie = box(
        b"mvhd", struct.pack(">IIIIIIH", 0, 0, 0, TIMESCALE, 0, 0x10000, 0x100), bytes(10), _MATRIX, bytes(24),
        struct.pack(">I", TRACK + 1),
    )  # fmt: skip
    extends = box(b"mvex", box(b"trex", struct.pack(">IIIIII", 0, TRACK, 1, 0, 0, 0)))
    return box(b"ftyp", b"iso5", struct.pack(">I", 512), b"iso5iso6mp41") + box(
        b"moov", movie, box(b"trak", track, media), extends
    )


def fragment(number: int, sample: bytes, *, dts: int, shift: int, duration: int, is_key: bool) -> bytes:
    """Return one image as a fragment.

    Args:
        number: of the fragment, from 1.
        sample: the image's units, each after its length.
        dts: decode time in `TIMESCALE`, at least 0.
        shift: from the decode time to the presentation time.
        duration: in `TIMESCALE`; while unknown, that of the previous image.
        is_key: whether decoding can begin here.
    """
    flags = _SYNC if is_key else _NOT_SYNC
    run = struct.pack(">IIiIIIi", 0x01000F01, 1, _MOOF_BYTES + 8, duration, len(sample), flags, shift)
    traf = box(
        b"traf",
        box(b"tfhd", struct.pack(">II", 0x020000, TRACK)),
        box(b"tfdt", struct.pack(">IQ", 0x01000000, dts)),
        box(b"trun", run),
    )
    return box(b"moof", box(b"mfhd", struct.pack(">II", 0, number)), traf) + box(b"mdat", sample)


_MOOF_BYTES = 8 + 16 + 8 + 16 + 20 + 36
"""Size of every `moof` here: its head, `mfhd`, and `traf` with `tfhd`, `tfdt` and `trun`."""
