"""What a reader process sends about coded video, over a separate socket: whole messages, long ones in parts.

The process parses untrusted data, so everything that it sends is checked here. Imports no numpy.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from dataclasses import dataclass
from typing import Any

HEAD = struct.Struct(">BIqq")
"""Flags, bytes of the whole message, stream time, wall clock of the arrival."""
INIT, KEY, REST = 1, 2, 4
PART_BYTES = 60_000
MAX_BYTES = 8 * 1024 * 1024
MAX_INIT_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9.]{1,64}")
MAX_FACT = 1 << 62


class VideoFeedError(Exception):
    """A reader process sent something invalid."""


@dataclass(frozen=True, slots=True)
class VideoPiece:
    """An init segment or a fragment.

    Attributes:
        data: of the MP4.
        is_init: whether it is an init segment.
        is_key: whether playing can begin here.
        pts_ns: stream time of the image, the one that its frame has.
        captured_utc_ns: wall clock when it arrived.
        codec: of an init segment, as browsers name it.
        t0_ns: of an init segment: stream time at which the media's own time is 0.
        size_wh: of an init segment: width and height of the images.
    """

    data: bytes
    is_init: bool
    is_key: bool
    pts_ns: int
    captured_utc_ns: int
    codec: str = ""
    t0_ns: int = 0
    size_wh: tuple[int, int] = (0, 0)


def send_piece(sink: socket.socket, piece: VideoPiece) -> None:
    """Send a piece. Raises `OSError` if the other side is gone or does not accept it in time."""
    body = piece.data
    if piece.is_init:
        facts = {"codec": piece.codec, "t0_ns": piece.t0_ns, "size_wh": piece.size_wh}
        body = json.dumps(facts).encode() + b"\x00" + body
    flags = INIT * piece.is_init | KEY * piece.is_key
    for at in range(0, max(len(body), 1), PART_BYTES):
        head = HEAD.pack(flags | (REST if at else 0), len(body), piece.pts_ns, piece.captured_utc_ns)
        sink.sendall(head + body[at : at + PART_BYTES])


class PieceReader:
    """Reassembles pieces from their parts. A truncated piece is dropped."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._missing = 0

    def add(self, message: bytes) -> VideoPiece | None:
        """Accept a message and return the piece that it completes.

        Raises:
            VideoFeedError: our readers never send such a message.
        """
        if len(message) < HEAD.size:
            raise VideoFeedError(f"a message of {len(message)} bytes")
        flags, size, pts_ns, captured_utc_ns = HEAD.unpack_from(message)
        body = message[HEAD.size :]
        if not 0 < size <= (MAX_INIT_BYTES if flags & INIT else MAX_BYTES):
            raise VideoFeedError(f"a piece of {size} bytes")
        if not flags & REST:
            self._parts, self._missing = [], size
        elif not self._parts:
            raise VideoFeedError("the rest of a piece that never began")
        self._parts.append(body)
        self._missing -= len(body)
        if self._missing < 0:
            raise VideoFeedError("more bytes than announced")
        if self._missing:
            return None
        data, self._parts = b"".join(self._parts), []
        facts, data = _facts(data) if flags & INIT else ({}, data)
        return VideoPiece(data, bool(flags & INIT), bool(flags & KEY), pts_ns, captured_utc_ns, **facts)


def _facts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the checked facts before an init segment, and the segment."""
    text, mark, segment = data.partition(b"\x00")
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VideoFeedError("facts that are not JSON") from error
    match facts:
        case {"codec": str(codec), "t0_ns": int(t0_ns), "size_wh": [int(width), int(height)]} if len(facts) == 3:
            is_sound = _NAME.fullmatch(codec) and abs(t0_ns) < MAX_FACT and 0 < width < 65536 and 0 < height < 65536
            if is_sound and mark and segment:
                return {"codec": codec, "t0_ns": t0_ns, "size_wh": (width, height)}, segment
    raise VideoFeedError("malformed facts")
