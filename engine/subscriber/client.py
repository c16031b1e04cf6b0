"""`Subscriber`: iterates over messages on one thread, until any thread closes it."""

from __future__ import annotations

import socket as sockets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import zmq

from engine.clock import NS_PER_MS, NS_PER_S, SYSTEM_CLOCK
from engine.errors import ConfigError, EngineError
from engine.subscriber.reader import ALL_TOPICS, Gap, MessageReader
from engine.transport.connect import HIGH_WATER_MARK, Connection
from engine.wire import MAX_BODY_BYTES, TOPIC_ROOT, FrameMessage, Message, topic_for

if TYPE_CHECKING:
    from typing_extensions import Self

    from engine.transport.keys import KeyPair

SNAPSHOT_RETRY_NS = NS_PER_S


class NoMessageError(EngineError, TimeoutError):
    """Nothing arrived within the timeout."""


class Subscriber:
    """Iterates over the messages of one or more publishers, in order per topic; reconnects by itself.

    Messages that cannot be read are counted in `malformed` and skipped; those of another major version raise.
    Iterate on one thread; any thread may call `close` and read the counters.

    Args:
        address: where publishers are bound, `tcp://host:port` or `ipc://path`; one or several.
        topics: prefixes of the wanted topics, for example `v1/frame/gate/`.
        timeout_s: raise `NoMessageError` if nothing arrives for this long; None waits indefinitely.
        on_gap: called with each `Gap`, before the message after it is yielded.
        on_restart: called with the first message of a new run of a publisher.
        events: the publisher's `events` address: states, events and ends are read there, where frames cannot crowd
            them out.
        snapshot: the publisher's `snapshot` address: a `SnapshotMessage` is yielded at the start and after each gap
            or restart, so that the reader knows the current state of every source at once.
        server_key: public key of a publisher that encrypts.
        keys: CURVE keys of this reader; None generates a pair for this connection, which an allow list will refuse.
        high_water_mark: messages queued for this reader while it is busy.
        max_bytes: longest message accepted; a publisher that sends a longer one is disconnected.

    Attributes:
        received: messages yielded so far.

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
        events: str | None = None,
        snapshot: str | None = None,
        server_key: str | None = None,
        keys: KeyPair | None = None,
        high_water_mark: int = HIGH_WATER_MARK,
        max_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.addresses = (address,) if isinstance(address, str) else tuple(address)
        self.topics = (topics,) if isinstance(topics, str) else tuple(topics)
        if not self.addresses or not self.topics:
            raise ConfigError("a subscriber needs an address and a topic; the topic v1/ matches everything")
        self.timeout_s = timeout_s
        self.received = 0
        self._reader = MessageReader(self.topics, on_gap=on_gap, on_restart=on_restart, max_bytes=max_bytes)
        self._closed = threading.Event()
        self._receiving = threading.Lock()
        self._closing = threading.Lock()
        self._connection = Connection(high_water_mark, max_bytes, server_key, keys)
        self._sources = self._connection.subscribe(self.addresses, self.topics, events)
        self._snapshots = self._connection.dealer(snapshot) if snapshot is not None else None
        self._connection.start()
        self._asked_ns: int | None = None
        self._wake_reader, self._wake_writer = sockets.socketpair()
        self._poller = zmq.Poller()
        for socket in (*self._sources, self._snapshots, self._wake_reader):
            if socket is not None:
                self._poller.register(socket, zmq.POLLIN)

    @property
    def lost(self) -> Counter[str]:
        """Messages missed so far, by topic."""
        return self._reader.lost

    @property
    def malformed(self) -> int:
        """Messages skipped because they could not be read."""
        return self._reader.malformed

    @property
    def restarts(self) -> int:
        """Number of times that a publisher began a new run."""
        return self._reader.restarts

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
                message = self._try()
                if message is not None:
                    self.received += 1
                    return message
                self._wait(deadline_ns)
        return None

    def receive_parts(self, timeout_s: float | None = None) -> list[bytes] | None:
        """Return the parts of the next message without decoding them, or None once closed: for recorders and bridges.

        Raises:
            NoMessageError: nothing arrived within `timeout_s`.
        """
        deadline_ns = None if timeout_s is None else SYSTEM_CLOCK.monotonic_ns() + int(timeout_s * NS_PER_S)
        with self._receiving:
            while not self._closed.is_set():
                parts = self._next_parts()
                if parts is not None:
                    self.received += 1
                    return parts
                self._wait(deadline_ns)
        return None

    def close(self) -> None:
        """End the iteration, even if another thread is waiting in it; harmless when repeated."""
        with self._closing:
            if self._closed.is_set():
                return
            self._closed.set()
            self._wake_writer.send(b"\0")
            with self._receiving:
                self._connection.close()
                self._wake_reader.close()
                self._wake_writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try(self) -> Message | None:
        """Return a message that has already arrived and can be read."""
        if self._snapshots is not None:
            snapshot = self._exchange(self._snapshots)
            if snapshot is not None:
                return snapshot
        while (parts := self._next_parts()) is not None:
            message = self._reader.read(parts)
            if message is not None:
                return message
        return None

    def _next_parts(self) -> list[bytes] | None:
        for socket in self._sources:
            try:
                return self._connection.receive(socket)
            except zmq.Again:
                continue
        return None

    def _exchange(self, socket: zmq.Socket[Any]) -> Message | None:
        """Request the snapshot if it is needed; return an answer that has arrived."""
        now_ns = SYSTEM_CLOCK.monotonic_ns()
        is_waiting = self._asked_ns is not None and now_ns - self._asked_ns < SNAPSHOT_RETRY_NS
        try:
            if (self._reader.needs_snapshot or self._asked_ns is not None) and not is_waiting:
                socket.send(b"", zmq.NOBLOCK)
                self._asked_ns, self._reader.needs_snapshot = now_ns, False
            parts = self._connection.receive(socket)
        except zmq.Again:
            return None
        self._asked_ns = None
        return self._reader.read_snapshot(parts[-1])

    def _wait(self, deadline_ns: int | None) -> None:
        """Wait until something arrives or `close` is called, no longer than to the deadline or the next request."""
        now_ns = SYSTEM_CLOCK.monotonic_ns()
        if deadline_ns is not None and now_ns >= deadline_ns:
            raise NoMessageError(
                f"no message from {', '.join(self.addresses)} on {', '.join(self.topics)} before the timeout:"
                " is a publisher running there, and is the topic right?"
            )
        ends = [deadline_ns] if deadline_ns is not None else []
        if self._asked_ns is not None:
            ends.append(self._asked_ns + SNAPSHOT_RETRY_NS)
        self._poller.poll(max((min(ends) - now_ns) // NS_PER_MS, 1) if ends else None)


def subscribe(
    address: str | Sequence[str],
    topics: str | Sequence[str] = ALL_TOPICS,
    count: int | None = None,
    timeout_s: float | None = None,
) -> Iterator[Message]:
    """Yield messages of a publisher, at most `count` of them, and disconnect at the end.

    Raises:
        NoMessageError: nothing arrived for `timeout_s`.
        WireError: the publisher sends another major version.
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
