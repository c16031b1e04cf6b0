"""Live images and video for viewers, on a separate socket: nothing is made or copied without a subscriber."""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import zmq

from engine.clock import SYSTEM_CLOCK, Clock, pause
from engine.data import Packet, Run
from engine.errors import SinkError
from engine.protocols import SinkBase
from engine.sinks.media_demand import Demand, PictureRequest
from engine.sinks.media_video import VideoCopy
from engine.sinks.pictures import Pictures, Snapshot
from engine.sinks.publisher_sockets import FanOut, SocketOptions
from engine.transport.address import checked_address
from engine.transport.curve import CurveServer
from engine.transport.guard import SocketGuard
from engine.transport.keys import KeyPair
from engine.video.coded.feed import VideoFeed
from engine.wire import encode

logger = logging.getLogger(__name__)
QUEUED_PER_READER = 200
SEND_BUFFER_BYTES = 256 * 1024
LINGER_MS = 0
WAKE_MS = 500
GATHER_S = 0.04
"""Pieces of video that arrive within this are copied together: with many cameras, each wake-up asks all of them."""


class MediaPublisher(SinkBase):
    """Publishes images and coded video of the sources to subscribers.

    JPEGs of the frames that the pipeline publishes are `[topic, image message, JPEG]`; the topic chooses the size and
    the rate: `v1/picture/<source>/<max_side>/<fps>/`. A separate thread encodes the newest frame of each source that is
        due, so that the publishing thread only hands over a reference. The camera's own video is `[topic, video
        message,
    fragment of MP4]` on `v1/video/<source>/`, copied from its reader process.

    Args:
        address: `ipc://path` or `tcp://host:port` to bind.
        pictures: hides what must not be seen, and sets the quality; None: nothing is hidden.
        keys: CURVE keys of the publisher; None: plain.
        allowed_keys: public keys of the clients that may read.
        clock: for tests.

    Attributes:
        address: the bound endpoint, once open.
        encoded: JPEGs made, by source.
        guard: closes connections that take more than a reader needs.
    """

    name = "media"
    blocking = False

    def __init__(
        self,
        address: str,
        *,
        pictures: Pictures | None = None,
        keys: KeyPair | None = None,
        allowed_keys: Iterable[str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.address = checked_address(address, "publish media")
        self.encoded: Counter[str] = Counter()
        self.guard = SocketGuard()
        self._pictures = pictures or Pictures()
        self._curve = None if keys is None else CurveServer(keys, None if allowed_keys is None else list(allowed_keys))
        self._clock = clock
        self._wanted: Mapping[str, tuple[PictureRequest, ...]] = {}
        self._newest: dict[str, Packet] = {}
        self._lock = threading.Lock()
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self._context: zmq.Context[Any] | None = None
        self._fan_out: FanOut | None = None
        self._feeds: dict[str, VideoFeed] = {}
        self._run = Run("", 0)

    def offer_video(self, feeds: Mapping[str, VideoFeed]) -> None:
        """Publish the coded video of these sources from now on, and of no others; callable from any thread."""
        for feed in feeds.values():
            feed.is_used = True
        with self._lock:
            self._feeds = dict(feeds)
        self._ring()

    @property
    def with_video(self) -> frozenset[str]:
        """Sources whose coded video is offered."""
        return frozenset(self._feeds)

    def open(self, run: Run) -> None:
        """Bind the socket and start the encoding thread.

        Raises:
            SinkError: the address is in use.
        """
        self._run = run
        self.bind()
        self._thread = threading.Thread(target=self._serve, name="media", daemon=True)
        self._thread.start()

    def bind(self) -> None:
        """Bind the socket before `open`. Raises `SinkError` if the address is in use."""
        if self._context is not None:
            return
        self._context = zmq.Context()
        self.guard = SocketGuard()
        if self._curve is not None:
            self._curve.guard = self.guard
            self._curve.open(self._context)
        options = SocketOptions(QUEUED_PER_READER, SEND_BUFFER_BYTES, LINGER_MS, self._curve, self.guard)
        try:
            self._fan_out = FanOut(self._context, self.address, options)
        except SinkError:
            self.close()
            raise
        self.address = self._fan_out.address
        self._bell = socket.socketpair()
        for end in self._bell:
            end.setblocking(False)
        self.guard.start()

    @property
    def wanted(self) -> tuple[PictureRequest, ...]:
        """The current subscriptions."""
        return tuple(request for requests in self._wanted.values() for request in requests)

    def write(self, packet: Packet) -> None:
        """Hand over a packet if its source has viewers; it replaces an older one that is still waiting."""
        if packet.frame.source_id not in self._wanted:
            return
        with self._lock:
            self._newest[packet.frame.source_id] = packet
        self._ring()

    def close(self) -> None:
        """Stop the thread and close the socket; harmless when repeated."""
        self._is_closing = True
        self._ring()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.guard.close()
        if self._fan_out is not None:
            self._fan_out.close()
            self._fan_out = None
        if self._curve is not None:
            self._curve.close()
        if self._context is not None:
            self._context.term()
            self._context = None
        for end in self._bell or ():
            end.close()
        self._bell = None

    def _ring(self) -> None:
        if self._bell is not None:
            with suppress(OSError):  # full: the thread will check anyway
                self._bell[0].send(b"\0")

    def _serve(self) -> None:
        """Serve subscriptions, copy video and encode due images, until `close`."""
        assert self._fan_out is not None
        assert self._bell is not None
        fan_out, bell, demand, video = self._fan_out, self._bell[1], Demand(), VideoCopy(self._fan_out, self._run)
        while not self._is_closing:
            with self._lock:
                feeds = self._feeds
            poller = zmq.Poller()
            fan_out.register(poller)
            poller.register(bell, zmq.POLLIN)
            video.register(poller, feeds, demand.films)
            if poller.poll(WAKE_MS) and demand.films and not self._is_closing:
                pause(GATHER_S)
            with suppress(OSError):
                bell.recv(4096)
            if self._curve is not None:
                self._curve.service()
            if demand.take(fan_out.subscriptions()):
                self._wanted = demand.by_source()
            video.publish(self._clock.utc_ns)
            for packet in self._taken():
                try:
                    self._publish(packet, demand, fan_out)
                except Exception:  # one bad frame must not stop the images of all cameras
                    logger.exception("an image of %s could not be sent", packet.frame.source_id)
        video.close()

    def _taken(self) -> list[Packet]:
        with self._lock:
            packets = list(self._newest.values())
            self._newest.clear()
        return packets

    def _publish(self, packet: Packet, demand: Demand, fan_out: FanOut) -> None:
        """Send a packet's image to every topic on which one is due; each size is encoded once."""
        source_id, now_ns = packet.frame.source_id, self._clock.monotonic_ns()
        made: dict[int, Snapshot | None] = {}
        for request in self._wanted.get(source_id, ()):
            if not demand.is_due(request, now_ns):
                continue
            if request.max_side not in made:
                made[request.max_side] = self._pictures.whole(packet, request.max_side)
                self.encoded[source_id] += made[request.max_side] is not None
            picture = made[request.max_side]
            if picture is not None:
                message = picture.message(packet, demand.next_seq(request), self._clock.utc_ns())
                fan_out.send("picture", request.topic, encode(message), picture.jpeg)
