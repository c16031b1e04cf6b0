"""The reader process: opens, reads and decodes one live source, and writes its frames into shared memory.

FFmpeg can hang in a call that no thread can interrupt (DNS, a dead camera), but a process can be killed. It also parses
untrusted data, so it drops the permissions that it does not need (`engine.video.sandbox`) before it connects. The
process starts with few imports (no numpy, no OpenCV), serves one connection after the other, and dies with the engine
(`die_with`).

Protocol, in whole messages: the engine sends `{"open": {...}}`, `stop`, or `taken` (after each frame, if no frame may
be skipped). The process sends `{"opened": facts}`; `{"room": bytes}` to request a ring for frames of that size, which
the engine answers with `{"slots": n, "slot_size": bytes}` and its descriptor; `frame` when the mailbox was empty and
now holds one; and `{"finished": reason, "is_end": bool, "is_fault": bool}` at the end of each connection. Log records
may come in between.
"""

from __future__ import annotations

import ctypes
import json
import logging
import socket
import sys
from contextlib import suppress
from typing import Any

from engine.process import Messages, die_with
from engine.process_log import FAULTS, LogToEngine
from engine.sources.live.ring import LIVE_SOURCES, Layout, Meta, Ring
from engine.video.address import VideoAddress, knock, video_address_from_request
from engine.video.coded.outlet import VideoOutlet
from engine.video.decode import VideoReader
from engine.video.explain import explain, is_hopeless, video_errors
from engine.video.fallback import OpenVideo, open_video
from engine.video.frames import DecodedFrame, MissingFrames
from engine.video.sandbox.confine import confine
from engine.video.to_bgr import BgrConverter
from engine.video.uri import NETWORK_SCHEMES, scheme_of

logger = logging.getLogger(__name__)
FRAME, STOP, TAKEN = b"frame", b"stop", b"taken"
MAX_REASON = 1000


def main() -> None:
    """Serve until the engine hangs up. Arguments: the descriptors of connection, lifeline and, if wanted, video."""
    connection_fd, lifeline_fd, *video_fd = (int(argument) for argument in sys.argv[1:4])
    die_with(lifeline_fd)
    video = VideoOutlet(socket.socket(fileno=video_fd[0])) if video_fd else None
    is_confined = False
    with Messages(connection_fd) as connection:
        try:
            while True:
                message = connection.recv_bytes()
                if message in (STOP, TAKEN):
                    continue
                request = json.loads(message)
                LogToEngine(connection, request["log_level"])
                target = video_address_from_request(request["open"])
                if not is_confined:
                    confine(target)
                    is_confined = True
                serve(target, connection, video)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def serve(target: VideoAddress, connection: Messages, video: VideoOutlet | None = None) -> None:
    """Run one connection to its end and report how it ended."""
    try:
        finished = _stream(target, connection, video)
    except video_errors() as error:
        if isinstance(error, BrokenPipeError | ConnectionResetError) and connection.poll(0):
            raise
        finished = {"finished": _reason(error, target), "is_end": False, "is_fault": is_hopeless(error)}
    except EOFError:
        raise
    except MemoryError:
        finished = {"finished": "the stream uses more memory than its frames can need", "is_end": False}
    except Exception as error:
        logger.debug("the reader failed", exc_info=True)
        finished = fault(error)
    finished["finished"] = finished["finished"][:MAX_REASON]
    connection.send_bytes(json.dumps(finished).encode())


def _reason(error: BaseException, target: VideoAddress) -> str:
    """Return why a connection failed; a port or file that the sandbox blocks is not the user's mistake."""
    is_refused_here = "PermissionError" in {kind.__name__ for kind in type(error).__mro__}
    if is_refused_here and scheme_of(target.url) in NETWORK_SCHEMES:
        return "it redirects to another host or port, or to a file, which is not followed: use that address as the uri"
    return explain(error)


def fault(error: Exception) -> dict[str, Any]:
    """Return the end of a connection caused by an error other than a bad video or network."""
    reason = f"the reader failed ({type(error).__name__}: {error})"
    return {"finished": reason, "is_end": False, "is_fault": isinstance(error, FAULTS)}


def finish(reader: OpenVideo, target: VideoAddress) -> dict[str, Any]:
    """Return why a stream ended: a video of known duration is complete; a camera has closed the connection."""
    if reader.failure is not None:
        return {"finished": explain(reader.failure), "is_end": False}
    is_end = not target.live or (reader.facts["duration_s"] is not None and target.host_port is None)
    return {"finished": "end of stream" if is_end else "the camera ended the stream", "is_end": is_end}


def _stream(target: VideoAddress, connection: Messages, video: VideoOutlet | None) -> dict[str, Any]:
    knock(target)
    reader = open_video(target)
    if video is not None and isinstance(reader, VideoReader):
        video.begin()
        reader.tap = video.take
    outlet = _Outlet(target, connection)
    try:
        connection.send_bytes(json.dumps({"opened": reader.facts}).encode())
        for item in reader.frames():
            if isinstance(item, MissingFrames):
                outlet.lost(item)
            else:
                outlet.hand_over(item)
            if outlet.is_stopped():
                return {"finished": "stopped", "is_end": True}
        return finish(reader, target)
    finally:
        reader.close()
        outlet.close()


class _Outlet:
    """Writes the frames of one connection into a ring, which the engine replaces when frames no longer fit."""

    def __init__(self, target: VideoAddress, connection: Messages) -> None:
        self._target = target
        self._connection = connection
        self._convert = BgrConverter()
        self._ring: Ring | None = None
        self._has_stop = False

    def hand_over(self, picture: DecodedFrame) -> None:
        """Put a frame into the ring."""
        stamp, packed = picture.stamp, self._convert.packed(picture.frame)
        plane = packed.planes[0]
        meta = Meta(
            packed.width,
            packed.height,
            plane.line_size,
            self._convert.orientation(picture.frame),
            stamp.captured_ns,
            stamp.captured_utc_ns,
            stamp.pts_ns,
            LIVE_SOURCES.index(stamp.captured_source) if stamp.captured_source in LIVE_SOURCES else 0,
        )
        size = meta.height * meta.stride
        if self._ring is None or not self._ring.fits(size):
            self._ring = self._asked_for(size)
        if self._ring is not None and self._ring.put(meta, memoryview(plane)[:size]):
            self._connection.send_bytes(FRAME)

    def lost(self, missing: MissingFrames) -> None:
        """Count frames that were not decoded."""
        if self._ring is None:
            self._ring = self._asked_for(1)
        if self._ring is not None:
            self._ring.add_lost(missing.count, missing.cause)

    def is_stopped(self) -> bool:
        """Return whether the engine sent `stop`; if no frame may be skipped, wait until the last one is taken."""
        while not self._has_stop:
            must_wait = not self._target.live and self._ring is not None and not self._ring.is_empty
            if not self._connection.poll(None if must_wait else 0):
                return False
            self._has_stop = self._connection.recv_bytes() == STOP
        return True

    def close(self) -> None:
        """Release the ring; harmless when repeated."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def _asked_for(self, size: int) -> Ring | None:
        """Return a ring for frames of `size` bytes, or None if the engine sends `stop` instead."""
        if self._ring is not None:
            _return_free_memory()
        self.close()
        self._connection.send_bytes(json.dumps({"room": size}).encode())
        while True:
            message, fd = self._connection.recv_with_fd()
            if fd is not None:
                return Ring(fd, Layout(**json.loads(message)))
            if message == STOP:
                self._has_stop = True
                return None


def _return_free_memory() -> None:
    """Return heap memory left over from frames of the previous size to the system, if the C library can."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
