"""The publisher's counters of one source, for the `stats` message."""

from __future__ import annotations

from collections import Counter

import numpy as np

from engine.clock import NS_PER_S
from engine.data import Packet, Run
from engine.wire import StatsMessage

MAX_SAMPLES = 4096


class SourceTraffic:
    """Counts since the start of the run, and times since the last message.

    Args:
        topic: of its frame messages.
        now_ns: monotonic clock.

    Attributes:
        published: packets so far.
        dropped: frames dropped so far, by cause.
        last_seq: `seq` of the last packet, None before the first.
        ended: whether the end of the stream has been announced.
        frame_body: the last frame message that was sent, empty before the first.
        status_body: the last state that was sent.
    """

    def __init__(self, topic: str, now_ns: int) -> None:
        self.topic = topic
        self.frame_body = b""
        self.status_body = b""
        self.published = 0
        self.dropped: Counter[str] = Counter()
        self.last_seq: int | None = None
        self.ended = False
        self._start(now_ns)

    def resume(self, now_ns: int) -> None:
        """Continue counting because the source has come back."""
        self.ended = False
        self._start(now_ns)

    def add(self, packet: Packet, body: bytes) -> None:
        """Count one packet, sent as `body`."""
        self.frame_body = body
        self.published += 1
        self.last_seq = packet.seq
        if packet.dropped:
            self.dropped.update(packet.dropped)
        self._packets += 1
        if len(self._latency_ms) < MAX_SAMPLES:
            self._latency_ms.append(packet.latency_ms)
        for stage, ms in packet.stage_ms.items():
            self._stage_ms[stage] = self._stage_ms.get(stage, 0.0) + ms

    def message(self, source_id: str, run: Run, *, seq: int, now_ns: int, utc_ns: int) -> StatsMessage:
        """Return the counts, and the times since the previous call."""
        interval_s = max((now_ns - self._since_ns) / NS_PER_S, 1e-9)
        packets = self._packets
        message = StatsMessage(
            engine_id=run.engine_id,
            run_epoch=run.run_epoch,
            source_id=source_id,
            seq=seq,
            published_utc_ns=utc_ns,
            interval_s=round(interval_s, 3),
            published=self.published,
            dropped=dict(self.dropped),
            fps=round(packets / interval_s, 2),
            latency_ms=self._latencies(),
            stage_ms={stage: round(total / packets, 3) for stage, total in self._stage_ms.items()},
        )
        self._start(now_ns)
        return message

    def _start(self, now_ns: int) -> None:
        self._since_ns = now_ns
        self._packets = 0
        self._latency_ms: list[float] = []
        self._stage_ms: dict[str, float] = {}

    def _latencies(self) -> dict[str, float]:
        if not self._latency_ms:
            return {}
        p50, p99 = np.percentile(self._latency_ms, (50, 99))
        return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(max(self._latency_ms), 3)}
