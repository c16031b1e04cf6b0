"""The publisher's place in the stream of one source, and its `stats` messages."""

from __future__ import annotations

from engine.clock import NS_PER_S, Clock
from engine.data import Packet, Run
from engine.stats import PipelineStats, SourceSnapshot
from engine.wire import StatsMessage
from engine.wire.convert import owner_of


class Figures:
    """The statistics of the run; a publisher outside a pipeline counts what is written to it.

    Attributes:
        shared: the statistics that the pipeline keeps; None outside a pipeline.
    """

    def __init__(self, clock: Clock) -> None:
        self.shared: PipelineStats | None = None
        self._clock = clock
        self._own = PipelineStats(clock)

    def clear(self) -> None:
        """Reset the counts, because another run begins."""
        self._own = PipelineStats(self._clock)

    def of(self, source_id: str) -> SourceSnapshot:
        """Return the current figures of a source."""
        return (self._own if self.shared is None else self.shared).source(source_id).snapshot()

    def count(self, packet: Packet, started_ns: int) -> bool:
        """Count a packet unless the pipeline does, and return whether it was counted."""
        if self.shared is not None:
            return False
        for cause, count in packet.dropped.items():
            self._own.source(packet.frame.source_id).add_dropped(cause, count)
        self._own.add_packet(packet, started_ns=started_ns, now_ns=self._clock.monotonic_ns())
        return True


class SourceTraffic:
    """What was last sent for a source, and its statistics at the last `stats` message.

    Args:
        topic: of its frame messages; `prefix` has its bytes.
        figures: the current figures of the source.
        now_ns: monotonic clock.

    Attributes:
        last_seq: `seq` of the last packet, None before the first.
        ended: whether the end of the stream has been announced.
        frame_body: the last frame message that was sent, empty before the first.
        status_body: the last state that was sent.
    """

    def __init__(self, topic: str, figures: SourceSnapshot, now_ns: int) -> None:
        self.topic, self.prefix = topic, topic.encode()
        self.frame_body = b""
        self.status_body = b""
        self.last_seq: int | None = None
        self.ended = False
        self._before, self._since_ns = figures, now_ns

    def resume(self, figures: SourceSnapshot, now_ns: int) -> None:
        """Continue because the source has come back."""
        self.ended = False
        self._before, self._since_ns = figures, now_ns

    def add(self, packet: Packet, body: bytes) -> None:
        """Remember one packet, sent as `body`."""
        self.frame_body = body
        self.last_seq = packet.seq

    def message(self, figures: SourceSnapshot, run: Run, *, seq: int, now_ns: int, utc_ns: int) -> StatsMessage:
        """Return the counts of `figures`, and the rates and times since the previous call."""
        interval_s = max((now_ns - self._since_ns) / NS_PER_S, 1e-9)
        packets = figures.published - self._before.published
        latency = figures.latency.since(self._before.latency)
        spent = {stage: ms - self._before.stage_ms.get(stage, 0.0) for stage, ms in figures.stage_ms.items()}
        message = StatsMessage(
            engine_id=run.engine_id,
            run_epoch=run.run_epoch,
            owner_epoch=owner_of(run),
            source_id=figures.source_id,
            seq=seq,
            published_utc_ns=utc_ns,
            interval_s=round(interval_s, 3),
            published=figures.published,
            dropped=dict(figures.dropped),
            fps=round(packets / interval_s, 2),
            latency_ms={**latency.summary(0.5, 0.99), "max": round(latency.max, 3)} if latency.count else {},
            stage_ms={stage: round(ms / packets, 3) for stage, ms in spent.items() if packets and ms},
        )
        self._before, self._since_ns = figures, now_ns
        return message
