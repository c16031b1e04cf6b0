"""The process that pushes one stream to a media server: FFmpeg can hang in calls that no thread can interrupt.

Protocol, in whole messages: the engine sends `{"target", "log_level"}`, then images in chunks, and finally `stop`.
The first chunk of an image is `K` (decoding can begin with it) or `P`, its time in 1/90000 s and its size (big-endian,
8 and 4 bytes) and data; further ones are `C` and data. The process sends `{"state", "reason", "sent", "reconnects"}` on
each change and about once a second. The states are `connecting`, `ready` (send images), `live` and `offline`.
Nothing here imports numpy.
"""

from __future__ import annotations

import io
import json
import logging
import random
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any, NamedTuple

from engine.process import Messages, die_with
from engine.process_log import LogToEngine
from engine.video.address import VideoAddress, knock, video_address_from_request
from engine.video.backoff import Backoff
from engine.video.explain import explain, video_errors
from engine.video.options import SourceOptions
from engine.video.sandbox.confine import confine
from engine.video.trust import check_certificate, trust_options

logger = logging.getLogger(__name__)
STOP = b"stop"
HEAD = struct.Struct(">cqI")
CHUNK = 60_000
MAX_PICTURE = 64_000_000
REPORT_S = 1.0
HELD_S = 5.0  # a connection that lasted this long counts as stable
IDLE_S = 0.5
MEMORY_BYTES = 400_000_000  # fits several of the largest images and FFmpeg; a server can make a client hold gigabytes
TIME_BASE = Fraction(1, 90_000)


class Picture(NamedTuple):
    """An encoded image, as `Encoded`."""

    data: bytes
    pts: int
    is_key: bool


class _StoppedError(Exception):
    """The engine asked to stop."""


def messages_of(picture: Any) -> Iterator[bytes]:
    """Yield the messages that carry an image."""
    kind = b"K" if picture.is_key else b"P"
    yield HEAD.pack(kind, picture.pts, len(picture.data)) + picture.data[:CHUNK]
    for start in range(CHUNK, len(picture.data), CHUNK):
        yield b"C" + picture.data[start : start + CHUNK]


class Pictures:
    """Reassembles images; incomplete ones are dropped."""

    def __init__(self) -> None:
        self._head: tuple[int, int, bool] | None = None  # time, size, whether it is a keyframe
        self._data = bytearray()

    def add(self, message: bytes) -> Picture | None:
        """Accept a message; return the image that it completes."""
        kind = message[:1]
        if kind in (b"K", b"P") and len(message) >= HEAD.size:
            _, pts, size = HEAD.unpack_from(message)
            self._head = (pts, size, kind == b"K") if size <= MAX_PICTURE else None
            self._data = bytearray(message[HEAD.size :])
        elif kind == b"C" and self._head is not None:
            self._data += message[1:]
        if self._head is None or len(self._data) < self._head[1]:
            return None
        (pts, size, is_key), self._head = self._head, None
        return Picture(bytes(self._data), pts, is_key) if len(self._data) == size else None


def main() -> None:
    """Push until the engine sends `stop`. Arguments: the descriptors of connection and lifeline."""
    connection_fd, lifeline_fd = (int(argument) for argument in sys.argv[1:3])
    die_with(lifeline_fd)
    with (
        Messages(connection_fd) as connection,
        suppress(EOFError, BrokenPipeError, ConnectionResetError, _StoppedError),
    ):
        request = json.loads(connection.recv_bytes())
        LogToEngine(connection, request["log_level"])
        target = video_address_from_request(request["target"])
        confine(target, memory_bytes=MEMORY_BYTES, pushes=True)
        _Pusher(target, connection).run()


class _Pusher:
    """Connects, sends, and reconnects, reporting to the engine."""

    def __init__(self, target: VideoAddress, connection: Messages) -> None:
        self._target = target
        self._connection = connection
        self._pictures = Pictures()
        options = SourceOptions(backoff_s=0.5, backoff_max_s=5.0)
        self._backoff = Backoff(options, random.Random())
        self._figures: dict[str, Any] = {"state": "connecting", "reason": "", "sent": 0, "reconnects": 0}
        self._reported = 0.0
        self._container: Any = None

    def run(self) -> None:
        """Push until `_StoppedError`."""
        while True:
            began = time.monotonic()
            try:
                self._push()
            except video_errors() as error:
                reason = explain(error)
            except MemoryError:
                reason = "the server sends more than this process may hold"
            finally:
                self._hang_up()
            if self._figures["state"] == "live" and time.monotonic() - began > HELD_S:
                self._backoff.reset()
            self._tell("offline", reason.replace("the camera", "the server"))
            self._wait(self._backoff.next_s(reason))
            self._figures["reconnects"] += 1

    def _push(self) -> None:
        """Connect at the next keyframe, and send until that fails."""
        check_certificate(self._target)
        knock(self._target)
        self._tell("ready")
        stream: Any = None
        while True:
            picture = self._next(IDLE_S)
            if picture is None:
                continue
            if stream is None:
                if not picture.is_key:
                    continue
                stream = self._connect(picture)
                self._tell("live")
            self._send(stream, picture)
            self._figures["sent"] += 1

    def _connect(self, first: Picture) -> Any:
        """Open the address and return a stream for images like this keyframe."""
        import av

        target = self._target
        with av.open(io.BytesIO(first.data), format="h264") as keyframe:
            self._container = av.open(
                target.url,
                "w",
                format=target.format,
                options={**_trust(target), **target.ffmpeg},
                timeout=(target.open_timeout_s, target.read_timeout_s),
            )
            stream = self._container.add_stream_from_template(keyframe.streams.video[0])
        stream.time_base = TIME_BASE
        self._container.start_encoding()
        return stream

    def _send(self, stream: Any, picture: Picture) -> None:
        from av import Packet

        packet = Packet(picture.data)
        packet.stream, packet.time_base = stream, TIME_BASE
        packet.pts = packet.dts = picture.pts
        packet.is_keyframe = picture.is_key
        self._container.mux(packet)

    def _hang_up(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            with suppress(*video_errors()):
                container.close()

    def _next(self, wait_s: float) -> Picture | None:
        """Return the next image, None if none is complete within the time. Raises `_StoppedError`."""
        self._report()
        if not self._connection.poll(wait_s):
            return None
        message = self._connection.recv_bytes()
        if message == STOP:
            raise _StoppedError
        return self._pictures.add(message)

    def _wait(self, seconds: float) -> None:
        """Drop images for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._next(min(left, IDLE_S))

    def _tell(self, state: str, reason: str = "") -> None:
        self._figures |= {"state": state, "reason": reason}
        self._reported = 0.0
        self._report()

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_S:
            self._reported = now
            self._connection.send_bytes(json.dumps(self._figures).encode())


def _trust(target: VideoAddress) -> dict[str, str]:
    """Return the options that restrict the address to its protocols and verify the server; muxers accept no others."""
    options = trust_options(target, frozenset())
    return {name: value for name, value in options.items() if name != "format_whitelist"}
