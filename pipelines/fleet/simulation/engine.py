"""An engine without video: it answers the controller as a real one does, and keeps track of what it would publish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zlib import crc32

from engine.clock import NS_PER_S, Clock

CLOCK_OFFSET_NS = 1_000 * NS_PER_S


@dataclass(slots=True)
class _Run:
    """A camera that the engine runs."""

    epoch: int
    until_ns: int
    ready_ns: int
    report: dict[str, Any]


class SimulatedEngine:
    """Holds cameras under leases.

    Args:
        engine_id: its name.
        clock: of the simulation; the engine's own has an offset.
        incarnation: of its process.
        cpu: processor cores of its machine.
        start_s: time to start one camera; it starts `at_once` at a time.
        at_once: likewise.
        costs: milliseconds per frame and frames per second by source_id, for its reports.
    """

    def __init__(
        self,
        engine_id: str,
        clock: Clock,
        incarnation: str,
        *,
        cpu: float = 16.0,
        start_s: float = 0.6,
        at_once: int = 1,
        costs: dict[str, tuple[float, float]] | None = None,
    ) -> None:
        self.engine_id, self.incarnation, self.cpu = engine_id, incarnation, cpu
        self._clock, self._start_ns = clock, int(start_s * NS_PER_S)
        self._free_ns = [0] * at_once
        self._costs = costs or {}
        self._runs: dict[str, _Run] = {}
        self._highest: dict[str, int] = {}
        self._offset_ns = CLOCK_OFFSET_NS + crc32(incarnation.encode())
        self._owned: dict[str, dict[str, Any]] | None = None
        self._all: Any = None
        self._all_until_ns = self._soonest_ns = 0

    @property
    def now_ns(self) -> int:
        """Its own clock."""
        return self._clock.monotonic_ns() + self._offset_ns

    def publishing(self) -> dict[str, int]:
        """Return the epoch of each camera that the engine may publish now."""
        now_ns = self.now_ns
        return {name: run.epoch for name, run in self._runs.items() if self._until(run) > now_ns}

    def _until(self, run: _Run) -> int:
        """Return when a lease expires: all of them last at least until `_all_until_ns`."""
        return max(run.until_ns, self._all_until_ns)

    def ready(self, source_id: str) -> int | None:
        """Return when the first frame of a camera is published, by the clock of the simulation; None: not held."""
        run = self._runs.get(source_id)
        return None if run is None else run.ready_ns

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the reply to a request of the controller."""
        self._drop_expired()
        known = request.get("incarnation")
        if known is not None and known != self.incarnation:
            return {"ok": False, "conflict": True, "error": "another incarnation"}
        act = {"renew": self._renew, "assign": self._assign, "release": self._release}[request["command"]]
        done = act(request)
        if "error" in done:
            return {"ok": False, **done}
        facts = {"engine_id": self.engine_id, "incarnation": self.incarnation, "engine_ns": self.now_ns}
        return {"ok": True, **facts, **done}

    def _drop_expired(self) -> None:
        """Drop cameras whose lease has expired: it cannot be renewed."""
        now_ns = self.now_ns
        if now_ns < max(self._soonest_ns, self._all_until_ns):
            return
        for name in [name for name, run in self._runs.items() if self._until(run) <= now_ns]:
            del self._runs[name]
            self._changed()
        self._soonest_ns = min((self._until(run) for run in self._runs.values()), default=0)

    def _changed(self) -> None:
        """Forget the results cached for all cameras together."""
        for run in self._runs.values():
            run.until_ns = self._until(run)
        self._owned, self._all, self._all_until_ns, self._soonest_ns = None, None, 0, 0

    def _until_ns(self, request: dict[str, Any]) -> int:
        as_of_ns = int(request["as_of_ns"])
        return 0 if as_of_ns > self.now_ns else as_of_ns + int(request["lease_s"] * NS_PER_S)

    def _renew(self, request: dict[str, Any]) -> dict[str, Any]:
        leases = request["leases"]
        if leases and leases is self._all:
            self._all_until_ns = max(self._all_until_ns, self._until_ns(request))
        elif leases:
            self._renew_each(leases, self._until_ns(request))
        if self._owned is None:
            self._owned = {name: run.report for name, run in self._runs.items()}
        return {"owned": self._owned}

    def _renew_each(self, leases: list[list[Any]], until_ns: int) -> None:
        """Renew these leases; if they are all of the engine's, repeating the request takes constant time."""
        found = [run for name, epoch in leases if (run := self._runs.get(name)) is not None and run.epoch == epoch]
        for run in found:
            run.until_ns = max(run.until_ns, until_ns)
        if len(found) == len(self._runs) == len(leases):
            self._all = leases

    def _assign(self, request: dict[str, Any]) -> dict[str, Any]:
        name, epoch, until_ns = request["source"]["source_id"], request["epoch"], self._until_ns(request)
        if until_ns <= self.now_ns:
            return {"conflict": True, "error": "this request is late"}
        run = self._runs.get(name)
        self._changed()
        if run is not None and run.epoch == epoch:
            run.until_ns = max(run.until_ns, until_ns)
            return {}
        if epoch <= self._highest.get(name, 0):
            return {"conflict": True, "error": f"epoch {epoch} is over", "epoch": self._highest[name]}
        self._highest[name] = epoch
        ready_ns = self._begin() if run is None else run.ready_ns
        cpu_ms, fps = self._costs.get(name, (10.0, 10.0))
        report = {"epoch": epoch, "state": "live", "cpu_ms": cpu_ms, "gpu_ms": 0.0, "fps": fps, "published": 1000}
        self._runs[name] = _Run(epoch, until_ns, ready_ns, report)
        return {}

    def _begin(self) -> int:
        """Return when a camera waiting to start will have started."""
        at = self._free_ns.index(min(self._free_ns))
        self._free_ns[at] = max(self._free_ns[at], self._clock.monotonic_ns()) + self._start_ns
        return self._free_ns[at]

    def _release(self, request: dict[str, Any]) -> dict[str, Any]:
        name, epoch = request["source_id"], request["epoch"]
        run = self._runs.get(name)
        if run is not None and run.epoch > epoch:
            return {"conflict": True, "error": f"{name} has epoch {run.epoch}"}
        self._changed()
        self._runs.pop(name, None)
        self._highest[name] = max(self._highest.get(name, 0), epoch)
        return {"stopped": True}

    def set_costs(self, costs: dict[str, tuple[float, float]]) -> None:
        """Change its reports from now on."""
        self._costs, self._owned = costs, None
        for name, run in self._runs.items():
            cpu_ms, fps = costs[name]
            run.report = {**run.report, "cpu_ms": cpu_ms, "fps": fps}
