"""A running engine with a healthy camera and a faulty one, and the effect of a fault on both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.data import Packet, SourceStatus
from engine.flow.pipeline import Pipeline, PipelineOptions
from engine.protocols import Sink, SinkBase
from engine.sources.open import open_source
from tests.fakes import OneTracker, PixelDetector

VICTIM, HEALTHY = "victim", "healthy"


@dataclass
class Log(SinkBase):
    """Records when each packet of each camera was published, and every change of state."""

    name: str = "log"
    blocking: bool = False
    packets: list[tuple[float, str, float, int | None, int, int]] = field(default_factory=list)
    states: list[tuple[float, str, str, str]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def write(self, packet: Packet) -> None:
        frame = packet.frame
        row = (time.monotonic(), frame.source_id, packet.latency_ms, frame.pts_ns, frame.stream_epoch, frame.frame_id)
        with self.changed:
            self.packets.append(row)
            self.changed.notify_all()

    def status(self, status: SourceStatus) -> None:
        with self.changed:
            self.states.append((time.monotonic(), status.source_id, status.state, status.reason))
            self.changed.notify_all()

    def wait_for_frame(self, source_id: str, after: float, timeout_s: float) -> float | None:
        """Return when the next frame of a camera came after `after`, None if none came in time."""

        def found() -> list[float]:
            return [row[0] for row in self.packets if row[1] == source_id and row[0] >= after]

        with self.changed:
            self.changed.wait_for(found, timeout_s)
            times = found()
        return times[0] if times else None


@dataclass(frozen=True)
class Phase:
    """Frames per second and 99th percentile of the latency of one camera in a part of a run."""

    fps: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.fps:.0f}/{self.p99_ms:.0f}" if self.fps else "0"


@dataclass(frozen=True)
class Outcome:
    """The effect of one fault.

    Attributes:
        states: states of the victim in order, from the start of the fault.
        reasons: the distinct reasons given.
        recovery_s: from the end of the fault to the first frame; None if no frame came.
        victim: before, during, after.
        healthy: before, during, after.
        sources: captured, published, dropped by cause, reconnects of both.
        is_accounted: captured = published + dropped for both.
        is_genuine: no stream time came twice in an epoch, and none went back.
        stopped_in_time: whether the engine stopped within its limit afterwards.
        notes: other observations.
    """

    states: tuple[str, ...]
    reasons: tuple[str, ...]
    recovery_s: float | None
    victim: tuple[Phase, ...]
    healthy: tuple[Phase, ...]
    sources: dict[str, Any]
    is_accounted: bool
    is_genuine: bool
    stopped_in_time: bool
    notes: tuple[str, ...] = ()


class Lab:
    """An engine on two cameras; the first one suffers the faults."""

    around_s = 1.0  # how long to observe before and after a fault; the tool takes longer

    def __init__(self, victim: str, healthy: str | None, *sinks: Sink, detect_s: float = 0.002, **options: Any) -> None:
        self.log = Log()
        sources = [open_source(victim, source_id=VICTIM, **options)]
        if healthy is not None:
            sources.append(open_source(healthy, source_id=HEALTHY))
        self.pipeline = Pipeline(
            sources,
            PixelDetector(work_s=detect_s, max_batch=2),
            OneTracker(),
            self.log,
            *sinks,
            options=PipelineOptions(max_age_ms=1000),
        )

    def phase(self, source_id: str, start: float, end: float) -> Phase:
        """Return the figures of a camera between two moments."""
        rows = [row for row in self.log.packets if row[1] == source_id and start <= row[0] < end]
        if not rows:
            return Phase(0.0, 0.0)
        return Phase(len(rows) / (end - start), float(np.percentile([row[2] for row in rows], 99)))

    def is_genuine(self) -> bool:
        """Return whether stream times only rise within each epoch of each camera, and frame ids always."""
        for source_id in (VICTIM, HEALTHY):
            rows = [row for row in self.log.packets if row[1] == source_id]
            ids = [row[5] for row in rows]
            if ids != sorted(set(ids)):
                return False
            for epoch in {row[4] for row in rows}:
                times = [row[3] for row in rows if row[4] == epoch and row[3] is not None]
                if times != sorted(set(times)):
                    return False
        return True


def summary(pipeline: Pipeline) -> dict[str, Any]:
    """Return captured, published and dropped by cause of each camera."""
    return {
        snapshot.source_id: {
            "captured": snapshot.captured,
            "published": snapshot.published,
            "dropped": {cause: count for cause, count in snapshot.dropped.items() if count},
            "reconnects": snapshot.reconnects,
        }
        for snapshot in pipeline.stats.snapshot().sources
    }


def is_accounted(sources: dict[str, Any]) -> bool:
    """Return whether every frame of every camera was published or is counted as dropped."""
    return all(s["captured"] == s["published"] + sum(s["dropped"].values()) for s in sources.values())


def examine(
    lab: Lab,
    begin: Callable[[], None],
    end: Callable[[], None],
    *,
    during_s: float,
    recovery_limit_s: float = 15.0,
    first_limit_s: float = 15.0,
    after_s: float = 0.0,
    since_start: bool = False,
) -> Outcome:
    """Run the engine through a fault: before, during, after; then stop it and count."""
    lab.pipeline.start()
    for source in lab.pipeline.sources:
        lab.log.wait_for_frame(source.info.source_id, 0.0, first_limit_s)
    started = time.monotonic()
    time.sleep(lab.around_s)
    fault = time.monotonic()
    begin()
    time.sleep(during_s)
    end()
    over = time.monotonic()
    back = lab.log.wait_for_frame(VICTIM, over, recovery_limit_s)
    calm = (back or time.monotonic()) + 0.5
    time.sleep(max(calm + max(lab.around_s, after_s) - time.monotonic(), 0))
    done = time.monotonic()
    stopped_in_time = lab.pipeline.stop()
    since = 0.0 if since_start else fault
    changes = [row for row in lab.log.states if row[1] == VICTIM and row[0] >= since and row[2] != "ended"]
    sources = summary(lab.pipeline)
    spans = [(started, fault), (fault, over), (calm, done)]
    return Outcome(
        states=squeeze([state for _, _, state, _ in changes]),
        reasons=squeeze(sorted({reason for _, _, state, reason in changes if reason and state != "connecting"})),
        recovery_s=None if back is None else back - over,
        victim=tuple(lab.phase(VICTIM, *span) for span in spans),
        healthy=tuple(lab.phase(HEALTHY, *span) for span in spans),
        sources=sources,
        is_accounted=is_accounted(sources),
        is_genuine=lab.is_genuine(),
        stopped_in_time=stopped_in_time,
    )


def squeeze(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words without repetitions of the pair offline, connecting."""
    kept: list[str] = []
    for word in words:
        if word not in kept[-2:]:
            kept.append(word)
    return tuple(kept)
