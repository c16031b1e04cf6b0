"""The counters of a run, filled by the stages."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.clock import NS_PER_MS, NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Packet, SourceState, Tracks
from engine.latch import Latch, wait_for_any
from engine.source_state import NO_ANALYSES
from engine.stats.histogram import Histogram, HistogramSnapshot
from engine.stats.snapshot import ModelSnapshot, SourceSnapshot, StatsSnapshot

_COUNTED_PHASES = ("begin", "point")


class ModelStats:
    """Statistics of one model of a run, counted where its packets are published.

    Attributes:
        detected: frames on which its detector ran.
        stages: milliseconds that its frames spent in each stage.
        batches: finished inferences by number of frames.
    """

    def __init__(self) -> None:
        self.detected = 0
        self.stages: dict[str, Histogram] = {}
        self.batches: Counter[int] = Counter()

    def add(self, stage_ms: Mapping[str, float], *, is_detected: bool) -> None:
        """Count one frame and the time it spent in each stage."""
        self.detected += is_detected
        for stage, ms in stage_ms.items():
            histogram = self.stages.get(stage)
            if histogram is None:
                histogram = self.stages.setdefault(stage, Histogram())
            histogram.add(ms)

    def add_inference(self, frames: int) -> None:
        """Count a finished inference; call it on the collecting thread of the model."""
        self.batches[frames] += 1

    def snapshot(self) -> ModelSnapshot:
        """Return the current figures."""
        stages = {name: histogram.snapshot() for name, histogram in list(self.stages.items())}
        return ModelSnapshot(self.detected, stages, self.batches.copy())


@dataclass(slots=True)
class SourceStats:
    """Counters of one source. Every captured frame ends as published, or as dropped with a cause.

    `has_ended` is set once its end has been published, until a source of the same name begins.
    """

    source_id: str
    captured: int = 0
    published: int = 0
    detected: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0
    state: SourceState = "connecting"
    reason: str = ""
    objects: int = 0
    latency: Histogram = field(default_factory=Histogram)
    first_ns: int | None = None
    last_ns: int | None = None
    has_ended: Latch = field(default_factory=Latch)
    clock: Clock = SYSTEM_CLOCK
    last_frame_utc_ns: int = 0
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    tracks_started: Counter[str] = field(default_factory=Counter)
    _tracks: Tracks | None = None
    _scene: Any = None
    _stage_ms: dict[str, float] = field(default_factory=dict)
    _blind_ns: int = 0
    _blind_since_ns: int | None = None
    _reported: Counter[str] = field(default_factory=Counter)
    _has_lost: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """Reset the state because a source of this name begins."""
        self.has_ended.clear()
        with self._lock:
            self._enter("connecting", "")

    def add_captured(self, count: int = 1, utc_ns: int = 0) -> None:
        """Count frames that arrived, the last one at a wall clock of `utc_ns`."""
        with self._lock:
            self.captured += count
            self.last_frame_utc_ns = utc_ns or self.last_frame_utc_ns

    def add_dropped(self, cause: str, count: int = 1) -> None:
        """Count frames lost to `cause`."""
        with self._lock:
            self.dropped[cause] += count
            self._has_lost = True

    def set_state(self, state: SourceState, reason: str, stream_epoch: int) -> None:
        """Store the state of the source; each stream epoch after the first is a reconnect."""
        with self._lock:
            self._enter(state, reason)
            self.reconnects = max(self.reconnects, stream_epoch)

    def _enter(self, state: SourceState, reason: str) -> None:
        self._blind_ns, self._blind_since_ns = self._blind(), None
        if state not in ("live", "ended"):
            self._blind_since_ns = self.clock.monotonic_ns()
        self.state, self.reason = state, reason

    def _blind(self) -> int:
        since_ns = self._blind_since_ns
        return self._blind_ns + (0 if since_ns is None else self.clock.monotonic_ns() - since_ns)

    def wait_for_end(self, timeout_s: float, *others: Latch) -> None:
        """Wait until the end is published, `timeout_s` has passed, or one of `others` is set."""
        wait_for_any(self.has_ended, *others, timeout_s=timeout_s)

    def add_published(
        self,
        latency_ms: float,
        objects: int,
        now_ns: int,
        *,
        is_detected: bool = True,
        stage_ms: Mapping[str, float] | None = None,
    ) -> None:
        """Count a frame that reached the end of the pipeline, with its age there and its time in each stage."""
        with self._lock:
            self.published += 1
            self.detected += is_detected
            self.objects = objects
            self.first_ns = now_ns if self.first_ns is None else self.first_ns
            self.last_ns = now_ns
            for stage, ms in (stage_ms or {}).items():
                self._stage_ms[stage] = self._stage_ms.get(stage, 0.0) + ms
        self.latency.add(latency_ms)

    def add_scene(self, packet: Packet) -> None:
        """Store the tracks and the scene of a published packet, and count the tracks that begin on it."""
        self._tracks = packet.tracks
        self._scene = None if packet.analyses is NO_ANALYSES else packet.analytics
        if packet.events:
            begun = [packet.run.class_name(event.class_id) for event in packet.events if event.kind == "new"]
            with self._lock:
                self.tracks_started.update(begun)

    def add_event(self, rule: str, severity: str) -> None:
        """Count a published event of a rule."""
        with self._lock:
            self.events[rule, severity] += 1

    def settle(self, cause: str) -> None:
        """Count the frames that are still in the pipeline as lost to `cause`: they will never be published."""
        with self._lock:
            inside = self.captured - self.published - sum(self.dropped.values())
            if inside > 0:
                self.dropped[cause] += inside
                self._has_lost = True

    def take_dropped(self) -> dict[str, int]:
        """Return the losses by cause since the last call."""
        if not self._has_lost:
            return {}
        with self._lock:
            self._has_lost = False
            news = self.dropped - self._reported
            self._reported = Counter(self.dropped)
        return dict(news)

    @property
    def fps(self) -> float:
        """Published frames per second, between the first and the last one."""
        return self.snapshot().fps

    def snapshot(self) -> SourceSnapshot:
        """Return the current figures."""
        latency, tracks = self.latency.snapshot(), self._tracks
        with self._lock:
            return SourceSnapshot(
                self.source_id,
                self.captured,
                self.published,
                self.detected,
                dict(self.dropped),
                self.reconnects,
                self.state,
                self.reason,
                self.objects,
                latency,
                stage_ms=dict(self._stage_ms),
                first_ns=self.first_ns,
                last_ns=self.last_ns,
                last_frame_utc_ns=self.last_frame_utc_ns,
                blind_s=self._blind() / NS_PER_S,
                objects_by_class=_by_class(tracks),
                tracks_started=dict(self.tracks_started),
                events=dict(self.events),
                scene=self._scene,
            )


class PipelineStats:
    """All statistics of a run: one `SourceStats` per source, one `ModelStats` per model.

    Args:
        clock: measures how long sources are blind.

    Attributes:
        ticked_ns: monotonic time of the last tick of the publishing thread; None before the first.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.sources: dict[str, SourceStats] = {}
        self.models: dict[str, ModelStats] = {}
        self.sink_dropped: dict[str, Counter[str]] = {}
        self._clock = clock
        self._capture_ms = Histogram()
        self._event_delay_ms = Histogram()
        self.ticked_ns: int | None = None

    def source(self, source_id: str) -> SourceStats:
        """Return the counters of a source, created on first use."""
        found = self.sources.get(source_id)
        return found or self.sources.setdefault(source_id, SourceStats(source_id, clock=self._clock))

    def model(self, model_id: str) -> ModelStats:
        """Return the figures of a model, created on first use."""
        return self.models.get(model_id) or self.models.setdefault(model_id, ModelStats())

    def tick(self) -> None:
        """Record that the publishing thread is alive."""
        self.ticked_ns = self._clock.monotonic_ns()

    def add_capture_ms(self, ms: float) -> None:
        """Count how long a frame took to arrive, for sources that do not wait for their reader."""
        self._capture_ms.add(ms)

    def add_packet(self, packet: Packet, *, started_ns: int, now_ns: int) -> None:
        """Count a published packet.

        Args:
            packet: with its time in each earlier stage.
            started_ns: monotonic time at which publishing it began.
            now_ns: monotonic time after the fast sinks have received it.
        """
        source = self.source(packet.frame.source_id)
        latency_ms = (now_ns - packet.frame.captured_ns) / NS_PER_MS
        stage_ms = {**packet.stage_ms, "publish": (now_ns - started_ns) / NS_PER_MS}
        is_detected = packet.is_detected
        source.add_published(latency_ms, len(packet.tracks), now_ns, is_detected=is_detected, stage_ms=stage_ms)
        source.add_scene(packet)
        self.model(packet.run.model_id).add(stage_ms, is_detected=is_detected)
        for finding in () if packet.analyses is NO_ANALYSES else packet.findings:
            if finding.rule and finding.phase in _COUNTED_PHASES:
                source.add_event(finding.rule, finding.severity)
                self._event_delay_ms.add(latency_ms)

    @property
    def stages(self) -> dict[str, HistogramSnapshot]:
        """Milliseconds per stage, over all models."""
        return self.snapshot().stages

    @property
    def latency(self) -> HistogramSnapshot:
        """Milliseconds from capture to the end of the pipeline, over all sources."""
        return self.snapshot().latency

    def settle(self, cause: str) -> None:
        """Count the frames inside native calls that do not return as lost to `cause`."""
        for stats in list(self.sources.values()):
            stats.settle(cause)

    def snapshot(self) -> StatsSnapshot:
        """Return the current figures of the run."""
        return StatsSnapshot(
            tuple(stats.snapshot() for stats in list(self.sources.values())),
            {name: stats.snapshot() for name, stats in list(self.models.items())},
            self._capture_ms.snapshot(),
            self._event_delay_ms.snapshot(),
            {name: dict(causes) for name, causes in list(self.sink_dropped.items())},
        )

    def by_source(self) -> dict[str, dict[str, object]]:
        """Return captured, published, dropped by cause and reconnects of every source, as plain values."""
        return self.snapshot().by_source()


def _by_class(tracks: Tracks | None) -> dict[str, int]:
    if tracks is None or not len(tracks):
        return {}
    ids, counts = np.unique(tracks.class_id, return_counts=True)
    names = tracks.class_names
    return {
        names[id_] if 0 <= id_ < len(names) else str(id_): count
        for id_, count in zip(ids.tolist(), counts.tolist(), strict=True)
    }
