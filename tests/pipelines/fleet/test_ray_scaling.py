"""A fleet on an autoscaler: machines are added, and end once they are not needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.clock import FakeClock
from engine.transport.keys import make_keys
from pipelines.fleet.config import FleetConfig
from pipelines.fleet.control.controller import Controller
from pipelines.fleet.control.facts import CameraSpec, ControllerOptions
from pipelines.fleet.control.scaling import Scaler
from pipelines.fleet.launching.launcher import Joined
from pipelines.fleet.launching.ray import RayLauncher
from pipelines.fleet.ledger.sqlite import SqliteLedger
from pipelines.fleet.simulation.engine import SimulatedEngine
from pipelines.fleet.simulation.network import SimulatedNetwork
from tests.pipelines.fleet.fake_ray import FakeRay

SHRINK_S = 300.0
CAMERAS = [f"c{n}" for n in range(40)]


class Fleet:
    """A controller and a launcher for Ray with simulated engines, in the order in which the service calls them."""

    def __init__(self, ray: FakeRay, folder: Path) -> None:
        keys = {name: str(make_keys(folder, name)[1]) for name in ("keys", "engine_keys")}
        tree = {"name": "site", "launcher": "ray", "ray": keys, "state": str(folder), "collector": {"collect": "none"}}
        self.ray, self.clock, self.ledger = ray, FakeClock(), SqliteLedger(":memory:")
        self.launcher = RayLauncher(FleetConfig.model_validate(tree), self.clock)
        self.network = SimulatedNetwork(self.clock)
        self.controller = Controller(self.ledger, self.network, self.clock, ControllerOptions(moves_per_minute=600))
        self.scaler = Scaler(self.controller, self.ledger, SHRINK_S)
        self.cores = 0.5
        self.configure(CAMERAS)

    def configure(self, cameras: list[str]) -> None:
        self.controller.configure(CameraSpec(name, {"uri": "rtsp://gate"}) for name in cameras)

    def go_on(self, seconds: float) -> None:
        for number in range(int(seconds / 30)):
            self.ray.autoscale()
            for _ in range(60):
                self._poll()
                self.network.pass_time(0.5)
                self.controller.turn()
            for engine in self.network.engines.values():
                engine.set_costs(dict.fromkeys(CAMERAS, (self.cores * 100 + number / 1e6, 10.0)))
            self._scale()

    def _poll(self) -> None:
        for news in self.launcher.poll():
            if not isinstance(news, Joined):
                self.network.kill(news.engine_id)
                (self.controller.end if news.is_certain else self.controller.leave)(news.engine_id)
                continue
            name = news.machine.engine_id
            if news.address and name not in self.network.engines:
                self.network.engines[name] = SimulatedEngine(name, self.clock, news.process, cpu=8.0)
            self.controller.join(news.machine)

    def _scale(self) -> None:
        scale = self.scaler.turn()
        for name in scale.free:
            self.launcher.give_back(name)
            self.controller.forget(name)
            self.scaler.gone(name)
        self.launcher.want(scale.machines)

    def machines(self) -> set[str]:
        return self.ray.machines.keys() - {"head"}

    def dark(self) -> set[str]:
        running = {name for engine in self.network.engines.values() for name in engine.publishing()}
        return set(CAMERAS) - running


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    ray = FakeRay()
    ray.install(monkeypatch)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return Fleet(ray, tmp_path)


def test_the_autoscaler_gets_machines_for_all_cameras_and_ends_those_that_are_not_needed(fleet: Fleet) -> None:
    fleet.go_on(300.0)
    assert len(fleet.machines()) == 3, "20 cores are less than 85 % of three machines of 8"
    assert fleet.dark() == set()
    fleet.cores = 0.2
    most, dark = len(fleet.machines()), set[str]()
    for _ in range(8):
        fleet.go_on(SHRINK_S)
        most, dark = max(most, len(fleet.machines())), dark | fleet.dark()
    assert most == 3
    assert len(fleet.machines()) == 2, "8 cores fit two machines"
    assert dark == set()
    assert {actor.node_id for actor in fleet.ray.actors.values()} == fleet.machines()
    fleet.cores = 0.5
    fleet.go_on(600.0)
    assert len(fleet.machines()) == 3
    assert fleet.dark() == set()


def test_without_cameras_no_machine_is_kept(fleet: Fleet) -> None:
    fleet.go_on(300.0)
    fleet.configure([])
    fleet.go_on(6 * SHRINK_S)
    assert fleet.machines() == set()


def test_a_head_without_cores_runs_no_engine(fleet: Fleet) -> None:
    fleet.launcher.poll()  # no other machine is there yet
    assert fleet.ray.actors == {}
