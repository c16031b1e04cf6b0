"""The reader process: opens, reads and decodes one live source, and puts pictures into shared memory.

FFmpeg can hang in a call that no thread can interrupt (DNS, a dead camera); a process can be killed. This one starts
with few imports (no numpy, no OpenCV), serves one connection after the other, and dies with the engine (`die_with`).

Protocol, on a stream of messages: the engine sends `{"open": {...}}`, `stop`, or `taken` (after each picture where no
picture may be skipped); the process sends `{"opened": facts}`, `frame` (the mailbox was empty and is not any more),
and `{"finished": reason, "is_end": bool, "is_fault": bool}` at the end of each connection. Log records come in between.
"""

from __future__ import annotations

import json
import logging
import sys
from multiprocessing.connection import Connection
from typing import Any

from engine.process import die_with
from engine.process_log import FAULTS, LogToEngine
from engine.sources.live.ring import LIVE_SOURCES, Meta, Ring
from engine.video.address import VideoAddress, knock, video_address_from_request
from engine.video.explain import explain, is_hopeless, video_errors
from engine.video.fallback import OpenVideo, open_video
from engine.video.frames import DecodedFrame, MissingFrames
from engine.video.orientation import orientation_of
from engine.video.to_bgr import BgrConverter

logger = logging.getLogger(__name__)
FRAME, STOP, TAKEN = b"frame", b"stop", b"taken"


def main() -> None:
    """Serve until the engine hangs up. Arguments: the descriptors of connection, lifeline and ring."""
    connection_fd, lifeline_fd, ring_fd = (int(argument) for argument in sys.argv[1:4])
    die_with(lifeline_fd)
    ring = Ring(ring_fd)
    with Connection(connection_fd) as connection:
        try:
            while True:
                message = connection.recv_bytes()
                if message not in (STOP, TAKEN):
                    request = json.loads(message)
                    LogToEngine(connection, request["log_level"])
                    serve(request["open"], connection, ring)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def serve(request: dict[str, Any], connection: Connection, ring: Ring) -> None:
    """Run one connection to its end, and say how it ended."""
    target = video_address_from_request(request)
    try:
        finished = _stream(target, connection, ring)
    except video_errors() as error:
        finished = {"finished": explain(error), "is_end": False, "is_fault": is_hopeless(error)}
    except EOFError:
        raise
    except Exception as error:
        logger.debug("the reader failed", exc_info=True)
        finished = fault(error)
    connection.send_bytes(json.dumps(finished).encode())


def fault(error: Exception) -> dict[str, Any]:
    """Return how a connection ended by an error that no bad video or network raises."""
    reason = f"the reader failed ({type(error).__name__}: {error})"
    return {"finished": reason, "is_end": False, "is_fault": isinstance(error, FAULTS)}


def finish(reader: OpenVideo, target: VideoAddress) -> dict[str, Any]:
    """Return why a stream ended: a video of known duration is complete, a camera that stops has hung up."""
    if reader.failure is not None:
        return {"finished": explain(reader.failure), "is_end": False}
    is_end = not target.live or (reader.facts["duration_s"] is not None and target.host_port is None)
    return {"finished": "end of stream" if is_end else "the camera ended the stream", "is_end": is_end}


def _stream(target: VideoAddress, connection: Connection, ring: Ring) -> dict[str, Any]:
    knock(target)
    reader = open_video(target)
    try:
        connection.send_bytes(json.dumps({"opened": reader.facts}).encode())
        convert = BgrConverter()
        for item in reader.pictures():
            if isinstance(item, MissingFrames):
                ring.add_lost(item.count, item.cause)
            else:
                _hand_over(item, convert, connection, ring)
            if _is_stopped(connection, wait=not target.live and not ring.is_empty):
                return {"finished": "stopped", "is_end": True}
        return finish(reader, target)
    finally:
        reader.close()


def _hand_over(picture: DecodedFrame, convert: BgrConverter, connection: Connection, ring: Ring) -> None:
    stamp, packed = picture.stamp, convert.packed(picture.frame)
    plane = packed.planes[0]
    meta = Meta(
        packed.width,
        packed.height,
        plane.line_size,
        orientation_of(picture.frame),
        stamp.captured_ns,
        stamp.captured_utc_ns,
        stamp.pts_ns,
        LIVE_SOURCES.index(stamp.captured_source) if stamp.captured_source in LIVE_SOURCES else 0,
    )
    if ring.put(meta, memoryview(plane)[: meta.height * meta.stride]):
        connection.send_bytes(FRAME)


def _is_stopped(connection: Connection, *, wait: bool) -> bool:
    """Return whether the engine asked to stop; `wait` for the next message first. Raises EOFError if it has gone."""
    while connection.poll(None if wait else 0):
        message = connection.recv_bytes()
        if message == STOP:
            return True
        wait = wait and message != TAKEN
    return False
