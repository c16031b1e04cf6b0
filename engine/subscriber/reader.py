"""Decoding received messages and accounting for the missing ones. No sockets."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from engine.errors import WireError
from engine.wire import (
    MAX_BODY_BYTES,
    TOPIC_ROOT,
    HeartbeatMessage,
    ImageMessage,
    Message,
    SnapshotMessage,
    VersionError,
    decode,
    topic_for,
    topic_of,
)

logger = logging.getLogger(__name__)

ALL_TOPICS = (f"{TOPIC_ROOT}/",)
MAX_TOPICS = 100_000
MAX_RUNS = 4  # maximum number remembered per engine


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that this reader missed.

    Attributes:
        topic: their topic.
        first_seq: `seq` of the first one lost.
        last_seq: `seq` of the last one lost.
        run_epoch: the run they belong to.
        cause: `lost` in transit or from a full queue, or `restart`: the publisher restarted and its first messages
            were missed (what the old run sent after the last message seen cannot be known).
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


class MessageReader:
    """Turns received parts into messages and reports gaps and restarts.

    Args:
        topics: subscribed prefixes.
        on_gap: called with each `Gap`.
        on_restart: called with the first message of a new run of a publisher.
        max_bytes: longest body accepted.

    Attributes:
        lost: messages missed so far, by topic.
        malformed: messages skipped because they could not be read.
        restarts: number of times that a publisher began a new run.
        needs_snapshot: set after a gap or restart; the code that requests the snapshot resets it.
    """

    def __init__(
        self,
        topics: Sequence[str] = ALL_TOPICS,
        *,
        on_gap: Callable[[Gap], None] | None = None,
        on_restart: Callable[[Message], None] | None = None,
        max_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.lost: Counter[str] = Counter()
        self.malformed = 0
        self.restarts = 0
        self.needs_snapshot = True
        self._topics = tuple(topics)
        self._on_gap = on_gap
        self._on_restart = on_restart
        self._max_bytes = max_bytes
        self._last: dict[tuple[str, str, int], int] = {}
        self._epochs: dict[str, list[int]] = {}
        self._shared: set[str] = set()

    def read(self, parts: Sequence[bytes]) -> Message | None:
        """Return the message of `[topic, body, ...]`, or None if it cannot be read (it is counted).

        Raises:
            VersionError: it is of another major version.
        """
        try:
            if len(parts) < 2:
                raise WireError(f"message has {len(parts)} part(s): expected [topic, body]")
            message = decode(parts[1], max_bytes=self._max_bytes)
            topic = parts[0].decode()
            if topic != topic_of(message):
                raise WireError(f"topic {topic[:80]!r} does not match its message of {topic_of(message)[:80]!r}")
        except VersionError:
            raise
        except (WireError, UnicodeDecodeError) as error:
            self._skip(error)
            return None
        self._follow(topic, message)
        if isinstance(message, ImageMessage) and len(parts) > 2:
            return msgspec.structs.replace(message, jpeg=parts[2])
        return message

    def read_snapshot(self, body: bytes) -> SnapshotMessage | None:
        """Return the snapshot in `body`; topics not seen yet are counted from there."""
        try:
            message = decode(body, max_bytes=self._max_bytes)
        except WireError as error:
            self._skip(error)
            return None
        if not isinstance(message, SnapshotMessage):
            return None
        self._follow_run(message)
        for topic, seq in message.last_seq.items():
            if topic.startswith(self._topics) and len(self._last) < MAX_TOPICS:
                self._last.setdefault((message.engine_id, topic, message.run_epoch), seq)
        return message

    def _skip(self, error: Exception) -> None:
        self.malformed += 1
        logger.warning("skipped a message that cannot be read: %s", error)

    def _follow(self, topic: str, message: Message) -> None:
        self._follow_run(message)
        key = message.engine_id, topic, message.run_epoch
        last = self._last.get(key)
        if last is not None and message.seq > last + 1:
            self._report(Gap(topic, last + 1, message.seq - 1, message.run_epoch))
        elif last is None and message.seq > 0 and self._was_known(*key):
            self._report(Gap(topic, 0, message.seq - 1, message.run_epoch, "restart"))
        if last is not None or len(self._last) < MAX_TOPICS:
            self._last[key] = message.seq
        if isinstance(message, HeartbeatMessage):
            self._follow_heartbeat(message)

    def _was_known(self, engine_id: str, topic: str, run_epoch: int) -> bool:
        """Return whether an earlier run of this engine had the topic."""
        epochs = self._epochs.get(engine_id, ())
        return any((engine_id, topic, epoch) in self._last for epoch in epochs if epoch != run_epoch)

    def _follow_run(self, message: Message) -> None:
        """Detect a new run.

        If an earlier run continues at the same time, it is another engine of the same name, not a restart.
        """
        epochs = self._epochs.get(message.engine_id)
        if epochs is None:
            if len(self._epochs) < MAX_TOPICS:
                self._epochs[message.engine_id] = [message.run_epoch]
            return
        if message.run_epoch in epochs:
            both_run = message.run_epoch != epochs[-1] and message.published_utc_ns > epochs[-1]
            if both_run and message.engine_id not in self._shared:
                self._shared.add(message.engine_id)
                logger.warning("two engines are called %s: give each its own pipeline.engine_id", message.engine_id)
            return
        epochs.append(message.run_epoch)
        if len(epochs) > MAX_RUNS:
            self._forget(message.engine_id, epochs.pop(0))
        self.restarts += 1
        self.needs_snapshot = True
        if self._on_restart is not None:
            self._on_restart(message)

    def _forget(self, engine_id: str, run_epoch: int) -> None:
        for key in [key for key in self._last if key[0] == engine_id and key[2] == run_epoch]:
            del self._last[key]

    def _follow_heartbeat(self, heartbeat: HeartbeatMessage) -> None:
        """Detect the loss of a source's latest frames before any later frame shows it."""
        for source_id, seq in heartbeat.frame_seq.items():
            topic = topic_for("frame", source_id)
            key = heartbeat.engine_id, topic, heartbeat.run_epoch
            last = self._last.get(key)
            if last is not None and seq > last:
                self._last[key] = seq
                self._report(Gap(topic, last + 1, seq, heartbeat.run_epoch))

    def _report(self, gap: Gap) -> None:
        self.lost[gap.topic] += gap.count
        self.needs_snapshot = True
        if self._on_gap is not None:
            self._on_gap(gap)
