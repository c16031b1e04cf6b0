"""Records a stream to a file exactly as it arrives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.subscriber import ALL_TOPICS, NoMessageError, Subscriber
from engine.subscriber.reader import MessageReader
from engine.wire.stream_file import RecordingWriter

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

CHECK_S = 0.2


@dataclass
class RecordSummary:
    """Summary of a recording.

    Attributes:
        messages: records written.
        bytes: their size in the file.
        lost: messages missed, by topic.
        malformed: messages left out because they could not be read.
    """

    messages: int = 0
    bytes: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    malformed: int = 0


def record(
    address: str | Sequence[str],
    path: str | Path,
    *,
    topics: Sequence[str] = ALL_TOPICS,
    count: int | None = None,
    duration_s: float | None = None,
    timeout_s: float | None = None,
    events: str | None = None,
    server_key: str | None = None,
    keys: KeyPair | None = None,
    stopping: Callable[[], bool] = lambda: False,
    summary: RecordSummary | None = None,
) -> RecordSummary:
    """Write a publisher's messages to a file until a limit or `stopping` ends it; an existing recording is continued.

    Args:
        address: of the publisher.
        path: the file.
        topics: prefixes wanted.
        count: stop after this many messages.
        duration_s: stop after this time.
        timeout_s: longest time without messages.
        events: the publisher's `events` address.
        server_key: public key of a publisher that encrypts.
        keys: CURVE keys of this reader.
        stopping: polled several times a second; true stops the recording.
        summary: kept up to date during the recording, and returned.

    Raises:
        NoMessageError: nothing arrived for `timeout_s`.
        SinkError: the file cannot be written.
        VersionError: the publisher sends another major version.
    """
    reader, summary = MessageReader(topics), summary or RecordSummary()
    started_ns = heard_ns = SYSTEM_CLOCK.monotonic_ns()
    options = {"events": events, "server_key": server_key, "keys": keys}
    with RecordingWriter(path) as writer, Subscriber(address, topics, **options) as subscriber:  # type: ignore[arg-type]
        try:
            while not stopping() and (count is None or writer.records < count):
                now_ns = SYSTEM_CLOCK.monotonic_ns()
                if duration_s is not None and now_ns - started_ns >= duration_s * NS_PER_S:
                    break
                try:
                    parts = subscriber.receive_parts(CHECK_S)
                except NoMessageError:
                    if timeout_s is not None and now_ns - heard_ns >= timeout_s * NS_PER_S:
                        raise
                    continue
                heard_ns = now_ns
                if parts is not None and reader.read(parts) is not None:
                    writer.write(SYSTEM_CLOCK.utc_ns(), parts[0], parts[1])
                summary.messages, summary.bytes = writer.records, writer.bytes
                summary.lost, summary.malformed = dict(reader.lost), reader.malformed
        except KeyboardInterrupt:
            pass  # Ctrl-C is the normal way to end a recording
        summary.messages, summary.bytes = writer.records, writer.bytes
    summary.lost, summary.malformed = dict(reader.lost), reader.malformed
    return summary
