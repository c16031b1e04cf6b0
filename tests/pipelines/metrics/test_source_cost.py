"""The cost of sources: the sum is right, and it is divided by the work that their frames cause."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.clock import FakeClock
from engine.data import SourceInfo
from engine.leases import Leases
from engine.stats import PipelineStats
from pipelines.metrics.engine import EngineMetrics
from pipelines.metrics.exposition import Page
from pipelines.metrics.source_cost import CostMeter, SourceCost


class Run(SimpleNamespace):
    """What the meter reads of a pipeline, with real statistics."""

    def __init__(self) -> None:
        self.stats, self.leases = PipelineStats(), Leases()
        self.running_sources = ["a", "b"]
        self.sources = [SimpleNamespace(info=SourceInfo(name, name, True, 0, 0)) for name in "ab"]
        self.models: dict[str, Any] = {}

    def model_of(self, source_id: str) -> str:
        return "detector"

    def work(self, name: str, frames: int, **stage_ms: float) -> None:
        for _ in range(frames):
            self.stats.source(name).add_captured()
            self.stats.source(name).add_published(5.0, 1, 1, stage_ms=stage_ms)


def test_the_time_of_the_process_is_shared_by_the_work_of_each_source() -> None:
    run, clock, spent = Run(), FakeClock(), [10.0]
    meter = CostMeter(run, clock.monotonic_ns, lambda: spent[0])  # type: ignore[arg-type]
    assert meter.of("a") == SourceCost()
    run.work("a", 20, infer=3.0, track=1.0)
    run.work("b", 10, infer=8.0, queue=500.0)  # waiting costs nothing
    spent[0] += 0.4
    clock.advance(2)
    meter.poll()
    assert meter.of("a").facts() == {"cpu_ms": 10.0, "gpu_ms": 0.0, "infer_ms": 3.0, "fps": 10.0}
    assert meter.of("b").facts() == {"cpu_ms": 20.0, "gpu_ms": 0.0, "infer_ms": 8.0, "fps": 5.0}

    run.running_sources = ["a"]
    clock.advance(2)
    meter.poll()
    assert meter.of("b") == SourceCost()
    assert meter.of("a").fps == pytest.approx(8.19, abs=0.01)  # it falls over about ten seconds
    assert meter.of("a").facts()["cpu_ms"] == 10.0


def test_the_metrics_tell_cost_and_lease_of_each_source() -> None:
    run = Run()
    now_ns = run.leases.now_ns()
    run.leases.grant("a", 7, as_of_ns=now_ns, lease_s=100)
    metrics = EngineMetrics(run)  # type: ignore[arg-type]
    clock, spent = FakeClock(), [0.0]
    metrics._costs = CostMeter(run, clock.monotonic_ns, lambda: spent[0])  # type: ignore[arg-type]
    run.work("a", 20, infer=3.0)
    spent[0], _ = 0.5, clock.advance(2)
    page = Page()
    metrics._add_owners(page)
    text = page.text()
    assert 'framewire_cost_cores{source="a"} 0.25' in text
    assert 'framewire_owner_epoch{source="a"} 7' in text
    assert 'framewire_lease_left_seconds{source="a"}' in text
    assert 'framewire_owner_epoch{source="b"}' not in text
