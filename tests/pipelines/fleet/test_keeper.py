"""Leases while the controller is away: the keeper renews them, and a new controller takes that over again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.clock import SYSTEM_CLOCK
from engine.errors import ConfigError
from pipelines.fleet.config import FleetConfig, load_fleet
from pipelines.fleet.control.controller import Controller
from pipelines.fleet.control.facts import CameraSpec
from pipelines.fleet.launching.state import processes_folder
from pipelines.fleet.opening import open_ledger, open_links
from pipelines.fleet.placement.facts import Machine
from pipelines.fleet.running import locks
from pipelines.fleet.running.keeper import CONFIG, LeaseKeeper, read_engines, write_engines
from pipelines.fleet.running.locks import CONTROLLER, LEASES, is_held, take, take_controller, take_leases
from pipelines.fleet.running.service import FleetService
from tests.pipelines.fleet.simulated_server import SimulatedServer

PATIENCE_S = 60.0


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[FleetConfig, Path, SimulatedServer]]:
    config = FleetConfig.model_validate({"state": str(tmp_path / "s"), "lease": {"seconds": 60.0, "renew_s": 0.05}})
    (processes_folder(config) / CONFIG).touch()
    server = SimulatedServer(f"ipc://{tmp_path}/n1")
    yield config, tmp_path / "s", server
    server.close()


def wait_for(condition: Callable[[], object], act: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        act()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def place(config: FleetConfig, folder: Path, cameras: tuple[str, ...]) -> dict[str, int]:
    """Run a controller until the cameras run, and kill it."""
    address = f"ipc://{folder.parent}/n1"
    with take_controller(folder, SYSTEM_CLOCK), take_leases(folder, SYSTEM_CLOCK, lambda: None):
        ledger, links = open_ledger(config), open_links(config, SYSTEM_CLOCK)
        controller = Controller(ledger, links, SYSTEM_CLOCK, config.options())
        controller.configure([CameraSpec(name, {"uri": "rtsp://gate"}) for name in cameras])
        links.connect("n1", address)
        controller.join(Machine("n1", 8.0))
        write_engines(folder, {"n1": address})
        wait_for(lambda: all(c["state"] == "live" for c in controller.cameras().values()), controller.turn)
        epochs = {name: camera["epoch"] for name, camera in controller.cameras().items()}
        links.close()
        ledger.close()
    return epochs


def test_leases_go_on_while_the_controller_is_away_and_a_new_one_takes_over(
    fleet: tuple[FleetConfig, Path, SimulatedServer],
) -> None:
    config, folder, server = fleet
    epochs = place(config, folder, ("c1", "c2"))
    before = {name: server.until_ns(name) for name in epochs}
    over = threading.Event()
    keeper = threading.Thread(target=LeaseKeeper(config).run, args=[over.is_set])
    keeper.start()
    wait_for(lambda: all(server.until_ns(name) > before[name] for name in epochs))
    assert is_held(folder, LEASES)
    assert server.engine.publishing() == epochs

    ended: list[bool] = []
    with take_controller(folder, SYSTEM_CLOCK):
        then = {name: server.until_ns(name) for name in epochs}
        wait_for(lambda: all(server.until_ns(name) > then[name] for name in epochs))  # it may take long to find them
        leases = take_leases(folder, SYSTEM_CLOCK, lambda: ended.append(True))
    with take_controller(folder, SYSTEM_CLOCK), leases:
        assert not ended  # the keeper gave it back by itself
        then = {name: server.until_ns(name) for name in epochs}
        time.sleep(0.3)
        assert {name: server.until_ns(name) for name in epochs} == then, "two renew the same leases"
        (processes_folder(config) / CONFIG).unlink()
        keeper.join(PATIENCE_S)
        assert not keeper.is_alive(), "the keeper outlives its fleet"


def test_a_second_controller_is_refused_and_the_locks_of_a_dead_one_are_free(tmp_path: Path) -> None:
    with take_controller(tmp_path, SYSTEM_CLOCK):
        assert is_held(tmp_path, CONTROLLER)
        with pytest.raises(ConfigError, match="belongs to a controller that runs"):
            take_controller(tmp_path, SYSTEM_CLOCK)
    assert not is_held(tmp_path, CONTROLLER)
    take_controller(tmp_path, SYSTEM_CLOCK).close()


def test_a_keeper_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HAND_OVER_S", 0.1)
    hanging = take(tmp_path, LEASES)
    assert hanging is not None
    take_leases(tmp_path, SYSTEM_CLOCK, hanging.close).close()
    with take_leases(tmp_path, SYSTEM_CLOCK, lambda: None), pytest.raises(ConfigError, match="held by another process"):
        take_leases(tmp_path, SYSTEM_CLOCK, lambda: None)


@pytest.mark.parametrize("text", ["", "[]", "{", "7", "null"])
def test_a_list_of_engines_that_is_damaged_is_no_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "engines.json").write_text(text)
    assert read_engines(tmp_path) == {}
    assert not Path(tmp_path / "engines.part").exists()


@pytest.mark.parametrize(
    ("engines", "words"),
    [
        pytest.param({}, "waiting for the fleet's keeper", id="for the keeper"),
        pytest.param({"n1": "ipc:///none"}, "looking for engines that run already, for 15 s at most: n1", id="engines"),
    ],
)
def test_a_start_says_at_once_what_it_waits_for(tmp_path: Path, engines: dict[str, str], words: str) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    write_engines(state, engines)
    leases, said = take(state, LEASES), list[str]()
    assert leases is not None

    def say(line: str) -> None:
        said.append(line)
        if words in line:
            leases.close()

    tree = {"name": tmp_path.name, "launcher": "local", "state": str(state), "cameras": [], "nodes": [{"name": "n1"}]}
    (tmp_path / "fleet.yaml").write_text(json.dumps(tree))
    FleetService(load_fleet(str(tmp_path / "fleet.yaml")), say=say).close(leave=False)
    assert [line for line in said if words in line]
    assert str(state) in said[0]
