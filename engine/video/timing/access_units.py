"""Assembles coded images from the pieces in RTP packets: each as soon as it is complete, with its arrival time.

FFmpeg's own parser considers an image complete only when the next one begins. Every result would be 40 ms older than
necessary at 25 fps and a whole second at 1 fps, and `captured_ns` would not show it. So live H.264 and H.265 over RTSP
is demuxed without that parser (`fflags=noparse`), and this module assembles the pieces.

RTP marks the last piece, but FFmpeg does not pass the mark on. Two regularities reveal it: all pieces of a slice except
the last have the same size, which fills a packet (RFC 6184 and 7798 do not require this, but encoders do it), and
cameras divide each image into the same number of slices. If every frame fits into one packet, the full size is never
seen; a packet too small to be full then ends its slice. Both regularities are observed first and trusted only if they
have held without exception. For a slow camera a few seconds of observation are enough, because its images arrive too
old to use until then. After one exception, images of this connection are complete when the next one begins, as in
FFmpeg. The arrival time is right in both cases. Imports no numpy.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

logger = logging.getLogger(__name__)
CODECS = ("h264", "hevc")
NO_PARSER = "+noparse"  # appended to other FFmpeg flags
MIN_PICTURES, MIN_KEYFRAMES, MIN_SPLIT = 25, 2, 3  # needed without exception before anything is trusted
MAX_BYTES = 1 << 25  # limit for one image, whatever data arrive
SLOW_PICTURES, SLOW_SPLIT, SLOW_NS, SLOW_INTERVAL_NS = 4, 1, 2_500_000_000, 120_000_000  # likewise, for slow cameras
SMALLEST_FULL = 800  # bytes: while every frame has fitted into one packet, a smaller packet does not count as full
_START = b"\x00\x00\x00\x01"
_H264_SLICES, _H264_IDR, _H264_SEI, _RECOVERY_POINT = range(1, 6), 5, 6, 6
_HEVC_SLICES, _HEVC_KEYFRAMES = range(32), range(16, 24)


@dataclass(slots=True)
class AccessUnit:
    """One coded image.

    Attributes:
        data: its pieces, in the form that the decoder accepts.
        pts: stream time of its pieces.
        is_keyframe: decoding can begin here.
        is_corrupt: FFmpeg has marked a piece as corrupt.
        waited_ns: total wait for its pieces.
        arrived_ns: when the last piece arrived, by the caller's clock.
        last: the caller's `packet` of the last piece.
    """

    pts: int | None
    data: bytearray = field(default_factory=bytearray)
    is_keyframe: bool = False
    is_corrupt: bool = False
    waited_ns: int = 0
    arrived_ns: int = 0
    last: object = None
    slices: int = 0


class Piece(NamedTuple):
    """The payload of one RTP packet.

    Attributes:
        data: with a start code before each unit that begins in it.
        pts: stream time.
        waited_ns: how long the reader waited for it.
        arrived_ns: when it arrived.
        is_corrupt: FFmpeg has marked it as corrupt.
        packet: passed on as `AccessUnit.last`.
    """

    data: bytes
    pts: int | None
    waited_ns: int = 0
    arrived_ns: int = 0
    is_corrupt: bool = False
    packet: object = None


class AccessUnits:
    """Assembles pieces into coded images.

    Args:
        codec: `h264` or `hevc`.

    >>> units, piece = AccessUnits("h264"), lambda pts: Piece(bytes([0, 0, 0, 1, 0x65, 0x88]), pts)
    >>> [unit.pts for pts in (0, 1, 2) for unit in units.add(piece(pts))], [unit.pts for unit in units.rest()]
    ([0, 1], [2])
    """

    def __init__(self, codec: str) -> None:
        self._is_hevc = codec == "hevc"
        self._header = 6 if self._is_hevc else 5  # start code and header of the first piece of a slice
        self._unit: AccessUnit | None = None
        self._given: AccessUnit | None = None  # the image returned last, while pieces with its time may follow
        self._before = bytearray()  # data that followed it and belongs to the next image
        self._size = self._full = 0  # bytes of the latest piece, and of one that does not end its slice
        self._is_open = False  # whether the current unit seems to continue in the next piece
        self._first: int | None = None  # slices of the first image, which may be incomplete
        self._slices = self._pictures = self._keyframes = self._splits = 0
        self._began_ns = self._lasted_ns = 0  # arrival of the first image, and time from there to the last
        self._is_regular = True

    @property
    def is_trusted(self) -> bool:
        """Whether an image is returned as soon as it seems complete."""
        is_split = self._splits >= MIN_SPLIT or not self._full
        proven = self._pictures >= MIN_PICTURES and self._keyframes >= MIN_KEYFRAMES and is_split
        return self._is_regular and (proven or self._is_slow())

    def _is_slow(self) -> bool:
        """Whether the camera is slow and was observed for long enough to trust it without more images."""
        return (
            self._pictures >= SLOW_PICTURES
            and (self._splits >= SLOW_SPLIT or not self._full)
            and self._lasted_ns >= max(SLOW_NS, self._pictures * SLOW_INTERVAL_NS)
        )

    def add(self, piece: Piece) -> list[AccessUnit]:
        """Add a piece and return the images that are now complete."""
        is_start = piece.data.startswith(_START)
        begins = is_start and self._begins_picture(piece.data)
        if self._given is not None and self._given.pts == piece.pts and not begins:
            self._add_late(piece)
            return []
        complete = []
        if self._unit is not None and (self._unit.pts != piece.pts or self._is_over(self._unit, begins)):
            complete += self.rest()
        if self._unit is None:
            self._given, self._unit = None, AccessUnit(piece.pts, self._before)
            self._before = bytearray()
        unit = self._unit
        self._measure(piece.data, is_start)
        if is_start:
            self._read_headers(unit, piece.data)
        self._join(unit, piece)
        if not self._is_open and unit.slices == self._slices and self.is_trusted:
            self._given = unit
            complete += self.rest()
        return complete

    def rest(self) -> list[AccessUnit]:
        """Flush the current image."""
        unit, self._unit = self._unit, None
        if unit is None:
            return []
        self._learn(unit)
        return [unit]

    def _is_over(self, unit: AccessUnit, begins: bool) -> bool:
        """Return whether an image ends although the next piece has the same stream time."""
        return (begins and unit.slices > 0) or len(unit.data) > MAX_BYTES

    def _read_headers(self, unit: AccessUnit, data: bytes) -> None:
        """Count the slices that begin in a piece, and record whether decoding can begin there."""
        for kind, start in self._kinds(data):
            if self._is_slice(kind):
                unit.slices += 1
                unit.is_keyframe |= kind in _HEVC_KEYFRAMES if self._is_hevc else kind == _H264_IDR
            elif not self._is_hevc and kind == _H264_SEI:
                unit.is_keyframe |= has_recovery_point(data[start + 1 :])

    def _join(self, unit: AccessUnit, piece: Piece) -> None:
        unit.data += piece.data
        unit.is_corrupt |= piece.is_corrupt
        unit.waited_ns += piece.waited_ns
        unit.arrived_ns, unit.last = piece.arrived_ns, piece.packet

    def _measure(self, data: bytes, is_start: bool) -> None:
        """Predict whether the unit in a piece continues in the next one, and check the previous prediction."""
        if not is_start:
            self._full = self._full or self._size
            self._check(self._size == self._full, "the pieces of a slice differ in size")
        self._size = len(data) - self._header if is_start else len(data)
        self._splits += not is_start and self._size < self._full
        may_go_on = self._size == self._full if self._full else self._size >= SMALLEST_FULL
        self._is_open = may_go_on and not (is_start and data.find(_START, len(_START)) > 0)

    def _learn(self, unit: AccessUnit) -> None:
        """Compare a complete image with the earlier ones."""
        self._began_ns = self._began_ns or unit.arrived_ns
        self._lasted_ns = unit.arrived_ns - self._began_ns
        self._pictures += 1
        self._keyframes += unit.is_keyframe
        if self._first is None:
            self._first = unit.slices
            return
        self._slices = self._slices or unit.slices
        is_less = unit.slices < self._slices and (unit.is_corrupt or self.is_trusted)
        is_same = unit.slices == self._slices and self._first <= self._slices
        self._check(is_less or is_same, "frames have different numbers of slices")

    def _add_late(self, piece: Piece) -> None:
        """Keep data of the next image; a late slice of the returned image is lost and ends the trust."""
        kinds = [kind for kind, _ in self._kinds(piece.data)]
        is_slice = any(map(self._is_slice, kinds)) or (not kinds and not self._before)
        self._measure(piece.data, piece.data.startswith(_START))
        self._check(not is_slice, "a frame continued after it had counted as complete")
        if not is_slice and len(self._before) < MAX_BYTES:
            self._before += piece.data

    def _check(self, holds: bool, what: str) -> None:
        if self._is_regular and not holds:
            self._is_regular = False
            logger.info("a frame now counts as complete only when the next one begins: %s", what)

    def _begins_picture(self, data: bytes) -> bool:
        """Return whether a slice with the first macroblock or coding tree begins here, which marks a new image.

        This separates images even if a camera gives several of them the same stream time.
        """
        header = self._header - len(_START)
        return any(
            self._is_slice(kind) and place + header < len(data) and data[place + header] & 0x80
            for kind, place in self._kinds(data)
        )

    def _is_slice(self, kind: int) -> bool:
        return kind in (_HEVC_SLICES if self._is_hevc else _H264_SLICES)

    def _kinds(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield the type and header offset of each unit that begins in a piece."""
        if not data.startswith(_START):
            return
        place = 0
        while place >= 0 and place + len(_START) < len(data):
            place += len(_START)
            yield (data[place] >> 1 & 0x3F if self._is_hevc else data[place] & 0x1F), place
            place = data.find(_START, place)


def has_recovery_point(sei: bytes) -> bool:
    """Return whether an H.264 SEI message (without its header) marks a point to begin decoding, as in FFmpeg's parser.

    >>> has_recovery_point(bytes([6, 1, 0x84, 0x80])), has_recovery_point(bytes([5, 2, 6, 6, 0x80]))
    (True, False)
    """
    place = 0
    while place + 2 < len(sei):
        numbers = []
        for _ in ("kind", "size"):
            value = 0
            while place < len(sei) and sei[place] == 0xFF:
                value, place = value + 0xFF, place + 1
            numbers.append(value + (sei[place] if place < len(sei) else 0))
            place += 1
        if numbers[0] == _RECOVERY_POINT:
            return True
        place += numbers[1]
    return False
