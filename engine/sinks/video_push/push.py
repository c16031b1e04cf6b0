"""Pushes annotated video to media servers over RTSP or RTMP.

Nothing waits for it: a slow or unreachable server loses images, but the run does not.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Packet, Run, SourceStatus
from engine.errors import SinkError
from engine.imaging.grid import Grid
from engine.imaging.square import displayed
from engine.protocols import SinkBase
from engine.sinks.video_push.encoder import LiveEncoder
from engine.sinks.video_push.pusher import Pusher
from engine.video.address import VideoAddress

logger = logging.getLogger(__name__)
GRID = "grid"
GRID_FPS = 15.0
WAITING = 4
DEFAULT_FPS = 25.0
LOOK_S = 0.5
CLOSE_S = 1.0
KEY_AGAIN_NS = NS_PER_S // 2


@dataclass(eq=False)
class _Stream:
    """The content of one pushed stream."""

    pushers: list[Pusher] | None = None  # created on the thread
    is_over: bool = False
    encoder: LiveEncoder | None = None
    key_ns: int = 0
    due_ns: int = 0
    waiting: deque[Packet] = field(default_factory=deque)
    skipped: int = 0


class VideoPush(SinkBase):
    """Draws, encodes once and pushes the video of each source on a separate thread.

    Args:
        targets: where the video of each source goes, by its name; with `grid`, those under `grid`.
        draw: draws the image of a packet.
        grid: all sources in one image; None: a stream per source.
        encoders: names to try in this order; None: the best available.
        clock: time.
    """

    name = "push"
    blocking = False

    def __init__(
        self,
        targets: Callable[[str], Sequence[VideoAddress]],
        draw: Callable[[Packet], NDArray[np.uint8]],
        grid: Grid | None = None,
        *,
        encoders: tuple[str, ...] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._targets, self._draw, self._grid = targets, draw, grid
        self._encoders = {} if encoders is None else {"names": encoders}
        self._clock = clock
        self._changed = threading.Condition()
        self._streams: dict[str, _Stream] = {}
        self._fps: dict[str, float] = {}
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self._failed = ""

    def open(self, run: Run) -> None:
        """Start."""
        self.close()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)
        self._thread.start()

    def write(self, packet: Packet) -> None:
        """Accept a packet; never waits."""
        with self._changed:
            stream = self._streams.setdefault(packet.frame.source_id if self._grid is None else GRID, _Stream())
            stream.is_over = False
            if len(stream.waiting) >= WAITING:
                stream.waiting.popleft()
                stream.skipped += 1
            stream.waiting.append(packet)
            self._changed.notify()

    def status(self, status: SourceStatus) -> None:
        """Record the rate of a source, or that it is gone."""
        if status.info.fps:
            self._fps[status.source_id] = status.info.fps
        if self._grid is not None and status.state in ("stalled", "offline"):
            with self._changed:
                self._grid.note(status.source_id, status.state)
        if status.state == "ended" and status.source_id in self._streams:
            self._streams[status.source_id].is_over = True

    def close(self) -> None:
        """Stop; waiting images are not sent."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
            self._thread = None

    def summary(self) -> dict[str, Any]:
        """Return the state and the number of images sent, by source and address; may be called on any thread."""
        found: dict[str, Any] = {}
        for name, stream in list(self._streams.items()):
            encoder = stream.encoder
            figures = [pusher.figures() for pusher in stream.pushers or ()]
            for each in figures:
                each["skipped"] += stream.skipped
            found[name] = {"encoder": "" if encoder is None else encoder.name, "to": figures}
        return found

    # --- on the thread ---

    def _run(self) -> None:
        try:
            while (work := self._next()) is not None:
                for stream, packet in work:
                    self._push(stream, packet)
                self._look()
        except Exception:
            logger.exception("pushing video failed; everything else continues")
        finally:
            for stream in self._streams.values():
                for pusher in stream.pushers or ():
                    pusher.close()

    def _look(self) -> None:
        """Start new streams, read the processes' reports, and end finished streams."""
        for name, stream in list(self._streams.items()):
            if stream.is_over and not stream.waiting:
                for pusher in stream.pushers or ():
                    pusher.close()
                stream.pushers, stream.encoder, stream.key_ns = stream.pushers and [], None, 0
            elif not stream.pushers:
                stream.pushers = [Pusher(target, name, self._clock) for target in self._targets(name)]
            for pusher in stream.pushers or ():
                pusher.look()

    def _next(self) -> list[tuple[_Stream, Packet]] | None:
        """Return what is waiting, after a short wait at most; None at the end."""
        with self._changed:
            if not self._is_closing and not any(stream.waiting for stream in self._streams.values()):
                self._changed.wait(LOOK_S)
            if self._is_closing:
                return None
            return [(stream, stream.waiting.popleft()) for stream in self._streams.values() if stream.waiting]

    def _push(self, stream: _Stream, packet: Packet) -> None:
        """Encode an image for the reachable servers."""
        wanting = [pusher for pusher in stream.pushers or () if pusher.wants_pictures]
        image = self._image(stream, packet) if wanting else None
        if image is None:
            return
        encoder = self._encoder(stream, packet, image)
        if encoder is None:
            return
        scene_ns = packet.frame.scene_ns if self._grid is None else packet.frame.captured_ns
        key = any(pusher.needs_key for pusher in wanting) and scene_ns - stream.key_ns >= KEY_AGAIN_NS
        if key or not stream.key_ns:
            stream.key_ns = scene_ns
        for encoded in encoder.encode(image, scene_ns, key=key):
            for pusher in wanting:
                pusher.send(encoded)

    def _image(self, stream: _Stream, packet: Packet) -> NDArray[np.uint8] | None:
        """Return the image to send; None if none is due."""
        image = displayed(self._draw(packet), packet.frame.pixel_aspect)
        if self._grid is None:
            return image
        now_ns = packet.frame.captured_ns
        with self._changed:
            self._grid.put(packet.frame.source_id, image)
            if now_ns < stream.due_ns:
                return None
            stream.due_ns = max(stream.due_ns + round(NS_PER_S / GRID_FPS), now_ns)
            return self._grid.picture()

    def _encoder(self, stream: _Stream, packet: Packet, image: NDArray[np.uint8]) -> LiveEncoder | None:
        if stream.encoder is None and not self._failed:
            fps = GRID_FPS if self._grid is not None else self._fps.get(packet.frame.source_id, DEFAULT_FPS)
            try:
                stream.encoder = LiveEncoder((image.shape[1], image.shape[0]), fps, **self._encoders)
            except SinkError as error:
                self._failed = str(error)
                logger.error("nothing is pushed: %s", error)
        return stream.encoder


def summary_of(sinks: Sequence[object]) -> Mapping[str, Any]:
    """Return `{"push": figures}` of the sinks of a pipeline, or an empty dict if none pushes."""
    found: dict[str, Any] = {}
    for sink in sinks:
        if isinstance(sink, VideoPush):
            found.update(sink.summary())
    return {"push": found} if found else {}
