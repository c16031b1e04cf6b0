"""All figures of a run at one moment, frozen, for every reader of statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.clock import NS_PER_S
from engine.data import SourceState
from engine.stats.histogram import NO_VALUES, HistogramSnapshot


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """The figures of one source at one moment; `captured = published + in flight + sum of dropped`.

    Attributes:
        source_id: its name.
        captured: frames that arrived.
        published: frames that reached the end of the pipeline.
        detected: published frames on which the detector ran.
        dropped: lost frames by cause.
        reconnects: stream epochs after the first.
        state: its state.
        reason: why it is in this state; may be empty.
        objects: tracks on its last published frame.
        latency: milliseconds from capture to the end of the pipeline.
        stage_ms: milliseconds spent in each stage by all published frames together.
        first_ns: monotonic time of its first published frame; None before it.
        last_ns: monotonic time of its last published frame; None before the first.
        last_frame_utc_ns: wall clock of the capture of its last frame; 0 before the first.
        blind_s: seconds during which it was not live, since it began.
        objects_by_class: tracks on its last published frame, by class.
        tracks_started: new tracks by class.
        events: episodes begun and points, by rule and severity.
        scene: `engine.analytics.view.View` of its last published frame; None without analytics.
    """

    source_id: str
    captured: int
    published: int
    detected: int
    dropped: Mapping[str, int]
    reconnects: int
    state: SourceState
    reason: str
    objects: int
    latency: HistogramSnapshot = NO_VALUES
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    first_ns: int | None = None
    last_ns: int | None = None
    last_frame_utc_ns: int = 0
    blind_s: float = 0.0
    objects_by_class: Mapping[str, int] = field(default_factory=dict)
    tracks_started: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[tuple[str, str], int] = field(default_factory=dict)
    scene: Any = None

    @property
    def fps(self) -> float:
        """Published frames per second, between the first and the last one."""
        if self.first_ns is None or self.last_ns is None or self.last_ns <= self.first_ns:
            return 0.0
        return round((self.published - 1) * NS_PER_S / (self.last_ns - self.first_ns), 2)

    @property
    def latency_ms(self) -> dict[str, float]:
        """`p50`, `p90`, `p99` and `max` of `latency`."""
        return latency_summary(self.latency)

    def facts(self) -> dict[str, object]:
        """Return captured, published, detected, dropped by cause and reconnects, as plain values."""
        return {
            "captured": self.captured,
            "published": self.published,
            "detected": self.detected,
            "dropped": {cause: count for cause, count in self.dropped.items() if count},
            "reconnects": self.reconnects,
        }


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """The figures of one model at one moment.

    Attributes:
        detected: published frames on which its detector ran.
        stages: milliseconds that its frames spent in each stage.
        batches: finished inferences by number of frames.
    """

    detected: int
    stages: Mapping[str, HistogramSnapshot]
    batches: Mapping[int, int]


NO_FIGURES = ModelSnapshot(0, {}, {})


@dataclass(frozen=True, slots=True)
class StatsSnapshot:
    """All figures of a run at one moment.

    Attributes:
        sources: every source of the run, including those that have ended.
        models: by name, including removed ones.
        capture: milliseconds that frames took to arrive, of sources that do not wait for their reader.
        event_delay: milliseconds from the capture of the deciding frame to the publication of an event.
        sink_dropped: packets that each output missed, by cause.
    """

    sources: tuple[SourceSnapshot, ...]
    models: Mapping[str, ModelSnapshot]
    capture: HistogramSnapshot
    event_delay: HistogramSnapshot
    sink_dropped: Mapping[str, Mapping[str, int]]

    @property
    def latency(self) -> HistogramSnapshot:
        """Milliseconds from capture to the end of the pipeline, over all sources."""
        return HistogramSnapshot.merged(source.latency for source in self.sources)

    @property
    def stages(self) -> dict[str, HistogramSnapshot]:
        """Milliseconds per stage, over all models."""
        parts = [model.stages for model in self.models.values()]
        names = dict.fromkeys(name for stages in parts for name in stages)
        whole = {"capture": self.capture} if self.capture.count else {}
        return whole | {
            name: HistogramSnapshot.merged(stages[name] for stages in parts if name in stages) for name in names
        }

    @property
    def published(self) -> int:
        """Frames that reached the end of the pipeline, over all sources."""
        return sum(source.published for source in self.sources)

    @property
    def fps(self) -> float:
        """Published frames per second of all sources, between the first and the last one."""
        firsts = [source.first_ns for source in self.sources if source.first_ns is not None]
        lasts = [source.last_ns for source in self.sources if source.last_ns is not None]
        busy_ns = max(lasts, default=0) - min(firsts, default=0)
        return round((self.published - 1) * NS_PER_S / busy_ns, 2) if self.published > 1 and busy_ns > 0 else 0.0

    def by_source(self) -> dict[str, dict[str, object]]:
        """Return captured, published, dropped by cause and reconnects of every source, as plain values."""
        return {source.source_id: source.facts() for source in self.sources}


NO_STATS = StatsSnapshot((), {}, NO_VALUES, NO_VALUES, {})


def latency_summary(latency: HistogramSnapshot) -> dict[str, float]:
    """Return the percentiles and the maximum of a user-visible latency, in milliseconds."""
    return {**latency.summary(0.5, 0.9, 0.99), "max": round(latency.max, 3)}


def stage_summary(stages: Mapping[str, HistogramSnapshot]) -> dict[str, dict[str, float]]:
    """Return the median and the 99th percentile of the milliseconds in each stage."""
    return {stage: histogram.summary(0.5, 0.99) for stage, histogram in stages.items()}
