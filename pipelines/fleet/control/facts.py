"""The controller's records of cameras and engines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.clock import NS_PER_S
from pipelines.fleet.ledger.records import NOBODY, Assignment
from pipelines.fleet.placement.costs import Cost, estimated
from pipelines.fleet.placement.facts import Limits, Machine, Need

FAR = 1 << 62
"""A time that never comes."""


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """Time limits of a controller.

    Attributes:
        lease_s: how long an engine may continue without hearing from the controller.
        margin_s: how much later the controller considers a lease expired, because clocks differ and stopping takes a
            moment.
        renew_s: time between two renewals of an engine.
        keeps: an engine whose controller is silent continues for an hour; only the collector's fence then blocks a
            frozen engine that thaws.
        silent_s: an engine that has not answered for this long gets no further cameras.
        join_s: cameras that this controller has not seen running wait this long for starting engines.
        relieve_s: time between two checks of the machines' load.
        rest_s: a camera that has moved stays for this long.
        moves_per_minute: maximum number of moves to drain or relieve machines.
        limits: load limits of a machine.
    """

    lease_s: float = 6.0
    margin_s: float = 0.5
    renew_s: float = 1.0
    keeps: bool = False
    silent_s: float = 3.0
    join_s: float = 20.0
    relieve_s: float = 10.0
    rest_s: float = 600.0
    moves_per_minute: float = 30.0
    limits: Limits = field(default_factory=Limits)

    @property
    def engine_lease_s(self) -> float:
        """The lease that engines are given."""
        return 3600.0 if self.keeps else self.lease_s

    def ns(self, seconds: float) -> int:
        """Return nanoseconds."""
        return int(seconds * NS_PER_S)


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """A camera as configured.

    Attributes:
        source_id: its name.
        source: the keys of a source, for the engine.
        site: where it must run; empty: anywhere.
        labels: labels that its machine must have.
        pack: affinity.
        spread: anti-affinity.
    """

    source_id: str
    source: dict[str, Any]
    site: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    pack: str = ""
    spread: str = ""


@dataclass(slots=True)
class Camera:
    """A camera and its state.

    Attributes:
        spec: as configured; None: it was removed from the configuration, and is being stopped.
        held: the assignment as in the ledger; None: it never had one.
        cost: the resources it takes.
        target: where it is moving; empty: nowhere.
        is_running: its owner has confirmed that it runs it, in this epoch.
        has_run: it has run under this controller: when it is lost, it is started elsewhere at once.
        since_ns: when the owner was last told to run it.
        pending: unanswered requests to run it in this epoch; the refusal of one says nothing about the next.
        released_ns: when the owner was last told to stop it; 0: never.
        free_ns: until then, an earlier process of its owner may still run it.
        unsure_ns: until then, an unanswered request to run it may still be carried out.
        moved_ns: when it was last moved voluntarily.
        retry_ns: it is not assigned before this time, because its last assignment was refused.
        failures: refusals in a row.
        why: why it does not run; empty if it runs or is about to.
        highest: the last epoch according to engines, which is higher than the ledger's if that is behind.
    """

    spec: CameraSpec | None
    held: Assignment | None = None
    cost: Cost = field(default_factory=estimated)
    target: str = NOBODY
    is_running: bool = False
    has_run: bool = False
    since_ns: int = 0
    pending: int = 0
    released_ns: int = 0
    free_ns: int = 0
    unsure_ns: int = 0
    moved_ns: int = -FAR
    retry_ns: int = 0
    failures: int = 0
    why: str = ""
    highest: int = 0
    _need: Need | None = None

    @property
    def owner(self) -> str:
        """Its engine according to the ledger; empty: none."""
        return NOBODY if self.held is None else self.held.engine_id

    @property
    def epoch(self) -> int:
        """The last epoch; 0: it never had one."""
        return 0 if self.held is None else self.held.epoch

    def set_spec(self, spec: CameraSpec | None) -> None:
        """Replace the configuration."""
        self.spec, self._need = spec, None

    def need(self, source_id: str) -> Need:
        """Return the input for placement."""
        spec, cost, made = self.spec or CameraSpec(source_id, {}), self.cost, self._need
        if made is None or (made.cpu, made.gpu) != (cost.cpu, cost.gpu):
            made = Need(source_id, cost.cpu, cost.gpu, spec.site, spec.labels, spec.pack, spec.spread)
            self._need = made
        return made


@dataclass(slots=True)
class Engine:
    """An engine and its last report.

    Attributes:
        machine: its capacity.
        joined_ns: when it was announced.
        is_expected: the launcher keeps it running; False: it is only known from the ledger.
        process: identifies its process to the launcher; empty: not known.
        has_ended: that process has certainly ended.
        incarnation: of its process; empty: it has not answered yet.
        clock_ns: its clock when it last answered; leases are given from that time on.
        heard_ns: when that answer arrived, by our clock.
        bound_ns: when the last lease that any request may have given it expires, by our clock.
        renewed_ns: when its renewal was last requested.
        is_asked: the answer to that is outstanding.
        asked: unanswered requests to this process, by `id`; answers to others may come from an earlier one.
        is_draining: it gets no cameras, and loses those it has.
        running: its latest reports, by source_id.
        settled: its last full report of its cameras that agreed with the ledger; None: examine its next report.
    """

    machine: Machine
    joined_ns: int
    is_expected: bool = True
    process: str = ""
    has_ended: bool = False
    incarnation: str = ""
    clock_ns: int = 0
    heard_ns: int = -FAR
    bound_ns: int = 0
    renewed_ns: int = -FAR
    is_asked: bool = False
    asked: dict[int, dict[str, Any]] = field(default_factory=dict)
    is_draining: bool = False
    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    settled: Any = None
