"""Health of a run, for service managers and orchestrators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from pipelines.metrics.health import LoopHealth, stale

if TYPE_CHECKING:
    from engine.flow.pipeline import Pipeline


class EngineHealth:
    """Health of a run.

    Alive: the main loop and the publishing thread ticked within 5 s. Ready: in addition, every model is loaded, and
        every
    source has delivered a frame, or is itself `offline`, because a dead camera does not make the engine unready.

    Args:
        pipeline: the run.
        clock: for tests.
    """

    def __init__(self, pipeline: Pipeline, clock: Clock = SYSTEM_CLOCK) -> None:
        self._pipeline, self._clock = pipeline, clock
        self._started_ns = clock.monotonic_ns()
        self._loop = LoopHealth(clock=clock)
        self.beat = self._loop.beat

    @property
    def are_models_loaded(self) -> bool:
        """Whether every model is loaded."""
        return all(lane.is_loaded for lane in self._pipeline.models.values())

    def against_live(self) -> list[str]:
        """Return why the engine should be restarted."""
        ticked_ns = self._pipeline.stats.ticked_ns
        since_ns = self._started_ns if ticked_ns is None else ticked_ns
        return self._loop.against_live() + stale("the publishing thread", since_ns, self._clock)

    def against_ready(self) -> list[str]:
        """Return what the engine is waiting for."""
        reasons = self.against_live()
        reasons += [f"model {name} is not loaded" for name, lane in self._pipeline.models.items() if not lane.is_loaded]
        sources = {source.source_id: source for source in self._pipeline.stats.snapshot().sources}
        for name in self._pipeline.running_sources:
            source = sources.get(name)
            if source is None or (not source.captured and source.state not in ("offline", "ended")):
                state = "connecting" if source is None else source.state
                reasons.append(f"source {name} has not delivered a frame ({state})")
        return reasons

    def report(self) -> dict[str, Any]:
        """Return the state of every source and model."""
        pipeline = self._pipeline
        return {
            "uptime_s": round((self._clock.monotonic_ns() - self._started_ns) / NS_PER_S, 1),
            "engine_id": pipeline.run_facts.engine_id,
            "models": {
                name: {"model": lane.run.model, "loaded": lane.is_loaded} for name, lane in pipeline.models.items()
            },
            "sources": {source.source_id: self._facts_of(source) for source in pipeline.stats.snapshot().sources},
        }

    def _facts_of(self, source: Any) -> dict[str, Any]:
        age_ns = self._clock.utc_ns() - source.last_frame_utc_ns
        return {
            "state": source.state,
            "reason": source.reason,
            "last_frame_age_s": round(age_ns / NS_PER_S, 3) if source.last_frame_utc_ns else None,
            "blind_s": round(source.blind_s, 1),
            **source.facts(),
            "latency_ms": source.latency_ms,
        }
