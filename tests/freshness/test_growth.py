"""The measures themselves: a leak is detected, and a figure that levels off is not mistaken for one."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.freshness.ages import Ages
from tests.freshness.growth import Growth, Slope


def slope_of(rss_mb: list[float]) -> Slope:
    growth = Growth(os.getpid())
    growth.samples = [(float(second), value, math.nan, 5.0, 9.0) for second, value in enumerate(rss_mb)]
    return growth.slopes()[0]


@pytest.mark.parametrize(
    ("rss_mb", "is_flat"),
    [
        pytest.param([100.0 + second / 60 for second in range(1800)], False, id="one MB per minute"),
        pytest.param([100.0 + 10 * min(second / 200, 1) for second in range(1800)], True, id="levels off"),
        pytest.param([100.0 + (second % 60) / 60 for second in range(1800)], True, id="up and down"),
        pytest.param([100.0 + second / 600 for second in range(60)], True, id="too short to tell"),
    ],
)
def test_growth_is_told_from_warming_up(rss_mb: list[float], is_flat: bool) -> None:
    assert slope_of(rss_mb).is_flat is is_flat


def test_a_slope_is_per_hour() -> None:
    slope = slope_of([50.0 + second / 360 for second in range(600)])
    assert slope.per_hour == pytest.approx(10.0)
    assert slope.second_half == pytest.approx(10.0)
    assert slope.name == "engine RSS (MB)"


def test_a_real_process_is_sampled() -> None:
    growth = Growth(os.getpid())
    growth.sample()
    _, rss_mb, _, threads, descriptors = growth.samples[0]
    assert rss_mb > 10
    assert threads >= 1
    assert descriptors >= 3


def test_ages_are_looked_at_while_more_are_noted() -> None:
    ages, seen = Ages(), [0]

    def note() -> None:
        for _ in range(20_000):
            ages.add(1.0)

    with ThreadPoolExecutor(1) as pool:
        noting = pool.submit(note)
        while not noting.done():
            seen.append(sum(part.count for part in ages.parts(1.0)))
        noting.result()
    assert seen == sorted(seen)
    assert len(ages.values) == 20_000


def test_ages_are_told_by_part() -> None:
    ages = Ages()
    for second in range(130):
        ages.add(float(second // 60), moment=1000.0 + second)
    assert [(part.count, part.p50) for part in ages.parts(60.0)] == [(60, 0.0), (70, 1.0)]
    assert ages.share(0.0, 0.4).p99 == 0.0
    assert not Ages().parts(60.0)
