"""The engine's side of the reader process, and the reader that needs no process."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from engine.process import Child
from engine.process_log import LogLine, current_level
from engine.sources.live.pixels import lazy_image_from_frame, upright
from engine.sources.live.reader_events import ArrivedFrame, Event, Finished, Opened
from engine.sources.live.reader_messages import ReaderMessageError, Room, told_by_reader
from engine.sources.live.reader_process import FRAME, STOP, TAKEN, fault, finish
from engine.sources.live.ring import LIVE_SOURCES, LOCK_S, Ring, RingError, TakenFrame, anonymous_file, layout_for
from engine.video.address import VideoAddress, knock
from engine.video.coded.feed import VideoFeed
from engine.video.explain import explain, is_hopeless, video_errors
from engine.video.fallback import open_video
from engine.video.frames import MissingFrames
from engine.video.orientation import TRANSPOSE
from engine.video.timing.arrivals import Stamp
from engine.video.to_bgr import BgrConverter

logger = logging.getLogger(__name__)
GRACE_S = 0.15
MAX_LOG_LINES = 100
"""Log lines accepted per connection; more would flood the log."""


class ProcessReader:
    """Reads in a child process, which is killed if it does not answer; all of its messages are validated.

    Args:
        target: what to open.
        slots: frames that the shared memory holds.
        name: name of the source, for its log lines.
        feed: receives the coded video of the process; None: it is not used.
    """

    def __init__(self, target: VideoAddress, slots: int, name: str = "", feed: VideoFeed | None = None) -> None:
        self._feed = feed
        self._target = target
        self._name = name
        self._slots = slots
        self._child: Child | None = None
        self._exit_code: int | None = None
        self._events: deque[Event] = deque()
        self._ring: Ring | None = None
        self._seen = {"stale": 0, "corrupt": 0}
        self._is_open = False
        self._lock = threading.Lock()
        self._waker: tuple[int, int] | None = os.pipe()

    def open(self) -> None:
        """Begin to connect, starting the process if necessary; if that fails, `next` returns the failure."""
        try:
            if self._child is None:
                self._child = self._start()
        except OSError as error:  # out of memory, processes or descriptors: the next attempt may succeed
            self._events.append(Finished(f"cannot start a reader process ({error}): use reader=thread"))
            return
        self._is_open, self._logged = False, 0
        self._send(json.dumps({"open": asdict(self._target), "log_level": current_level()}).encode())

    def _start(self) -> Child:
        """Return the process, with a socket for its coded video if that is used. Raises `OSError`."""
        module = "engine.sources.live.reader_process"
        video = None if self._feed is None else self._feed.plug()
        if video is None:
            return Child(module, name=self._name)
        with video:
            return Child(module, video.fileno(), name=self._name)

    def next(self, timeout_s: float) -> Event | None:
        """Return the next event; None after the timeout or `wake`."""
        if self._events:
            return self._events.popleft()
        if self._waker is None or self._child is None:
            return None
        connection = self._child.connection.fileno()
        ready = wait([connection, self._waker[0]], timeout_s)
        if self._waker[0] in ready:
            return None
        try:
            if connection in ready:
                self._receive()
            else:
                self._count_losses()
        except (RingError, ReaderMessageError) as error:
            self.abandon()
            self._events.append(Finished(f"the reader process was stopped: {error}"))
        return self._events.popleft() if self._events else None

    def wake(self) -> None:
        """Make `next` return at once, now and in future calls; callable from any thread."""
        with self._lock:
            if self._waker is not None:
                os.write(self._waker[1], b"w")

    def abandon(self) -> None:
        """End the process gracefully, so that it disconnects from the camera, or by force if it is blocked."""
        if self._child is None:
            return
        child, self._child = self._child, None
        child.say(STOP)
        self._exit_code = child.end(GRACE_S)
        self._close_ring()
        self._events.clear()

    def close(self) -> None:
        """End the process for good; harmless when repeated."""
        self.abandon()
        if self._feed is not None:
            self._feed.unplug()
        with self._lock:
            waker, self._waker = self._waker, None
        for fd in waker or ():
            os.close(fd)

    def _send(self, message: bytes, fd: int | None = None) -> None:
        if self._child is None:
            return
        try:
            self._child.connection.send_bytes(message, fd)
        except OSError:
            self._events.append(Finished(self._death()))

    def _receive(self) -> None:
        assert self._child is not None
        try:
            message = self._child.connection.recv_bytes()
        except (EOFError, OSError):
            self._events.append(Finished(self._death()))
            return
        if message == FRAME:
            self._take()
            return
        told = told_by_reader(message)
        if isinstance(told, LogLine):
            self._logged += 1
            if self._logged <= MAX_LOG_LINES:
                logging.getLogger(told.logger).log(told.level, "%s: %s", self._name, told.text)
        elif isinstance(told, Room):
            self._give_ring(told)
        elif isinstance(told, Opened):
            if self._is_open:
                raise ReaderMessageError("it reported one connection as opened twice")
            self._is_open = True
            self._events.append(told)
        else:
            self._count_losses()
            self._take()
            self._replace_ring(None)
            self._events.append(told)

    def _take(self) -> None:
        if self._ring is None:
            return
        taken = self._ring.take()
        self._count_losses()
        if taken is None:
            return
        self._events.append(_arrived(taken, self._ring, is_live=self._target.live))
        if not self._target.live:
            self._send(TAKEN)

    def _give_ring(self, room: Room) -> None:
        """Give the process memory for frames of another size; the old memory is freed with its last frame."""
        room.check(self._target.max_pixels)
        self._replace_ring(None)
        layout = layout_for(room.frame_bytes, self._slots)
        try:
            fd = anonymous_file(layout)
            self._replace_ring(Ring(fd, layout, lock_s=LOCK_S, max_pixels=self._target.max_pixels))
        except OSError as error:
            self.abandon()
            self._events.append(Finished(f"no shared memory for {layout.size / 1e6:.0f} MB of frames ({error})"))
            return
        self._send(json.dumps(asdict(layout)).encode(), fd)

    def _replace_ring(self, ring: Ring | None) -> None:
        """Use another ring; a frame left in the old one is stale."""
        if self._ring is not None:
            self._count_losses()
            if not self._ring.is_empty:
                self._events.append(MissingFrames(1, "stale"))
        self._close_ring()
        self._ring = ring

    def _close_ring(self) -> None:
        if self._ring is not None:
            self._ring.close()
        self._ring = None
        self._seen = {"stale": 0, "corrupt": 0}

    def _count_losses(self) -> None:
        if self._ring is None:
            return
        for cause, total in zip(("stale", "corrupt"), self._ring.losses(), strict=True):
            count, self._seen[cause] = total - self._seen[cause], total
            if count < 0:
                raise RingError(f"{-count} {cause} frames fewer than before")
            if count:
                self._events.append(MissingFrames(count, cause))

    def _death(self) -> str:
        """Clean up after a process that has died, and return the cause."""
        self.abandon()
        code = self._exit_code
        if code is not None and code < 0:
            return f"the reader process was ended by {signal.Signals(-code).name}"
        return f"the reader process ended with code {code}: see its message above, or try reader=thread"


def _arrived(taken: TakenFrame, ring: Ring, *, is_live: bool) -> ArrivedFrame:
    """Return a taken frame as a view that releases its slot when it is dropped, or as a copy."""
    meta = taken.meta
    shape, strides = (meta.height, meta.width, 3), (meta.stride, 3, 1)
    image = np.ndarray(shape, np.uint8, taken.memory, taken.offset, strides)
    stamp = Stamp(
        meta.captured_ns,
        meta.captured_utc_ns,
        meta.pts_ns,
        LIVE_SOURCES[meta.captured_source] if is_live else "file",
    )
    if meta.orientation or meta.stride != meta.width * 3 or ring.is_scarce():
        image = upright(np.array(image), meta.orientation)
        taken.release()
    else:
        weakref.finalize(image, taken.release).atexit = False
    return ArrivedFrame(image, stamp, bool(meta.orientation & TRANSPOSE))


class ThreadReader:
    """Reads on the iterating thread: cheap, but a hanging call ends only by its own time limit."""

    def __init__(self, target: VideoAddress) -> None:
        self._target = target
        self._items: Iterator[Event] | None = None
        self._is_awake = threading.Event()

    def open(self) -> None:
        """Begin to connect."""
        self._items = self._read()

    def next(self, timeout_s: float) -> Event | None:
        """Return the next event; waits up to the limits for opening and reading, not `timeout_s`."""
        if self._items is None or self._is_awake.is_set():
            return None
        return next(self._items, None)

    def wake(self) -> None:
        """Make `next` return after its current call."""
        self._is_awake.set()

    def abandon(self) -> None:
        """Close the connection."""
        items: Any = self._items
        self._items = None
        if items is not None:
            items.close()

    def close(self) -> None:
        """Close the connection."""
        self.abandon()

    def _read(self) -> Iterator[Event]:
        try:
            knock(self._target)
            reader = open_video(self._target)
        except video_errors() as error:
            yield Finished(explain(error), is_fault=is_hopeless(error))
            return
        except Exception as error:
            logger.debug("the reader failed", exc_info=True)
            yield Finished(**_renamed(fault(error)))
            return
        try:
            yield Opened(reader.facts)
            convert = BgrConverter()
            for item in reader.frames():
                if isinstance(item, MissingFrames):
                    yield item
                    continue
                is_turned = bool(convert.orientation(item.frame) & TRANSPOSE)
                yield ArrivedFrame(lazy_image_from_frame(item.frame, convert), item.stamp, is_turned)
            yield Finished(**_renamed(finish(reader, self._target)))
        finally:
            reader.close()


def _renamed(fields: dict[str, Any]) -> dict[str, Any]:
    return {"reason": fields["finished"], "is_end": fields["is_end"], "is_fault": fields.get("is_fault", False)}
