"""Counters and histograms."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import FakeClock
from engine.flow.pipeline import Pipeline
from engine.sinks.zmq import ZmqPublisher
from engine.stats import Histogram, PipelineStats, SourceStats
from pipelines.running.detect_and_publish import summary
from tests.fakes import CountingSource, OneTracker, PixelDetector


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
        assert len(histogram._new) < 1000
    assert len(histogram.snapshot().buckets) < 300
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


def test_cumulative_counts_are_those_of_a_fixed_bucket_histogram_within_two_percent_of_each_edge() -> None:
    histogram = Histogram()
    values = np.random.default_rng(3).lognormal(3.0, 1.0, 2000)
    for value in values:
        histogram.add(float(value))
    bounds = [5.0, 10.0, 20.0, 50.0, 100.0, 1000.0]
    found = histogram.snapshot().cumulative(bounds)
    for bound, count in zip(bounds, found, strict=True):
        assert (values <= bound / 1.021).sum() <= count <= (values <= bound * 1.021).sum()


def test_a_difference_of_snapshots_is_the_distribution_of_what_came_between() -> None:
    histogram = Histogram()
    for value in (1.0, 500.0):
        histogram.add(value)
    before = histogram.snapshot()
    assert before.since(before).count == 0
    for value in (10.0, 20.0, 30.0):
        histogram.add(value)
    news = histogram.snapshot().since(before)
    assert (news.count, news.sum) == (3, 60.0)
    assert news.percentile(0.5) == pytest.approx(20.0, rel=0.021)
    assert news.max == pytest.approx(30.0, rel=0.021)
    histogram.add(900.0)
    assert histogram.snapshot().since(before).max == 900.0


def test_time_without_live_frames_is_counted_until_the_end() -> None:
    clock = FakeClock(1)
    stats = PipelineStats(clock).source("gate")
    stats.begin()
    for state, seconds in (("live", 2), ("stalled", 3), ("offline", 4), ("live", 5), ("offline", 1)):
        clock.advance(1)
        stats.set_state(state, "", 0)  # type: ignore[arg-type]
        clock.advance(seconds)
    assert stats.snapshot().blind_s == 11.0  # 1 connecting, 4 stalled, 5 offline, 1 offline until now
    stats.set_state("ended", "", 0)
    clock.advance(100)
    assert stats.snapshot().blind_s == 11.0


def test_the_summary_and_the_stats_messages_report_the_same_run() -> None:
    publisher = ZmqPublisher("tcp://127.0.0.1:*", linger_ms=0)
    pipeline = Pipeline(CountingSource("gate", 10), PixelDetector(), OneTracker(), publisher)
    pipeline.run()
    figures = publisher._figures.of("gate")
    facts = summary(pipeline)
    assert figures == pipeline.stats.snapshot().sources[0]
    assert facts["sources"]["gate"] == figures.facts()
    assert facts["latency_ms"] == figures.latency_ms
    assert set(facts["stage_ms"]) - {"capture"} == set(figures.stage_ms)
    assert pipeline.stats.snapshot().models["detector"].batches == {1: 10}


def test_values_counted_on_several_threads_are_all_counted() -> None:
    histogram = Histogram()

    def count() -> None:
        for ms in range(1, 2001):
            histogram.add(float(ms))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        histogram.snapshot()
    assert histogram.snapshot().count == 8000
    assert histogram.sum == 4 * sum(range(1, 2001))
    assert histogram.max == 2000.0


def test_losses_are_reported_once_and_again_only_when_there_are_more() -> None:
    stats = SourceStats("gate")
    assert stats.take_dropped() == {}
    stats.add_dropped("age", 2)
    assert stats.take_dropped() == {"age": 2}
    assert stats.take_dropped() == {}
    stats.add_captured(3)
    stats.settle("shutdown")
    assert stats.take_dropped() == {"shutdown": 1}
