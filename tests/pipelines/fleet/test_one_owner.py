"""A model of ledger, leases, partitions, frozen and replaced processes: no camera ever has two owners.

The controller is the real one. Messages take up to three seconds, longer than the controller waits for an answer, so
they also arrive after it has given up on them.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from engine.clock import FakeClock
from engine.errors import ConfigError
from pipelines.fleet.control.controller import Controller
from pipelines.fleet.control.facts import CameraSpec, ControllerOptions
from pipelines.fleet.ledger.records import Assignment
from pipelines.fleet.ledger.sqlite import SqliteLedger
from pipelines.fleet.placement.facts import Limits, Machine
from pipelines.fleet.simulation.engine import SimulatedEngine
from pipelines.fleet.simulation.network import SimulatedNetwork

ENGINES = ("a", "b", "c")
CAMERAS = tuple(f"cam{i}" for i in range(5))
OPTIONS = ControllerOptions(
    lease_s=4.0, renew_s=1.0, join_s=3.0, rest_s=20.0, moves_per_minute=600, limits=Limits(rule="least_loaded")
)
engines, cameras = st.sampled_from(ENGINES), st.sampled_from(CAMERAS)


class OneOwner(RuleBasedStateMachine):
    """Everything that happens to engines, network and controller."""

    steps = 0
    """Of all examples together."""

    @initialize(
        seed=st.integers(0, 1 << 30), slowest_s=st.sampled_from([0.01, 0.5, 3.0]), ahead=st.sampled_from([1, 8])
    )
    def begin(self, seed: int, slowest_s: float, ahead: int) -> None:
        self.random, self.clock, self.ledger = random.Random(seed), FakeClock(), SqliteLedger(":memory:")
        self.network = SimulatedNetwork(self.clock, lambda: self.random.uniform(0.001, self.slowest_s), ahead)
        self.slowest_s = slowest_s
        self.processes: list[SimulatedEngine] = []
        self.started = Counter[str]()
        self.given: dict[str, int] = {}
        self.specs = [CameraSpec(name, {"uri": "synthetic://"}) for name in CAMERAS]
        for engine_id in ENGINES:
            self.start(engine_id)
        self.start_controller()

    def start(self, engine_id: str) -> None:
        self.started[engine_id] += 1
        engine = SimulatedEngine(engine_id, self.clock, f"{engine_id}{self.started[engine_id]}", cpu=4.0)
        self.network.engines[engine_id] = engine
        self.processes.append(engine)

    def start_controller(self) -> None:
        self.network.reconnect()
        self.controller = Controller(self.ledger, self.network, self.clock, OPTIONS, self.saw)
        self.controller.configure(self.specs)
        for engine_id in self.network.engines:
            self.join(engine_id)

    def join(self, engine_id: str) -> None:
        self.controller.join(Machine(engine_id, 4.0), self.network.engines[engine_id].incarnation)

    def saw(self, assignment: Assignment, why: str) -> None:
        if assignment.engine_id:
            assert assignment.epoch > self.given.get(assignment.source_id, 0), why
            self.given[assignment.source_id] = assignment.epoch

    @rule(seconds=st.sampled_from([0.3, 1.0, 3.0, 12.0]))
    def go_on(self, seconds: float) -> None:
        for _ in range(int(seconds / 0.25) or 1):
            self.network.pass_time(0.25)
            self.controller.turn()
            self.only_one_may_publish()

    @rule(engine_id=engines)
    def cut(self, engine_id: str) -> None:
        self.network.cut.add(engine_id)

    @rule()
    def heal(self) -> None:
        self.network.cut.clear()

    @rule(engine_id=engines)
    def freeze(self, engine_id: str) -> None:
        if engine_id in self.network.engines:
            self.network.freeze(engine_id)

    @rule(engine_id=engines)
    def thaw(self, engine_id: str) -> None:
        if engine_id in self.network.frozen:
            self.network.thaw(engine_id)

    @rule(engine_id=engines, is_known=st.booleans())
    def kill(self, engine_id: str, is_known: bool) -> None:
        """A process ends; the launcher notices, or nothing does."""
        if engine_id in self.network.engines:
            self.processes.remove(self.network.engines[engine_id])
            self.network.kill(engine_id)
            if is_known:
                self.controller.end(engine_id)

    @rule(engine_id=engines)
    def restart(self, engine_id: str) -> None:
        if engine_id not in self.network.engines:
            self.start(engine_id)
            self.join(engine_id)

    @rule(engine_id=engines)
    def replace(self, engine_id: str) -> None:
        """A second process takes over the name, and the first one lives on, unreachable."""
        if engine_id in self.network.engines:
            self.network.frozen.discard(engine_id)
            self.network._buffers.pop(engine_id, None)
            self.start(engine_id)
            self.join(engine_id)

    @rule(camera=cameras, engine_id=engines)
    def move(self, camera: str, engine_id: str) -> None:
        with suppress(ConfigError):  # it is there already, does not answer, or is draining
            self.controller.move(camera, engine_id)

    @rule(engine_id=engines, undo=st.booleans())
    def drain(self, engine_id: str, undo: bool) -> None:
        if engine_id in self.controller.book.engines:
            self.controller.drain(engine_id, undo=undo)

    @rule()
    def restart_controller(self) -> None:
        self.start_controller()

    @rule(seconds=st.sampled_from([1.0, 6.0]))
    def be_away(self, seconds: float) -> None:
        """The controller is away, and the keeper renews what the ledger says."""
        self.network.reconnect()
        keeper = Controller(self.ledger, self.network, self.clock, OPTIONS)
        for engine_id in self.network.engines:
            keeper.join(Machine(engine_id, 1.0))
        for _ in range(int(seconds / 0.25)):
            self.clock.advance(0.25)
            keeper.renew()
            self.only_one_may_publish()
        self.start_controller()

    @rule(camera=cameras)
    def change_keys(self, camera: str) -> None:
        self.specs = [
            CameraSpec(s.source_id, {**s.source, "n": s.source.get("n", 0) + 1}) if s.source_id == camera else s
            for s in self.specs
        ]
        self.controller.configure(self.specs)

    @invariant()
    def count(self) -> None:
        OneOwner.steps += 1

    @invariant()
    def only_one_may_publish(self) -> None:
        if not hasattr(self, "processes"):
            return
        owners: dict[str, list[tuple[str, int]]] = {}
        for process in self.processes:  # also one that is frozen: it could be let go at any moment
            for name, epoch in process.publishing().items():
                owners.setdefault(name, []).append((process.incarnation, epoch))
        assert all(len(who) == 1 for who in owners.values()), owners
        held = self.ledger.read()
        assert all(who[0][1] <= held[name].epoch for name, who in owners.items()), (owners, held)

    def teardown(self) -> None:
        """Once all faults are over, every camera runs where the ledger says."""
        if not hasattr(self, "processes"):
            return
        self.heal()
        self.slowest_s = 0.01
        for engine_id in ENGINES:
            self.thaw(engine_id)
            self.restart(engine_id)
            self.controller.drain(engine_id, undo=True)
        self.go_on(100.0)
        running: dict[str, Any] = {}
        for engine_id, engine in self.network.engines.items():
            running |= {name: (engine_id, epoch) for name, epoch in engine.publishing().items()}
        assert running == {name: (held.engine_id, held.epoch) for name, held in self.ledger.read().items()}
        assert running.keys() == set(CAMERAS)
        self.ledger.close()


def _check(examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        OneOwner,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_camera_ever_has_two_owners() -> None:
    _check(examples=12, steps=30)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_no_camera_ever_has_two_owners_in_ten_thousand_steps() -> None:
    before = OneOwner.steps
    _check(examples=300, steps=50)
    assert OneOwner.steps - before >= 10_000
