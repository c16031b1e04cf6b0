"""Tracks one engine for a bridge: whether it is alive, and the state of each of its cameras.

A bridge may join after the states were sent, and a killed engine sends none. So the state is derived from everything
that arrives: a snapshot at the start, frames (their camera is live) and heartbeats (or their absence).
"""

from __future__ import annotations

import msgspec

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.wire import FrameMessage, HeartbeatMessage, Message, SnapshotMessage, StatusMessage

MISSED_HEARTBEATS = 3
DEFAULT_INTERVAL_S = 1.0
LEAST_SILENCE_S = 3.0


class EngineState:
    """Follows one engine.

    Args:
        clock: for tests.

    Attributes:
        statuses: the last state of each camera, derived from its frames if none was sent.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.statuses: dict[str, StatusMessage] = {}
        self._clock = clock
        self._heard_ns: int | None = None
        self._interval_s = DEFAULT_INTERVAL_S

    @property
    def is_alive(self) -> bool:
        """Whether a message arrived recently: within three heartbeat intervals, or three seconds if that is longer."""
        limit_s = max(MISSED_HEARTBEATS * self._interval_s, LEAST_SILENCE_S)
        return self._heard_ns is not None and self._clock.monotonic_ns() - self._heard_ns < limit_s * NS_PER_S

    def take(self, message: Message) -> list[StatusMessage]:
        """Learn from a message; return the states that have changed."""
        self._heard_ns = self._clock.monotonic_ns()
        if isinstance(message, HeartbeatMessage):
            self._interval_s = message.interval_s
        if isinstance(message, SnapshotMessage):
            new = [s for s in message.statuses if s.source_id not in self.statuses]
            new += [_live(frame) for frame in message.frames if frame.source_id not in {s.source_id for s in new}]
        elif isinstance(message, StatusMessage):
            new = [message]
        elif isinstance(message, FrameMessage) and self._is_news(message):
            new = [_live(message, self.statuses.get(message.source_id))]
        else:
            return []
        new = [status for status in new if status != self.statuses.get(status.source_id)]
        self.statuses.update({status.source_id: status for status in new})
        return new

    def lost(self, reason: str) -> list[StatusMessage]:
        """Mark all cameras of a lost engine as offline, and return the changed states."""
        gone = [
            msgspec.structs.replace(status, state="offline", reason=reason, published_utc_ns=self._clock.utc_ns())
            for status in self.statuses.values()
            if status.state not in ("offline", "ended")
        ]
        self.statuses.update({status.source_id: status for status in gone})
        return gone

    def _is_news(self, frame: FrameMessage) -> bool:
        """Return whether a frame shows that a camera is live; one in flight when the camera ended does not."""
        known = self.statuses.get(frame.source_id)
        return known is None or known.run_epoch != frame.run_epoch or known.state in ("offline", "connecting")


def _live(frame: FrameMessage, known: StatusMessage | None = None) -> StatusMessage:
    """Return the state derived from a frame."""
    facts = {name: getattr(frame, name) for name in ("engine_id", "run_epoch", "source_id", "stream_epoch")}
    facts |= {"published_utc_ns": frame.published_utc_ns, "width": frame.width, "height": frame.height}
    if known is not None:
        return msgspec.structs.replace(known, state="live", reason="", **facts)
    return StatusMessage(seq=0, state="live", **facts)
