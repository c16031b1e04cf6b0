"""Health for service managers and orchestrators: is the process alive, is it ready, and how is each source?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.redaction import redact, redact_tree
from pipelines.metrics.server import Reply, Route

STALE_S = 5.0
"""Age of a thread's last sign of life after which it is considered hung."""


class Health(Protocol):
    """The answers to the probes; each list gives the reasons against, and is empty if there are none."""

    def against_live(self) -> list[str]:
        """Return why the process should be restarted."""

    def against_ready(self) -> list[str]:
        """Return why the process is not working, or not working yet."""

    def report(self) -> dict[str, Any]:
        """Return the facts of `/healthz` as plain values."""


class LoopHealth:
    """Health of a process with one loop: alive while it turns, ready once it does.

    Args:
        facts: further facts for `/healthz`.
        waits_for: returns what else the process needs before it is ready; empty if nothing.
        clock: for tests.
    """

    def __init__(
        self,
        facts: Callable[[], dict[str, Any]] = dict,
        waits_for: Callable[[], list[str]] = list,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._facts, self._waits_for, self._clock = facts, waits_for, clock
        self._started_ns = clock.monotonic_ns()
        self._beat_ns: int | None = None

    def beat(self) -> bool:
        """Record a turn of the loop; return false, so that it can be part of a stop condition."""
        self._beat_ns = self._clock.monotonic_ns()
        return False

    def against_live(self) -> list[str]:
        """Return why the process should be restarted."""
        return stale("the main loop", self._beat_ns or self._started_ns, self._clock)

    def against_ready(self) -> list[str]:
        """Return why the process does not work yet."""
        if self._beat_ns is None:
            return self.against_live() or ["the main loop has not started"]
        return self.against_live() + self._waits_for()

    def report(self) -> dict[str, Any]:
        """Return the facts of `/healthz`."""
        return self._facts()


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
