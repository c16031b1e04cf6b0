"""A day in the life of a large fleet on a simulated clock: the load rises until noon.

Machines are added, removed and lost.

The controller, its placement and its ledger are real; engines, network and time are simulated.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from engine.clock import NS_PER_S, FakeClock
from pipelines.fleet.control.controller import Controller
from pipelines.fleet.control.facts import CameraSpec, ControllerOptions
from pipelines.fleet.control.scaling import Scaler
from pipelines.fleet.ledger.records import Assignment
from pipelines.fleet.ledger.sqlite import SqliteLedger
from pipelines.fleet.placement.facts import Limits, Machine, Need
from pipelines.fleet.placement.place import place
from pipelines.fleet.placement.rebalance import lower_bound
from pipelines.fleet.simulation.engine import SimulatedEngine
from pipelines.fleet.simulation.network import SimulatedNetwork

DECODE_MS, FRAME_MS, INFER_MS = 6.0, 1.5, 15.0
CALM_STEP_S, BUSY_STEP_S = 1.5, 0.25
COSTS_S, SCALE_S, SHRINK_S, BOOT_S = 300.0, 60.0, 900.0, 60.0
FIRST_FRAME_S = 0.3, 1.5
NOTICE_S = 13.0
"""How long Ray takes to report a lost machine; until then, the controller only notices that the machine is silent."""
MAX_MOVES, MAX_P99_S, MAX_OVER_BOUND, MAX_PLACE_S = 1.0, 10.0, 1.03, 1.0


@dataclass(frozen=True, slots=True)
class DayOptions:
    """What is simulated.

    Attributes:
        cameras: how many.
        hours: how long; a day begins at midnight, and shorter times in the morning.
        cores: of each machine.
        lost: share of the machines lost during that time.
        start_s: time to start one camera; an engine starts `at_once` at a time.
        at_once: likewise.
        seed: of all random numbers.
    """

    cameras: int = 10_000
    hours: float = 24.0
    cores: float = 16.0
    lost: float = 0.05
    start_s: float = 0.3
    at_once: int = 2
    seed: int = 7


@dataclass(slots=True)
class DayReport:
    """The outcome.

    `placed_s` is CPU time, so that a busy machine does not affect it. `restarted_without_loss` counts cameras that had
    to start again although their machine was not lost: their lease ran out, or they were refused.
    """

    cameras: int
    placed_s: float
    machines_at_first: int
    lower_bound: int
    machines_most: int = 0
    machines_lost: int = 0
    cameras_lost: int = 0
    moves_per_camera: float = 0.0
    recovery_s: dict[str, float] = field(default_factory=dict)
    most_moves_of_one: int = 0
    restarted_without_loss: int = 0
    highest_load: float = 0.0
    without_owner_at_the_end: int = 0
    took_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @property
    def is_good(self) -> bool:
        """Whether the fleet kept its promises."""
        return (
            self.placed_s < MAX_PLACE_S
            and self.machines_at_first <= int(np.ceil(MAX_OVER_BOUND * self.lower_bound))
            and self.moves_per_camera <= MAX_MOVES
            and self.recovery_s.get("p99", 0.0) <= MAX_P99_S
            and not self.restarted_without_loss
            and not self.without_owner_at_the_end
        )


class _Day:
    """The state of the simulation."""

    def __init__(self, options: DayOptions) -> None:
        self.options, self.random = options, np.random.default_rng(options.seed)
        count = options.cameras
        self.names = [f"c{number}" for number in range(count)]
        self.fps = self.random.choice([5, 10, 15, 25], count, p=[0.35, 0.4, 0.15, 0.1])
        self.busy = self.random.beta(2, 2, count) * 1.6
        self.clock, self.ledger = FakeClock(), SqliteLedger(":memory:")
        self.network = SimulatedNetwork(self.clock)
        self.moves: Counter[str] = Counter()
        self.restarted_without_loss = 0
        self.lost_ns: dict[str, int] = {}
        self.recovered_s: list[float] = []
        self.booting: list[tuple[int, str]] = []
        self.noticed: list[tuple[int, str]] = []
        self.number = 0
        self.controller = Controller(
            self.ledger,
            self.network,
            self.clock,
            ControllerOptions(lease_s=4.5, renew_s=1.5, silent_s=4.0, relieve_s=60.0, limits=Limits()),
            self.saw,
        )
        self.scaler = Scaler(self.controller, self.ledger, SHRINK_S)
        self.began_h = 0.0 if options.hours >= 24 else 9.0
        self.costs = self.costs_at(self.began_h)

    def costs_at(self, hour: float) -> dict[str, tuple[float, float]]:
        """Return milliseconds per frame and frames per second: more frames pass the motion gate around 14 o'clock."""
        rise = 0.5 * np.exp(-(((hour % 24 - 14) / 5) ** 2))
        share = np.clip(0.15 + rise * self.busy + self.random.normal(0, 0.03, len(self.names)), 0.05, 1.0)
        ms = DECODE_MS + FRAME_MS + INFER_MS * share
        return {name: (float(m), float(f)) for name, m, f in zip(self.names, ms, self.fps, strict=True)}

    def saw(self, assignment: Assignment, why: str) -> None:
        """Count moves, and restarts without a lost machine to explain them."""
        if why == "moved":
            self.moves[assignment.source_id] += 1
        elif assignment.engine_id and assignment.epoch > 1:
            self.restarted_without_loss += assignment.source_id not in self.lost_ns

    def boot(self) -> None:
        """Order a machine, which is available a minute later."""
        self.number += 1
        self.booting.append((self.clock.monotonic_ns() + int(BOOT_S * NS_PER_S), f"m{self.number:04}"))

    def start(self, engine_id: str) -> None:
        """Start an engine on an available machine."""
        options = self.options
        self.network.engines[engine_id] = SimulatedEngine(
            engine_id,
            self.clock,
            engine_id,
            cpu=options.cores,
            start_s=options.start_s,
            at_once=options.at_once,
            costs=self.costs,
        )
        self.controller.join(Machine(engine_id, options.cores))

    def lose(self) -> int:
        """Lose a machine without warning, and return how many cameras it had."""
        names = [name for name in self.network.engines if self.controller.book.owned[name]]
        engine_id = str(self.random.choice(names))
        now_ns = self.clock.monotonic_ns()
        self.lost_ns |= dict.fromkeys(self.controller.book.owned[engine_id], now_ns)
        self.network.kill(engine_id)
        self.noticed.append((now_ns + int(NOTICE_S * NS_PER_S), engine_id))
        return len(self.controller.book.owned[engine_id])

    def step(self, seconds: float) -> None:
        """Advance time, and record the cameras that are back."""
        self.network.pass_time(seconds)
        now_ns = self.clock.monotonic_ns()
        for due_ns, engine_id in [each for each in self.booting if each[0] <= now_ns]:
            self.booting.remove((due_ns, engine_id))
            self.start(engine_id)
        while self.noticed and self.noticed[0][0] <= now_ns:
            self.controller.leave(self.noticed.pop(0)[1])
        self.controller.turn()
        for name, lost_ns in list(self.lost_ns.items()):
            camera = self.controller.book.cameras[name]
            engine = self.network.engines.get(camera.owner)
            ready_ns = engine.ready(name) if engine is not None else None
            if ready_ns is not None:
                self.recovered_s.append((ready_ns - lost_ns) / NS_PER_S + float(self.random.uniform(*FIRST_FRAME_S)))
                del self.lost_ns[name]

    def scale(self) -> None:
        """Order the machines that the fleet's scaler lacks, and end those that it gives back."""
        scale = self.scaler.turn()
        there = sum(engine.is_expected for engine in self.controller.book.engines.values())
        for _ in range(scale.machines + len(scale.free) - there - len(self.booting)):
            self.boot()
        for engine_id in scale.free:
            self.controller.forget(engine_id)
            self.network.kill(engine_id)
            self.scaler.gone(engine_id)

    def highest_load(self) -> float:
        """Return the load of the busiest machine at the cameras' actual current costs."""
        loads = [
            sum(self.costs[name][0] * self.costs[name][1] / 1e3 for name in engine.publishing())
            for engine in self.network.engines.values()
        ]
        return max(loads, default=0.0) / self.options.cores


def simulate_day(options: DayOptions) -> DayReport:
    """Place the cameras, advance time to the end, and return the outcome."""
    began = time.perf_counter()
    day = _Day(options)
    needs = [Need(name, ms * fps / 1e3) for name, (ms, fps) in day.costs.items()]
    bound = lower_bound(needs, Machine("", options.cores), Limits())
    pool = [Machine(f"m{number:04}", options.cores) for number in range(1, 2 * bound + 2)]
    placing = time.thread_time()
    first = place(needs, pool)
    report = DayReport(options.cameras, round(time.thread_time() - placing, 3), len(set(first.owners.values())), bound)
    _fill(day, report.machines_at_first)
    _live(day, report)
    report.moves_per_camera = round(sum(day.moves.values()) / options.cameras, 3)
    report.most_moves_of_one = max(day.moves.values(), default=0)
    report.restarted_without_loss = day.restarted_without_loss
    if day.recovered_s:
        quantiles = np.percentile(day.recovered_s, [50, 99, 100])
        report.recovery_s = dict(zip(("p50", "p99", "max"), (round(float(q), 2) for q in quantiles), strict=True))
    held = day.ledger.read()
    running = {name for engine in day.network.engines.values() for name in engine.publishing()}
    report.without_owner_at_the_end = options.cameras - len(running & held.keys())
    report.took_s = round(time.perf_counter() - began, 1)
    return report


def _fill(day: _Day, machines: int) -> None:
    """Start the machines, and let the controller place all cameras; it knows their costs, as after a restart."""
    from pipelines.fleet.placement.costs import Cost

    for _ in range(machines):
        day.number += 1
        day.start(f"m{day.number:04}")
    day.controller.configure(CameraSpec(name, {"uri": "rtsp://camera"}) for name in day.names)
    for name, (ms, fps) in day.costs.items():
        day.controller.book.cameras[name].cost = Cost(ms * fps / 1e3, 0.0, True)
    for _ in range(8):
        day.step(CALM_STEP_S)


def _live(day: _Day, report: DayReport) -> None:
    """Let time pass."""
    options = day.options
    end_s = options.hours * 3600
    count = max(1, round(options.lost * report.machines_at_first))
    losses = sorted(day.random.uniform(0.1 * end_s, 0.9 * end_s, count))
    next_costs_s, next_scale_s, began_ns = COSTS_S, SCALE_S, day.clock.monotonic_ns()
    while (now_s := (day.clock.monotonic_ns() - began_ns) / NS_PER_S) < end_s:
        if losses and now_s >= losses[0]:
            losses.pop(0)
            report.machines_lost += 1
            report.cameras_lost += day.lose()
        if now_s >= next_costs_s:
            next_costs_s += COSTS_S
            day.costs = day.costs_at(day.began_h + now_s / 3600)
            for engine in day.network.engines.values():
                engine.set_costs(day.costs)
            report.highest_load = max(report.highest_load, round(day.highest_load(), 3))
        if now_s >= next_scale_s:
            next_scale_s += SCALE_S
            day.scale()
            report.machines_most = max(report.machines_most, len(day.network.engines))
        day.step(BUSY_STEP_S if day.lost_ns else CALM_STEP_S)
    for _ in range(40):
        day.step(CALM_STEP_S)
