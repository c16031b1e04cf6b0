"""Counters and latency histograms of a run, with consistent and cheap snapshots."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engine.data import SourceState
from engine.latch import Latch, wait_for_any

_BUCKETS_PER_E = 50  # buckets are exp(1/50) wide: a percentile is at most 2 % off
_SMALLEST_MS = 1e-3


class Histogram:
    """A distribution of milliseconds in logarithmic buckets: bounded memory, percentiles within 2 %.

    >>> latency = Histogram()
    >>> for ms in range(1, 101): latency.add(ms)
    >>> 49 < latency.percentile(0.5) < 52, latency.max
    (True, 100.0)
    """

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._lock = threading.Lock()
        self.count = 0
        self.sum = 0.0
        self.max = 0.0

    def add(self, ms: float) -> None:
        """Count one value; negative and non-finite values count as 0."""
        ms = ms if ms > 0 and math.isfinite(ms) else 0.0
        bucket = round(math.log(max(ms, _SMALLEST_MS)) * _BUCKETS_PER_E)
        with self._lock:
            self._buckets[bucket] += 1
            self.count += 1
            self.sum += ms
            self.max = max(self.max, float(ms))

    def percentile(self, fraction: float) -> float:
        """Return the value that `fraction` (0 to 1) of all values do not exceed; 0 if there are none."""
        with self._lock:
            buckets = sorted(self._buckets.items())
            rank, largest = fraction * self.count, self.max
        for bucket, count in buckets:
            rank -= count
            if rank <= 0:
                return min(math.exp(bucket / _BUCKETS_PER_E), largest)
        return 0.0

    def summary(self, *fractions: float) -> dict[str, float]:
        """Return `{"p50": ms, ...}` for each fraction, rounded to microseconds."""
        return {f"p{round(100 * fraction)}": round(self.percentile(fraction), 3) for fraction in fractions}

    @classmethod
    def merged(cls, parts: Iterable[Histogram]) -> Histogram:
        """Return the combined distribution of several histograms."""
        whole = cls()
        for part in parts:
            with part._lock:
                whole._buckets.update(part._buckets)
                whole.count += part.count
                whole.sum += part.sum
                whole.max = max(whole.max, part.max)
        return whole


class ModelStats:
    """Figures of one model of a run, counted where its packets are published.

    Attributes:
        detected: frames on which its detector ran.
        stages: milliseconds that its frames spent in each stage.
    """

    def __init__(self) -> None:
        self.detected = 0
        self.stages: dict[str, Histogram] = {}

    def add(self, stage_ms: Mapping[str, float], *, is_detected: bool) -> None:
        """Count one frame and the time it spent in each stage."""
        self.detected += is_detected
        for stage, ms in stage_ms.items():
            histogram = self.stages.get(stage)
            if histogram is None:
                histogram = self.stages.setdefault(stage, Histogram())
            histogram.add(ms)


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """The figures of one source at one moment; `captured = published + in flight + sum of dropped`."""

    source_id: str
    captured: int
    published: int
    detected: int
    dropped: Mapping[str, int]
    reconnects: int
    state: SourceState
    reason: str
    objects: int
    fps: float
    latency_ms: Mapping[str, float]


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
    _reported: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """Reset the state because a source of this name begins."""
        self.has_ended.clear()
        with self._lock:
            self.state, self.reason = "connecting", ""

    def add_captured(self, count: int = 1) -> None:
        """Count frames that arrived."""
        with self._lock:
            self.captured += count

    def add_dropped(self, cause: str, count: int = 1) -> None:
        """Count frames lost to `cause`."""
        with self._lock:
            self.dropped[cause] += count

    def set_state(self, state: SourceState, reason: str, stream_epoch: int) -> None:
        """Store the state of the source; each stream epoch after the first is a reconnect."""
        with self._lock:
            self.state, self.reason = state, reason
            self.reconnects = max(self.reconnects, stream_epoch)
        if state == "ended":
            self.has_ended.set()

    def wait_for_end(self, timeout_s: float, *others: Latch) -> None:
        """Wait until the end is published, `timeout_s` has passed, or one of `others` is set."""
        wait_for_any(self.has_ended, *others, timeout_s=timeout_s)

    def add_published(self, latency_ms: float, objects: int, now_ns: int, *, is_detected: bool = True) -> None:
        """Count a frame that reached the end of the pipeline, with its age there."""
        with self._lock:
            self.published += 1
            self.detected += is_detected
            self.objects = objects
            self.first_ns = now_ns if self.first_ns is None else self.first_ns
            self.last_ns = now_ns
        self.latency.add(latency_ms)

    def settle(self, cause: str) -> None:
        """Count the frames that are still in the pipeline as lost to `cause`: they will never be published."""
        with self._lock:
            inside = self.captured - self.published - sum(self.dropped.values())
            if inside > 0:
                self.dropped[cause] += inside

    def take_dropped(self) -> dict[str, int]:
        """Return the losses by cause since the last call."""
        with self._lock:
            news = self.dropped - self._reported
            self._reported = Counter(self.dropped)
        return dict(news)

    @property
    def fps(self) -> float:
        """Published frames per second, between the first and the last one."""
        if self.first_ns is None or self.last_ns is None or self.last_ns <= self.first_ns:
            return 0.0
        return (self.published - 1) * 1e9 / (self.last_ns - self.first_ns)

    def snapshot(self) -> SourceSnapshot:
        """Return the current figures."""
        latency = {**self.latency.summary(0.5, 0.9, 0.99), "max": round(self.latency.max, 3)}
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
                round(self.fps, 2),
                latency,
            )


class PipelineStats:
    """All figures of a run: one `SourceStats` per source, one `ModelStats` per model."""

    def __init__(self) -> None:
        self.sources: dict[str, SourceStats] = {}
        self.models: dict[str, ModelStats] = {}
        self._capture_ms = Histogram()
        self.latency = Histogram()
        self.sink_dropped: dict[str, Counter[str]] = {}

    def source(self, source_id: str) -> SourceStats:
        """Return the counters of a source, created on first use."""
        return self.sources.setdefault(source_id, SourceStats(source_id))

    def model(self, model_id: str) -> ModelStats:
        """Return the figures of a model, created on first use."""
        return self.models.get(model_id) or self.models.setdefault(model_id, ModelStats())

    def add_capture_ms(self, ms: float) -> None:
        """Count how long a frame took to arrive, for sources that do not wait for their reader."""
        self._capture_ms.add(ms)

    @property
    def stages(self) -> dict[str, Histogram]:
        """Milliseconds per stage, over all models."""
        parts = [model.stages for model in list(self.models.values())]
        names = dict.fromkeys(name for stages in parts for name in list(stages))
        whole = {"capture": self._capture_ms} if self._capture_ms.count else {}
        return whole | {name: Histogram.merged(stages[name] for stages in parts if name in stages) for name in names}

    def settle(self, cause: str) -> None:
        """Count the frames inside native calls that do not return as lost to `cause`."""
        for stats in list(self.sources.values()):
            stats.settle(cause)

    def snapshot(self) -> list[SourceSnapshot]:
        """Return the current figures of every source."""
        return [stats.snapshot() for stats in list(self.sources.values())]

    def by_source(self) -> dict[str, dict[str, object]]:
        """Return captured, published, dropped by cause and reconnects of every source, as plain values."""
        return {
            snapshot.source_id: {
                "captured": snapshot.captured,
                "published": snapshot.published,
                "detected": snapshot.detected,
                "dropped": {cause: count for cause, count in snapshot.dropped.items() if count},
                "reconnects": snapshot.reconnects,
            }
            for snapshot in self.snapshot()
        }
