"""Live pictures for viewers, on a socket of its own: what nobody subscribes to is never encoded."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import zmq

from engine.clock import NS_PER_MS, NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Packet, Run
from engine.errors import SinkError
from engine.protocols import SinkBase
from engine.sinks.pictures import Pictures, Snapshot
from engine.sinks.publisher_sockets import FanOut, SocketOptions
from engine.transport.address import checked_address
from engine.transport.curve import CurveServer
from engine.transport.guard import SocketGuard
from engine.transport.keys import KeyPair
from engine.wire import encode, topic_for
from engine.wire.codec import source_in_topic

logger = logging.getLogger(__name__)
SIDES = (320, 640, 960, 1280, 1920)
RATES = (1, 2, 5, 10, 15, 30)
QUEUED_PER_READER = 16
SEND_BUFFER_BYTES = 256 * 1024
LINGER_MS = 0
MAX_REQUESTS = 1024
WAKE_MS = 500
_TOPIC = re.compile(rb"(v1/picture/[^/]{1,768}/)(\d{1,4})/(\d{1,2})/")


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """JPEGs of one source that somebody subscribes to.

    Attributes:
        topic: `v1/picture/<source>/<max_side>/<fps>/`.
        source_id: the camera or file.
        max_side: longer side in pixels, one of `SIDES`.
        fps: at most this many per second, one of `RATES`.
    """

    topic: bytes
    source_id: str
    max_side: int
    fps: int


def picture_topic(source_id: str, max_side: int, fps: int) -> str:
    """Return the topic of the JPEGs of a source.

    >>> picture_topic("gate", 640, 10)
    'v1/picture/gate/640/10/'
    """
    return f"{topic_for('picture', source_id)}{max_side}/{fps}/"


def picture_request(topic: bytes) -> PictureRequest | None:
    """Return what a subscription asks for; None if it is not one for pictures.

    >>> picture_request(b"v1/picture/gate/640/10/").max_side
    640
    >>> picture_request(b"v1/picture/gate/641/10/") is None
    True
    """
    match = _TOPIC.fullmatch(topic)
    if match is None:
        return None
    max_side, fps = int(match[2]), int(match[3])
    if max_side not in SIDES or fps not in RATES:
        return None
    try:
        return PictureRequest(topic, source_in_topic(match[1].decode()), max_side, fps)
    except ValueError:
        return None


class MediaPublisher(SinkBase):
    """Publishes JPEGs of the frames that the pipeline publishes, as `[topic, image message, JPEG]`, to who subscribes.

    The topic chooses the size and the rate: `v1/picture/<source>/<max_side>/<fps>/`. A thread of its own encodes the
    newest frame of each source that is due, so that the publishing thread only hands over a reference.

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

    def open(self, run: Run) -> None:
        """Bind the socket and start the encoding thread.

        Raises:
            SinkError: the address is in use.
        """
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
        """What is subscribed to now."""
        return tuple(request for requests in self._wanted.values() for request in requests)

    def write(self, packet: Packet) -> None:
        """Hand over a packet whose source somebody watches; an older one that still waits is replaced."""
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
            with suppress(OSError):  # full: it will look anyway
                self._bell[0].send(b"\0")

    def _serve(self) -> None:
        """Serve subscriptions and encode what is due, until `close`."""
        assert self._fan_out is not None
        assert self._bell is not None
        poller, demand = zmq.Poller(), _Demand()
        self._fan_out.register(poller)
        poller.register(self._bell[1], zmq.POLLIN)
        while not self._is_closing:
            poller.poll(WAKE_MS)
            with suppress(OSError):
                self._bell[1].recv(4096)
            if self._curve is not None:
                self._curve.service()
            if demand.take(self._fan_out.subscriptions()):
                self._wanted = demand.by_source()
            for packet in self._taken():
                try:
                    self._publish(packet, demand, self._fan_out)
                except Exception:  # one bad frame must not end the pictures of all cameras
                    logger.exception("a picture of %s could not be sent", packet.frame.source_id)

    def _taken(self) -> list[Packet]:
        with self._lock:
            packets = list(self._newest.values())
            self._newest.clear()
        return packets

    def _publish(self, packet: Packet, demand: _Demand, fan_out: FanOut) -> None:
        """Send a packet's picture to every topic on which one is due; each size is encoded once."""
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


class _Demand:
    """The present subscriptions, and when the next picture of each is due."""

    def __init__(self) -> None:
        self._requests: dict[bytes, PictureRequest] = {}
        self._due_ns: dict[bytes, int] = {}
        self._seq: Counter[bytes] = Counter()

    def take(self, notices: Iterable[bytes]) -> bool:
        """Apply notices of an XPUB socket, and return whether anything changed."""
        changed = False
        for notice in notices:
            is_wanted, topic = notice[:1] == b"\x01", notice[1:]
            if not is_wanted:
                changed |= self._requests.pop(topic, None) is not None
                self._due_ns.pop(topic, None)
            elif len(self._requests) < MAX_REQUESTS and (request := picture_request(topic)) is not None:
                self._requests[topic], self._due_ns[topic], changed = request, 0, True
        return changed

    def by_source(self) -> dict[str, tuple[PictureRequest, ...]]:
        """Return the requests of each source."""
        found: dict[str, tuple[PictureRequest, ...]] = {}
        for request in self._requests.values():
            found[request.source_id] = (*found.get(request.source_id, ()), request)
        return found

    def is_due(self, request: PictureRequest, now_ns: int) -> bool:
        """Return whether to send a picture now, and plan the next one; slightly early frames count as on time."""
        interval_ns = NS_PER_S // request.fps
        due_ns = self._due_ns.get(request.topic, 0)
        early_ns = min(interval_ns // 4, 20 * NS_PER_MS)
        if now_ns < due_ns - early_ns:
            return False
        self._due_ns[request.topic] = max(due_ns, now_ns - early_ns) + interval_ns
        return True

    def next_seq(self, request: PictureRequest) -> int:
        """Return the `seq` of the next message of a topic."""
        self._seq[request.topic] += 1
        return self._seq[request.topic] - 1
