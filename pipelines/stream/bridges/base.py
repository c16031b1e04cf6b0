"""What all bridges share: a queue that keeps what matters while the other side is away, and the loop around it."""

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
    """The other side did not take a message; trying again may help."""


class RejectedError(EngineError):
    """The other side will never take this message; it is counted and left out."""


@runtime_checkable
class Watcher(Protocol):
    """A `BridgeOutput` that learns from messages which it was not asked to hand on.

    Attributes:
        watched_topics: prefixes of what it wants to see.
    """

    watched_topics: tuple[str, ...]

    def watch(self, message: Message) -> None:
        """Learn from a message; returns at once. Raises `TargetError`."""


class BridgeOutput(Protocol):
    """Where a bridge leads. All calls come from one thread."""

    def open(self) -> None:
        """Connect. Raises `TargetError` where trying again may help, another `EngineError` where it cannot."""

    def send(self, message: Message) -> None:
        """Hand over one message, in bounded time. Raises `TargetError` or `RejectedError`."""

    def turn(self) -> None:
        """Do what is due; called several times a second. Raises `TargetError` when the connection is lost."""

    def close(self) -> None:
        """Disconnect; harmless when repeated."""


@dataclass
class BridgeSummary:
    """What a bridge did.

    Attributes:
        sent: messages handed over, by kind.
        dropped: messages that did not fit into the queue while the other side was away, by kind.
        rejected: messages that the other side refuses, by kind.
        reconnects: how often the other side was lost.
    """

    sent: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0


class Forwarder:
    """Hands messages to a target in order; while it is away, keeps states, events and ends, and the newest frames.

    Args:
        target: the other side.
        kept_messages: states, events and ends kept at most; the oldest is dropped first.
        kept_frames: other messages kept at most; the oldest is dropped first.
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
        """Let the target learn from a message that may not be one to hand on."""
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
        """Send what can be sent; connect again when it is time."""
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
            logger.warning("the other side is back: %d messages dropped meanwhile", sum(self.summary.dropped.values()))
        self._is_away = False

    def _lose(self, error: TargetError) -> None:
        """Note that the other side is away, say so once, and try again later."""
        if not self._is_away:
            logger.warning("%s; trying again, messages wait meanwhile", error)
        self._is_away = True
        self.summary.reconnects += self._is_open
        self._is_open = False
        self._target.close()
        self._retry_ns = self._clock.monotonic_ns() + int(self._backoff_s * NS_PER_S)
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)

    @property
    def pending(self) -> int:
        """Messages that wait."""
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
    """Forward messages until `count` were sent, the subscriber is closed, or `stopping` says so.

    Args:
        subscriber: of all that is to be handed on or watched.
        target: where to.
        count: messages to hand on; None: no limit.
        stopping: polled.
        forwarder: with other limits.
        topics: prefixes of what is handed on; the target may watch more.
        ask: returns the snapshot at an endpoint, which a watching target learns from once per engine.

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
        pass  # the person's way to end a bridge
    finally:
        forwarder.close()
    return forwarder.summary


def _watch_snapshot(
    forwarder: Forwarder, heartbeat: HeartbeatMessage, ask: Callable[[str], SnapshotMessage | None]
) -> None:
    """Let the target learn where everything stood before the bridge joined, where the engine can say it."""
    endpoint = heartbeat.endpoints.get("snapshot")
    snapshot = ask(endpoint) if endpoint is not None else None
    if snapshot is not None:
        forwarder.watch(snapshot)
