"""Counters and histograms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.stats import Histogram, PipelineStats, SourceStats


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_percentiles_are_within_two_percent_of_the_exact_ones(values: list[float], fraction: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = float(np.quantile(values, fraction, method="inverted_cdf"))
    assert histogram.percentile(fraction) == pytest.approx(exact, rel=0.021)


def test_memory_of_a_histogram_does_not_grow_with_its_values() -> None:
    histogram = Histogram()
    for n in range(100_000):
        histogram.add(1.0 + n % 100)
    assert len(histogram._buckets) < 300
    assert histogram.count == 100_000


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0], ids=str)
def test_values_that_are_no_time_count_as_zero(value: float) -> None:
    histogram = Histogram()
    histogram.add(value)
    assert histogram.percentile(0.5) == 0.0
    assert histogram.max == 0.0


def test_empty_histogram_has_zero_percentiles() -> None:
    assert Histogram().summary(0.5, 0.99) == {"p50": 0.0, "p99": 0.0}


def test_losses_are_reported_once_per_message() -> None:
    stats = SourceStats("gate")
    stats.add_dropped("age", 2)
    stats.add_dropped("overflow")
    assert stats.take_dropped() == {"age": 2, "overflow": 1}
    stats.add_dropped("age")
    assert stats.take_dropped() == {"age": 1}
    assert stats.take_dropped() == {}
    assert stats.dropped == {"age": 3, "overflow": 1}


def test_rate_is_that_between_the_first_and_last_published_frame() -> None:
    stats = PipelineStats().source("gate")
    for second in range(5):
        stats.add_published(1.0, objects=2, now_ns=second * 500_000_000)
    assert stats.fps == pytest.approx(2.0)
    assert stats.snapshot().objects == 2


def test_stream_epochs_after_the_first_are_reconnects() -> None:
    stats = SourceStats("gate")
    stats.set_state("live", "", 0)
    stats.set_state("offline", "timeout", 0)
    stats.set_state("live", "", 1)
    assert stats.snapshot().reconnects == 1
