"""Health for service managers and orchestrators: is the process alive, is it ready, and how is each source?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.redaction import redact, redact_tree
from pipelines.metrics.server import Reply, Route

if TYPE_CHECKING:
    from engine.flow.pipeline import Pipeline

STALE_S = 5.0
"""Age of the last sign of life of a thread after which it counts as hanging."""


class Health(Protocol):
    """What the probes ask; each list names the reasons against, and is empty if there are none."""

    def against_live(self) -> list[str]:
        """Return why the process should be restarted."""

    def against_ready(self) -> list[str]:
        """Return why the process does not do its work yet, or now."""

    def report(self) -> dict[str, Any]:
        """Return the facts of `/healthz` as plain values."""


class LoopHealth:
    """Health of a process with one loop: alive while it turns, ready once it does.

    Args:
        facts: further facts for `/healthz`.
        clock: for tests.
    """

    def __init__(self, facts: Callable[[], dict[str, Any]] = dict, clock: Clock = SYSTEM_CLOCK) -> None:
        self._facts, self._clock = facts, clock
        self._started_ns = clock.monotonic_ns()
        self._beat_ns: int | None = None

    def beat(self) -> bool:
        """Note that the loop turns; return false, so that it can be part of a condition to stop."""
        self._beat_ns = self._clock.monotonic_ns()
        return False

    def against_live(self) -> list[str]:
        """Return why the process should be restarted."""
        return stale("the main loop", self._beat_ns or self._started_ns, self._clock)

    def against_ready(self) -> list[str]:
        """Return why the process does not work yet."""
        return self.against_live() or ([] if self._beat_ns is not None else ["the main loop has not begun"])

    def report(self) -> dict[str, Any]:
        """Return the facts of `/healthz`."""
        return self._facts()


class EngineHealth:
    """Health of a run.

    Alive: the main loop and the publishing thread ticked within 5 s. Ready: also, every model is loaded, and every
    source has delivered a frame, or is `offline` by itself: a dead camera does not make the engine unready.

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
        """Return what the engine waits for."""
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


def stale(what: str, since_ns: int, clock: Clock) -> list[str]:
    """Return a reason if the last sign of life is too old."""
    age_s = (clock.monotonic_ns() - since_ns) / NS_PER_S
    return [f"{what} last ran {age_s:.1f} s ago"] if age_s > STALE_S else []


def health_routes(health: Health) -> Mapping[str, Route]:
    """Return the routes `/livez`, `/readyz` and `/healthz`."""
    return {
        "/livez": lambda: _verdict(health.against_live()),
        "/readyz": lambda: _verdict(health.against_ready()),
        "/healthz": lambda: _report(health),
    }


def _verdict(reasons: list[str]) -> Reply:
    return Reply(redact("".join(f"{reason}\n" for reason in reasons)), 503) if reasons else Reply("ok\n")


def _report(health: Health) -> Reply:
    against_live, against_ready = health.against_live(), health.against_ready()
    facts = {"live": not against_live, "ready": not against_ready, "reasons": against_ready, **health.report()}
    body = json.dumps(redact_tree(facts), ensure_ascii=True) + "\n"
    return Reply(body, 503 if against_ready else 200, "application/json")
