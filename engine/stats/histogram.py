"""Distributions of milliseconds: cheap to fill on a hot path, compared and merged as frozen snapshots."""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_BUCKETS_PER_E = 50  # buckets are exp(1/50) wide: a percentile is at most 2 % off
_SMALLEST_MS = 1e-3
_COUNTED_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class HistogramSnapshot:
    """A distribution of milliseconds at one moment.

    Attributes:
        buckets: number of values by logarithmic bucket.
        count: number of values.
        sum: of all values, in milliseconds.
        max: the largest value.
    """

    buckets: Mapping[int, int] = field(default_factory=dict)
    count: int = 0
    sum: float = 0.0
    max: float = 0.0

    def percentile(self, fraction: float) -> float:
        """Return the value that `fraction` (0 to 1) of all values do not exceed; 0 if there are none."""
        rank = fraction * self.count
        for bucket, count in sorted(self.buckets.items()):
            rank -= count
            if rank <= 0:
                return min(math.exp(bucket / _BUCKETS_PER_E), self.max)
        return 0.0

    def summary(self, *fractions: float) -> dict[str, float]:
        """Return `{"p50": ms, ...}` for each fraction, rounded to microseconds."""
        return {f"p{round(100 * fraction)}": round(self.percentile(fraction), 3) for fraction in fractions}

    def cumulative(self, bounds_ms: Sequence[float]) -> list[int]:
        """Return how many values lie at or below each of the ascending bounds; the edges are within 2 %."""
        ordered = sorted(self.buckets.items())
        found, total, at = [], 0, 0
        for bound in bounds_ms:
            last = _bucket_of(bound)
            while at < len(ordered) and ordered[at][0] <= last:
                total += ordered[at][1]
                at += 1
            found.append(total)
        return found

    def since(self, earlier: HistogramSnapshot) -> HistogramSnapshot:
        """Return the distribution of the values that came after `earlier`; a maximum that is not new is within 2 %."""
        before = earlier.buckets.get
        buckets = {bucket: new for bucket, n in self.buckets.items() if (new := n - before(bucket, 0)) > 0}
        largest = min(math.exp(max(buckets) / _BUCKETS_PER_E), self.max) if buckets else 0.0
        is_new = bool(buckets) and self.max > earlier.max
        return HistogramSnapshot(
            buckets, self.count - earlier.count, self.sum - earlier.sum, self.max if is_new else largest
        )

    @classmethod
    def merged(cls, parts: Iterable[HistogramSnapshot]) -> HistogramSnapshot:
        """Return the combined distribution of several."""
        whole: Counter[int] = Counter()
        listed = list(parts)
        for part in listed:
            whole.update(part.buckets)
        return cls(
            dict(whole),
            sum(part.count for part in listed),
            sum(part.sum for part in listed),
            max((part.max for part in listed), default=0.0),
        )


NO_VALUES = HistogramSnapshot()


class Histogram:
    """A distribution of milliseconds in logarithmic buckets: bounded memory, percentiles within 2 %.

    Adding a value only stores it; values are sorted into buckets in batches. All methods may be called on any thread.

    >>> latency = Histogram()
    >>> for ms in range(1, 101): latency.add(ms)
    >>> 49 < latency.percentile(0.5) < 52, latency.max
    (True, 100.0)
    """

    def __init__(self) -> None:
        self._new: deque[float] = deque()
        self._counted = NO_VALUES
        self._lock = threading.Lock()

    def add(self, ms: float) -> None:
        """Count one value; negative and non-finite values count as 0."""
        self._new.append(ms)
        if len(self._new) >= _COUNTED_AT_ONCE:
            self.snapshot()

    @property
    def count(self) -> int:
        """Number of values."""
        return self.snapshot().count

    @property
    def sum(self) -> float:
        """Sum of all values, in milliseconds."""
        return self.snapshot().sum

    @property
    def max(self) -> float:
        """The largest value."""
        return self.snapshot().max

    def snapshot(self) -> HistogramSnapshot:
        """Return the current distribution."""
        with self._lock:
            if self._new:
                values = np.array([self._new.popleft() for _ in range(len(self._new))], np.float64)
                self._counted = HistogramSnapshot.merged((self._counted, _distribution(values)))
            return self._counted

    def percentile(self, fraction: float) -> float:
        """Return the value that `fraction` (0 to 1) of all values do not exceed; 0 if there are none."""
        return self.snapshot().percentile(fraction)

    def summary(self, *fractions: float) -> dict[str, float]:
        """Return `{"p50": ms, ...}` for each fraction, rounded to microseconds."""
        return self.snapshot().summary(*fractions)


def _distribution(values: NDArray[np.float64]) -> HistogramSnapshot:
    values = np.where(np.isfinite(values) & (values > 0), values, 0.0)
    buckets = np.rint(np.log(np.maximum(values, _SMALLEST_MS)) * _BUCKETS_PER_E).astype(np.int64)
    found, counts = np.unique(buckets, return_counts=True)
    by_bucket = dict(zip(found.tolist(), counts.tolist(), strict=True))
    return HistogramSnapshot(by_bucket, len(values), float(values.sum()), float(values.max()))


def _bucket_of(ms: float) -> int:
    return round(math.log(max(ms, _SMALLEST_MS)) * _BUCKETS_PER_E)
