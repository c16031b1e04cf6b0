"""How many machines a fleet requests and gives back, and a launcher that never makes the controller wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from engine.clock import FakeClock
from pipelines.fleet.control.controller import Controller
from pipelines.fleet.control.facts import CameraSpec, ControllerOptions
from pipelines.fleet.control.scaling import Scale, Scaler
from pipelines.fleet.launching.aside import AsideLauncher
from pipelines.fleet.launching.launcher import Ended, Joined
from pipelines.fleet.ledger.sqlite import SqliteLedger
from pipelines.fleet.placement.facts import Machine
from pipelines.fleet.simulation.engine import SimulatedEngine
from pipelines.fleet.simulation.network import SimulatedNetwork

SHRINK_S = 900.0
PATIENCE_S = 60.0


class Fleet:
    """Engines of two cores each, and cameras whose cost can change."""

    def __init__(self, engines: int, cameras: int, cores: float, shrink_s: float | None = SHRINK_S) -> None:
        self.clock, self.ledger = FakeClock(), SqliteLedger(":memory:")
        self.network = SimulatedNetwork(self.clock)
        options = ControllerOptions(moves_per_minute=600)
        self.controller = Controller(self.ledger, self.network, self.clock, options)
        self.scaler = Scaler(self.controller, self.ledger, shrink_s)
        self.names = [f"c{n}" for n in range(cameras)]
        self.controller.configure([CameraSpec(name, {"uri": "rtsp://gate"}) for name in self.names])
        for n in range(engines):
            self.start(f"n{n}")
        self.cost(cores)
        self.go_on(60.0)
        self.cost(cores)

    def start(self, name: str) -> None:
        self.network.engines[name] = SimulatedEngine(name, self.clock, name, cpu=2.0)
        self.controller.join(Machine(name, 2.0))

    def cost(self, cores: float) -> None:
        """Let each camera cost this many cores, and wait until the controller has averaged it."""
        for number in range(20):
            for engine in self.network.engines.values():
                engine.set_costs(dict.fromkeys(self.names, (cores * 100 + number / 1e3, 10.0)))
            self.go_on(2.0)

    def go_on(self, seconds: float) -> None:
        for _ in range(int(seconds / 0.5)):
            self.clock.advance(0.5)
            self.controller.turn()

    def scale(self, seconds: float) -> Scale:
        found = self.scaler.turn()
        for _ in range(int(seconds / 30)):
            self.go_on(30.0)
            found = self.scaler.turn()
        return found

    def on(self, name: str) -> int:
        return len(self.network.engines[name].publishing())


def test_machines_are_ordered_as_soon_as_the_load_is_high() -> None:
    fleet = Fleet(2, 8, cores=0.25)
    assert fleet.scale(0.0).machines == 2
    fleet.cost(0.48)
    assert fleet.scale(0.0).machines == 3


def test_a_machine_is_given_back_empty_and_only_after_a_long_time() -> None:
    fleet = Fleet(3, 8, cores=0.5)
    fleet.cost(0.1)
    assert fleet.scale(SHRINK_S - 120).machines == 3
    assert not any(fleet.controller.book.engines[name].is_draining for name in fleet.network.engines)
    found = fleet.scale(300.0)
    assert len(found.free) == 1
    assert found.machines == 2
    assert fleet.on(found.free[0]) == 0
    assert sum(fleet.on(name) for name in fleet.network.engines) == 8
    again = Scaler(fleet.controller, fleet.ledger, SHRINK_S)  # a restarted controller knows it
    assert again.turn().free == found.free
    again.gone(found.free[0])
    assert again.turn().free == ()


def test_a_machine_that_is_leaving_stays_if_it_is_needed_again() -> None:
    fleet = Fleet(3, 8, cores=0.5)
    fleet.cost(0.1)
    leaving = fleet.scale(SHRINK_S + 180).free[0]
    fleet.cost(0.5)
    assert fleet.scale(30.0).free == ()
    assert not fleet.controller.book.engines[leaving].is_draining


def test_a_machine_drained_by_a_person_is_not_given_back() -> None:
    fleet = Fleet(3, 8, cores=0.3)
    fleet.controller.drain("n0")
    fleet.go_on(60.0)
    assert fleet.on("n0") == 0
    assert fleet.scale(0.0).free == ()


def test_nothing_is_given_back_unless_asked() -> None:
    fleet = Fleet(3, 8, cores=0.5, shrink_s=None)
    fleet.cost(0.1)
    found = fleet.scale(4 * SHRINK_S)
    assert (found.machines, found.present, found.free) == (3, 3, ())


class Hanging:
    """A launcher that waits for its cluster, or fails."""

    def __init__(self) -> None:
        self.is_there, self.polled = threading.Event(), threading.Event()
        self.failures = 1
        self.done: list[str] = []

    def poll(self) -> list[Joined | Ended]:
        self.polled.set()
        if self.failures:
            self.failures -= 1
            raise OSError("the cluster is away")
        self.is_there.wait(PATIENCE_S)
        return [Ended("n1", True, "it ended")]

    def set_model(self, model: str | None) -> None:
        self.done.append(f"model {model}")

    def want(self, machines: int) -> str:
        self.done.append(f"want {machines}")
        return f"asked for {machines}"

    def give_back(self, engine_id: str) -> None:
        self.done.append(f"back {engine_id}")

    def close(self, *, leave: bool) -> None:
        self.done.append("closed")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_cluster_that_does_not_answer_keeps_nobody_waiting() -> None:
    inner = Hanging()
    launcher = AsideLauncher(inner, poll_s=0.01)
    assert inner.polled.wait(PATIENCE_S)
    assert launcher.poll() == []
    launcher.set_model("new.onnx")
    assert launcher.want(3) == ""
    launcher.give_back("n2")
    inner.is_there.set()
    until(lambda: launcher.want(3) == "asked for 3")
    until(launcher.poll)
    launcher.close(leave=True)
    assert inner.done[:2] == ["model new.onnx", "back n2"]
    assert inner.done[-1] == "closed"
    assert set(inner.done[2:-1]) == {"want 3"}


def test_what_fails_while_the_cluster_is_away_is_done_later_and_requests_are_repeated() -> None:
    """A restarted cluster has forgotten the requests; an engine that is not ended keeps its machine."""

    class Failing(Hanging):
        def give_back(self, engine_id: str) -> None:
            self.done.append("failed")
            if self.done.count("failed") < 3:
                raise OSError("the cluster is away")
            super().give_back(engine_id)

    inner = Failing()
    inner.is_there.set()
    launcher = AsideLauncher(inner, poll_s=0.01)
    launcher.give_back("n2")
    launcher.set_model("new.onnx")
    until(lambda: "model new.onnx" in inner.done)
    launcher.want(3)
    until(lambda: inner.done.count("want 3") == 1)
    launcher.want(3)
    until(lambda: inner.done.count("want 3") == 2)
    launcher.close(leave=True)
    assert inner.done[:5] == ["failed", "failed", "failed", "back n2", "model new.onnx"]


def test_no_further_machine_is_ordered_while_one_is_emptied() -> None:
    fleet = Fleet(3, 8, cores=0.5)
    fleet.cost(0.1)
    ordered = [fleet.scale(30.0) for _ in range(40)]
    assert max(scale.machines for scale in ordered) == 3
    assert {scale.present for scale in ordered} == {3}


def test_a_machine_that_was_given_back_takes_cameras_when_it_returns() -> None:
    fleet = Fleet(3, 8, cores=0.5)
    fleet.cost(0.1)
    [name] = fleet.scale(SHRINK_S + 180).free
    fleet.controller.forget(name)
    fleet.scaler.gone(name)
    fleet.network.kill(name)
    fleet.go_on(60.0)
    fleet.start(name)
    assert not fleet.controller.book.engines[name].is_draining
