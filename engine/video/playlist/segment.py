"""MPEG-TS segments whose packet counters restart. Imports no numpy."""

from __future__ import annotations

from typing import Protocol

SYNC, PACKET_BYTES = 0x47, 188
PIECE_BYTES = 64 * 1024
_HAS_CONTENT = 0x10
_NO_CONTENT, _DISCONTINUITY = 0x20, 0x80  # ISO 13818-1, 2.4.3.3 and 2.4.3.5


class Body(Protocol):
    """A file-like object for FFmpeg to read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; nothing at the end."""

    def close(self) -> None:
        """Release the connection."""


class Segment:
    """A segment that declares a discontinuity before the first packet of each stream; only MPEG-TS is changed.

    Many servers count the packets of each segment from 0. FFmpeg takes the jump of the counters for lost packets and
    marks the last frames of the previous segment as corrupt. HTTP itself loses nothing.

    Args:
        body: the content of the segment.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self._rest = self._ready = b""
        self._seen: set[int] = set()
        self._is_plain = False

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; nothing at the end."""
        while not self._ready:
            piece = self._body.read(PIECE_BYTES)
            if not piece:
                self._ready, self._rest = self._rest, b""
                break
            self._take(self._rest + piece)
        found, self._ready = self._ready[:size], self._ready[size:]
        return found

    def _take(self, data: bytes) -> None:
        whole = len(data) - len(data) % PACKET_BYTES
        if self._is_plain or data[0] != SYNC:
            self._is_plain, self._ready, self._rest = True, data, b""
            return
        self._ready, self._rest = self._marked(data[:whole]), data[whole:]

    def _marked(self, packets: bytes) -> bytes:
        """Return whole packets, with a declaration before the first one of each stream."""
        parts, begin = [], 0
        for at in range(0, len(packets), PACKET_BYTES):
            if packets[at] != SYNC:
                self._is_plain = True
                break
            stream = (packets[at + 1] & 0x1F) << 8 | packets[at + 2]
            if stream not in self._seen:
                self._seen.add(stream)
                parts += [packets[begin:at], _declaration(stream, packets[at + 3])]
                begin = at
        return b"".join([*parts, packets[begin:]])

    def close(self) -> None:
        """Release the connection."""
        self._body.close()


def _declaration(stream: int, flags: int) -> bytes:
    """Return a packet without content whose counter fits a packet with these flags.

    >>> _declaration(0x100, 0x10)[:6].hex(), len(_declaration(0x100, 0x10))
    ('4701002fb780', 188)
    """
    counter = (flags & 0x0F) - bool(flags & _HAS_CONTENT) & 0x0F
    head = bytes([SYNC, stream >> 8, stream & 0xFF, _NO_CONTENT | counter, PACKET_BYTES - 5, _DISCONTINUITY])
    return head.ljust(PACKET_BYTES, b"\xff")
