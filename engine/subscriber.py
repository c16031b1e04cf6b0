"""The client: typed messages from a publisher, with every loss known. Needs only pyzmq, numpy and msgspec."""

from __future__ import annotations

import logging
import socket as sockets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import zmq

from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.errors import ConfigError, EngineError, WireError
from engine.wire import (
    MAX_BODY_BYTES,
    TOPIC_ROOT,
    FrameMessage,
    HeartbeatMessage,
    Message,
    VersionError,
    decode,
    topic_for,
    topic_of,
)

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

ALL_TOPICS = (f"{TOPIC_ROOT}/",)
HIGH_WATER_MARK = 10_000
RECONNECT_MS = 100
RECONNECT_MAX_MS = 2_000
PING_MS = 2_000
PING_TIMEOUT_MS = 6_000
MAX_TOPICS = 100_000


class NoMessageError(EngineError, TimeoutError):
    """Nothing arrived within the time that the reader was willing to wait."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that this reader missed.

    Attributes:
        topic: of which topic.
        first_seq: `seq` of the first one lost.
        last_seq: `seq` of the last one lost.
        run_epoch: the run they belong to.
        cause: `lost` on the way or in a queue that was full, or `restart`: the publisher started anew and its
            first messages were missed (what the old run sent after the last message seen cannot be known).
    """

    topic: str
    first_seq: int
    last_seq: int
    run_epoch: int
    cause: Literal["lost", "restart"] = "lost"

    @property
    def count(self) -> int:
        """Number of messages lost."""
        return self.last_seq - self.first_seq + 1


class Subscriber:
    """Iterates over the messages of one or more publishers, in order per topic; reconnects by itself.

    Messages that cannot be read are counted in `malformed` and skipped, and those of another major version raise.
    Iterate on one thread; `close` and the counters may be used from any.

    Args:
        address: where publishers are bound, `tcp://host:port` or `ipc://path`; one or several.
        topics: prefixes of the topics wanted, for example `v1/frame/gate/`.
        timeout_s: raise `NoMessageError` when nothing arrives for so long; None waits for ever.
        on_gap: called with each `Gap`, before the message after it is yielded.
        on_restart: called with the first message of a new run of a publisher.
        high_water_mark: messages kept for this reader while it is busy.
        max_bytes: longest message accepted; a publisher that sends a longer one is disconnected.

    Attributes:
        received: messages yielded so far.
        lost: messages missed so far, by topic.
        malformed: messages skipped because they could not be read.
        restarts: how often a publisher began a new run.

    >>> for message in Subscriber("tcp://127.0.0.1:5555", topics=["v1/frame/"]):  # doctest: +SKIP
    ...     print(message.source_id, len(message.objects))
    """

    def __init__(
        self,
        address: str | Sequence[str],
        topics: str | Sequence[str] = ALL_TOPICS,
        *,
        timeout_s: float | None = None,
        on_gap: Callable[[Gap], None] | None = None,
        on_restart: Callable[[Message], None] | None = None,
        high_water_mark: int = HIGH_WATER_MARK,
        max_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.addresses = (address,) if isinstance(address, str) else tuple(address)
        self.topics = (topics,) if isinstance(topics, str) else tuple(topics)
        if not self.addresses or not self.topics:
            raise ConfigError("a subscriber needs an address and a topic: the topic v1/ matches everything")
        self.timeout_s = timeout_s
        self.received = 0
        self.malformed = 0
        self.restarts = 0
        self.lost: Counter[str] = Counter()
        self._on_gap = on_gap
        self._on_restart = on_restart
        self._max_bytes = max_bytes
        self._last: dict[tuple[str, str], tuple[int, int]] = {}
        self._epochs: dict[str, int] = {}
        self._closed = threading.Event()
        self._receiving = threading.Lock()
        self._closing = threading.Lock()
        self._wake_reader, self._wake_writer = sockets.socketpair()
        self._context: zmq.Context[Any] = zmq.Context()
        try:
            self._socket = self._connect(high_water_mark)
        except zmq.ZMQError as error:
            self.close()
            message = f"cannot subscribe to {', '.join(self.addresses)}: {error}: give tcp://host:port or ipc://path"
            raise ConfigError(message) from error
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake_reader, zmq.POLLIN)

    def __iter__(self) -> Iterator[Message]:
        """Yield messages until `close` is called."""
        while (message := self.receive(self.timeout_s)) is not None:
            yield message

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """Return the next message, or None once this subscriber is closed.

        Raises:
            NoMessageError: nothing arrived within `timeout_s`.
            WireError: a message is of another major version.
        """
        deadline_ns = None if timeout_s is None else SYSTEM_CLOCK.monotonic_ns() + int(timeout_s * NS_PER_S)
        with self._receiving:
            while not self._closed.is_set():
                parts = self._next_parts(deadline_ns)
                message = self._read(parts) if parts else None
                if message is not None:
                    self.received += 1
                    return message
        return None

    def close(self) -> None:
        """End the iteration, also one that another thread waits in; harmless when repeated."""
        with self._closing:
            if self._closed.is_set():
                return
            self._closed.set()
            self._wake_writer.send(b"\0")
            with self._receiving:
                self._context.destroy(linger=0)
                self._wake_reader.close()
                self._wake_writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self, high_water_mark: int) -> zmq.Socket[Any]:
        socket: zmq.Socket[Any] = self._context.socket(zmq.SUB)
        options = {
            zmq.RCVHWM: high_water_mark,
            zmq.MAXMSGSIZE: self._max_bytes,
            zmq.RECONNECT_IVL: RECONNECT_MS,
            zmq.RECONNECT_IVL_MAX: RECONNECT_MAX_MS,
            zmq.HEARTBEAT_IVL: PING_MS,
            zmq.HEARTBEAT_TIMEOUT: PING_TIMEOUT_MS,
            zmq.LINGER: 0,
        }
        for option, value in options.items():
            socket.setsockopt(option, value)
        for topic in self.topics:
            socket.subscribe(topic)
        for address in self.addresses:
            socket.connect(address)
        return socket

    def _next_parts(self, deadline_ns: int | None) -> list[bytes] | None:
        """Return the parts of the next message, None when woken by `close`."""
        while not self._closed.is_set():
            try:
                return self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                left_ms = None if deadline_ns is None else (deadline_ns - SYSTEM_CLOCK.monotonic_ns()) // 1_000_000
            if left_ms is not None and left_ms <= 0:
                raise NoMessageError(
                    f"no message from {', '.join(self.addresses)} on {', '.join(self.topics)} in time:"
                    " is a publisher running there, and is the topic right?"
                )
            self._poller.poll(left_ms)
        return None

    def _read(self, parts: list[bytes]) -> Message | None:
        try:
            if len(parts) < 2:
                raise WireError(f"message has {len(parts)} part: expected [topic, body]")
            message = decode(parts[1], max_bytes=self._max_bytes)
            topic = parts[0].decode()
            if topic != topic_of(message):
                raise WireError(f"topic {topic[:80]!r} does not fit its message, of {topic_of(message)[:80]!r}")
        except VersionError:
            raise
        except (WireError, UnicodeDecodeError) as error:
            self.malformed += 1
            logger.warning("skipped a message that cannot be read: %s", error)
            return None
        self._follow(topic, message)
        return message

    def _follow(self, topic: str, message: Message) -> None:
        self._follow_run(message)
        key = (message.engine_id, topic)
        last = self._last.get(key)
        if last is not None and last[0] == message.run_epoch and message.seq > last[1] + 1:
            self._report(Gap(topic, last[1] + 1, message.seq - 1, message.run_epoch))
        elif last is not None and last[0] != message.run_epoch and message.seq > 0:
            self._report(Gap(topic, 0, message.seq - 1, message.run_epoch, "restart"))
        if last is not None or len(self._last) < MAX_TOPICS:
            self._last[key] = (message.run_epoch, message.seq)
        if isinstance(message, HeartbeatMessage):
            self._follow_heartbeat(message)

    def _follow_run(self, message: Message) -> None:
        known = self._epochs.get(message.engine_id)
        if known == message.run_epoch:
            return
        if known is not None or len(self._epochs) < MAX_TOPICS:
            self._epochs[message.engine_id] = message.run_epoch
        if known is not None:
            self.restarts += 1
            if self._on_restart is not None:
                self._on_restart(message)

    def _follow_heartbeat(self, heartbeat: HeartbeatMessage) -> None:
        """Notice the loss of a source's latest frames, which no later frame has shown yet."""
        for source_id, seq in heartbeat.frame_seq.items():
            topic = topic_for("frame", source_id)
            key = (heartbeat.engine_id, topic)
            last = self._last.get(key)
            if last is not None and last[0] == heartbeat.run_epoch and seq > last[1]:
                self._last[key] = (heartbeat.run_epoch, seq)
                self._report(Gap(topic, last[1] + 1, seq, heartbeat.run_epoch))

    def _report(self, gap: Gap) -> None:
        self.lost[gap.topic] += gap.count
        if self._on_gap is not None:
            self._on_gap(gap)


def subscribe(
    address: str | Sequence[str],
    topics: str | Sequence[str] = ALL_TOPICS,
    count: int | None = None,
    timeout_s: float | None = None,
) -> Iterator[Message]:
    """Yield messages of a publisher, at most `count` of them, and disconnect at the end.

    Raises:
        NoMessageError: nothing arrived for `timeout_s`.
        WireError: the publisher speaks another major version.
    """
    if count is not None and count <= 0:
        return
    with Subscriber(address, topics, timeout_s=timeout_s) as subscriber:
        for message in subscriber:
            yield message
            if subscriber.received == count:
                return


def frames(
    address: str | Sequence[str], source_id: str | None = None, *, timeout_s: float | None = None
) -> Iterator[FrameMessage]:
    """Yield only frame messages, of all sources or of one."""
    topic = f"{TOPIC_ROOT}/frame/" if source_id is None else topic_for("frame", source_id)
    for message in subscribe(address, topic, timeout_s=timeout_s):
        if isinstance(message, FrameMessage):
            yield message
