"""The base of all bridges: a queue that keeps important messages while the recipient is away, and its loop."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.errors import EngineError
from engine.subscriber import NoMessageError, Subscriber
from engine.wire import HeartbeatMessage, Message, SnapshotMessage, kind_of, topic_of

logger = logging.getLogger(__name__)
TURN_S = 0.1
BACKOFF_S = 0.5
BACKOFF_MAX_S = 30.0
KEPT_MESSAGES = 10_000
KEPT_FRAMES = 100
PASSING_KINDS = frozenset(("frame", "stats", "heartbeat", "snapshot"))


class TargetError(EngineError):
    """The recipient did not accept a message; a retry may help."""


class RejectedError(EngineError):
    """The recipient will never accept this message; it is counted and skipped."""


@runtime_checkable
class Watcher(Protocol):
    """A `BridgeOutput` that also learns from messages that it does not forward.

    Attributes:
        watched_topics: prefixes of the topics that it watches.
    """

    watched_topics: tuple[str, ...]

    def watch(self, message: Message) -> None:
        """Learn from a message; returns at once. Raises `TargetError`."""


class BridgeOutput(Protocol):
    """The destination of a bridge. All calls come from one thread."""

    def open(self) -> None:
        """Connect. Raises `TargetError` if a retry may help, another `EngineError` if it cannot."""

    def send(self, message: Message) -> None:
        """Deliver one message, in bounded time. Raises `TargetError` or `RejectedError`."""

    def turn(self) -> None:
        """Do periodic work; called several times a second. Raises `TargetError` if the connection is lost."""

    def close(self) -> None:
        """Disconnect; harmless when repeated."""


@runtime_checkable
class Interruptible(Protocol):
    """A `BridgeOutput` that waits inside `send`."""

    def interrupt(self) -> None:
        """End the wait; called in a signal handler."""


@dataclass
class BridgeSummary:
    """What a bridge did.

    Attributes:
        sent: messages delivered, by kind.
        dropped: messages that did not fit into the queue while the recipient was away, by kind.
        rejected: messages that the recipient refused, by kind.
        reconnects: how often the connection was lost.
    """

    sent: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0


class Forwarder:
    """Delivers messages to a target in order; while it is away, keeps states, events and ends, and the newest frames.

    Args:
        target: the recipient.
        kept_messages: limit for states, events and ends; the oldest is dropped first.
        kept_frames: limit for other messages; the oldest is dropped first.
        clock: for tests.
    """

    def __init__(
        self,
        target: BridgeOutput,
        *,
        kept_messages: int = KEPT_MESSAGES,
        kept_frames: int = KEPT_FRAMES,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.summary = BridgeSummary()
        self._target = target
        self._clock = clock
        self._limits = {False: kept_messages, True: kept_frames}
        self._queues: dict[bool, deque[tuple[int, Message]]] = {False: deque(), True: deque()}
        self._number = 0
        self._is_open = False
        self._retry_ns = 0
        self._backoff_s = BACKOFF_S
        self._is_away = False

    def watch(self, message: Message) -> None:
        """Let the target learn from a message that it may not forward."""
        if isinstance(self._target, Watcher):
            try:
                self._target.watch(message)
            except TargetError as error:
                self._lose(error)

    def offer(self, message: Message) -> None:
        """Put a message into the queue."""
        kind = kind_of(message)
        queue = self._queues[kind in PASSING_KINDS]
        if len(queue) >= self._limits[kind in PASSING_KINDS]:
            self.summary.dropped[kind_of(queue.popleft()[1])] += 1
        queue.append((self._number, message))
        self._number += 1

    def pump(self) -> None:
        """Send as many messages as possible; reconnect when it is time."""
        if self._clock.monotonic_ns() < self._retry_ns:
            return
        try:
            if not self._is_open:
                self._target.open()
                self._is_open = True
            self._target.turn()
            while self.pending:
                self._send_next()
        except TargetError as error:
            self._lose(error)
            return
        self._backoff_s = BACKOFF_S
        if self._is_away:
            logger.warning(
                "the recipient is back: %d messages were dropped in the meantime", sum(self.summary.dropped.values())
            )
        self._is_away = False

    def _lose(self, error: TargetError) -> None:
        """Record that the recipient is away, log it once, and retry later."""
        if not self._is_away:
            logger.warning("%s; retrying while messages wait", error)
        self._is_away = True
        self.summary.reconnects += self._is_open
        self._is_open = False
        self._target.close()
        self._retry_ns = self._clock.monotonic_ns() + int(self._backoff_s * NS_PER_S)
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)

    @property
    def is_connected(self) -> bool:
        """Whether the recipient is connected."""
        return self._is_open

    @property
    def pending(self) -> int:
        """Number of waiting messages."""
        return len(self._queues[False]) + len(self._queues[True])

    def close(self) -> None:
        """Disconnect the target."""
        self._target.close()

    def _send_next(self) -> None:
        queue = min((q for q in self._queues.values() if q), key=lambda q: q[0][0])
        message = queue[0][1]
        kind = kind_of(message)
        try:
            self._target.send(message)
            self.summary.sent[kind] += 1
        except RejectedError:
            self.summary.rejected[kind] += 1
        queue.popleft()


def run_bridge(
    subscriber: Subscriber,
    target: BridgeOutput,
    *,
    count: int | None = None,
    stopping: Callable[[], bool] = lambda: False,
    forwarder: Forwarder | None = None,
    topics: Sequence[str] = ("",),
    ask: Callable[[str], SnapshotMessage | None] = lambda endpoint: None,
) -> BridgeSummary:
    """Forward messages until `count` were sent, the subscriber is closed, or `stopping()` returns true.

    Args:
        subscriber: subscriber to all messages to forward or watch.
        target: destination.
        count: messages to forward; None: no limit.
        stopping: polled.
        forwarder: a forwarder with other limits.
        topics: prefixes of the topics to forward; the target may watch more.
        ask: returns the snapshot at an endpoint; a watching target learns from it once per engine.

    Raises:
        EngineError: the target can never be opened (a wrong address, a missing package).
    """
    forwarder = forwarder or Forwarder(target)
    asked: set[str] = set()
    try:
        forwarder.pump()
        while not stopping() and (count is None or sum(forwarder.summary.sent.values()) < count):
            try:
                message = subscriber.receive(TURN_S)
            except NoMessageError:
                forwarder.pump()
                continue
            if message is None:
                break
            if isinstance(message, HeartbeatMessage) and message.engine_id not in asked:
                asked.add(message.engine_id)
                _watch_snapshot(forwarder, message, ask)
            if topic_of(message).startswith(tuple(topics)):
                forwarder.offer(message)
            else:
                forwarder.watch(message)
            forwarder.pump()
    except KeyboardInterrupt:
        pass  # Ctrl-C ends a bridge
    finally:
        forwarder.close()
    return forwarder.summary


def _watch_snapshot(
    forwarder: Forwarder, heartbeat: HeartbeatMessage, ask: Callable[[str], SnapshotMessage | None]
) -> None:
    """Let the target learn the state from before the bridge joined, if the engine serves a snapshot."""
    endpoint = heartbeat.endpoints.get("snapshot")
    snapshot = ask(endpoint) if endpoint is not None else None
    if snapshot is not None:
        forwarder.watch(snapshot)
