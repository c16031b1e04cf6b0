"""The reader process's end: turns the packets that it decodes anyway into fragments while there are viewers."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from fractions import Fraction
from typing import Any

from engine.video.coded.fmp4 import SQUARE, fragment, init_segment
from engine.video.coded.nal import ParameterSets, sets_in_header, units_of
from engine.video.coded.pieces import MAX_BYTES, VideoPiece, send_piece
from engine.video.sizes.displayed import pixel_aspect_of
from engine.video.timing.access_units import CODECS
from engine.video.timing.arrivals import pts_ns

logger = logging.getLogger(__name__)
WANTED, UNWANTED = b"1", b"0"
PATIENCE_S = 0.02  # time for the engine to take an image; after that, the video skips to the next keyframe
SEND_BUFFER_BYTES = 4 * 1024 * 1024
FIRST_DURATION_US = 100_000  # assumed until two images have arrived; a gap would stop players, an overlap does not
MAX_DURATION_US = 1_000_000
NS_PER_US = 1000
MAX_HELD = 50
"""Maximum number of packets waiting for the image size."""


class VideoOutlet:
    """Sends the coded video of one connection after the other, while the engine wants it.

    Args:
        sink: connected to the engine's `VideoFeed`.
    """

    def __init__(self, sink: socket.socket) -> None:
        self._sink = sink
        self._sink.settimeout(PATIENCE_S)
        with suppress(OSError):
            self._sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._is_wanted = False
        self._film: _Film | None = None

    def begin(self) -> None:
        """Start over with a new connection."""
        self._film = None

    def take(self, packet: Any, stream: Any) -> None:
        """Send a packet of the stream if it is wanted; never raises, never waits for long."""
        self._hear()
        if not self._is_wanted:
            self._film = None
            return
        if self._film is None:
            codec = stream.codec_context.name
            self._film = _Film(stream) if codec in CODECS else None
        if self._film is None:
            return
        try:
            for piece in self._film.pieces(packet):
                send_piece(self._sink, piece)
        except (OSError, ValueError) as error:
            logger.debug("the video skips to the next keyframe: %s", error)
            self._film.skip()

    def close(self) -> None:
        """Hang up; harmless when repeated."""
        self._sink.close()

    def _hear(self) -> None:
        with suppress(OSError):
            said = self._sink.recv(64, socket.MSG_DONTWAIT)
            self._is_wanted = said[-1:] == WANTED


class _Film:
    """One connection's video from a keyframe on."""

    def __init__(self, stream: Any) -> None:
        self._stream, context = stream, stream.codec_context
        self._context = context
        self._held: list[Any] = []
        self._time_base = Fraction(stream.time_base)
        self._sets = sets_in_header(context.name, bytes(context.extradata or b""))
        self._t0_ns: int | None = None
        self._last_us = 0
        self._duration_us = FIRST_DURATION_US
        self._number = 0
        self._is_clean = False

    def skip(self) -> None:
        """Skip everything up to the next keyframe."""
        self._is_clean = False

    def pieces(self, packet: Any) -> list[VideoPiece]:
        """Return what to send for a packet: a fragment, after an init segment if that is new.

        Many cameras do not report their size before the first image is decoded, which happens after it has passed
        through here; until then, packets are held.
        """
        if not self._held and not self._is_clean and not packet.is_keyframe:
            return []
        self._held.append(packet)
        if min(self._context.width, self._context.height) < 1:
            if len(self._held) > MAX_HELD:
                self._held.clear()
            return []
        held, self._held = self._held, []
        return [piece for each in held for piece in self._pieces(each)]

    def _pieces(self, packet: Any) -> list[VideoPiece]:
        shown_ns = pts_ns(packet.pts, self._time_base)
        if not packet.size or packet.size > MAX_BYTES // 2 or shown_ns is None or packet.is_corrupt:
            self._is_clean = False
            return []
        if not (self._is_clean or packet.is_keyframe):
            return []
        units = units_of(bytes(packet))
        found = []
        dts_ns = pts_ns(packet.dts, self._time_base)
        decoded_ns = shown_ns if dts_ns is None else dts_ns
        if packet.is_keyframe:
            sets = self._sets.with_units(units)
            if not sets.is_complete:
                return []
            restarts = self._t0_ns is None or decoded_ns < self._t0_ns + self._last_us * NS_PER_US
            if restarts:
                self._t0_ns = decoded_ns
            if restarts or sets is not self._sets or self._number == 0:
                self._sets = sets
                found.append(self._init(sets, shown_ns))
        self._is_clean = True
        found.append(self._fragment(units, decoded_ns, shown_ns, is_key=bool(packet.is_keyframe)))
        return found

    def _init(self, sets: ParameterSets, shown_ns: int) -> VideoPiece:
        size_wh = int(self._context.width), int(self._context.height)
        data = init_segment(sets, *size_wh, pixel_aspect_of(self._stream) or SQUARE)
        t0_ns = self._t0_ns or 0
        return VideoPiece(data, True, False, shown_ns, time.time_ns(), sets.name, t0_ns, size_wh)

    def _fragment(self, units: list[bytes], decoded_ns: int, shown_ns: int, *, is_key: bool) -> VideoPiece:
        at_us = max((decoded_ns - (self._t0_ns or 0)) // NS_PER_US, 0)
        shift_us = max((shown_ns - decoded_ns) // NS_PER_US, 0)
        if 0 < at_us - self._last_us <= MAX_DURATION_US and self._number:
            self._duration_us = at_us - self._last_us
        self._last_us = at_us
        self._number += 1
        sample = self._sets.shown(units)
        data = fragment(self._number, sample, dts=at_us, shift=shift_us, duration=self._duration_us, is_key=is_key)
        return VideoPiece(data, False, is_key, shown_ns, time.time_ns())
