"""Controllers that start, fail, or cannot reach their ledger: what runs continues, and nothing is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.clock import FakeClock
from engine.errors import ConfigError
from pipelines.cli import app
from pipelines.fleet.control.book import Book
from pipelines.fleet.control.controller import Controller
from pipelines.fleet.control.facts import CameraSpec, ControllerOptions
from pipelines.fleet.ledger.records import Assignment, Change, LedgerError
from pipelines.fleet.ledger.sqlite import SqliteLedger
from pipelines.fleet.placement.facts import Limits, Machine, Need
from pipelines.fleet.running import service as service_module
from pipelines.fleet.simulation.engine import SimulatedEngine
from pipelines.fleet.simulation.network import SimulatedNetwork

OPTIONS = ControllerOptions(lease_s=4.0, renew_s=1.0, join_s=3.0)


class Unreliable(SqliteLedger):
    """A ledger that fails when a test sets it to, before or after it has made a change."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.is_away = self.is_cut_off = False
        self.calls = 0

    def _fail(self) -> None:
        self.calls += 1
        if self.is_away:
            raise LedgerError("the server is away")

    def read(self) -> dict[str, Assignment]:
        self._fail()
        return super().read()

    def change(self, changes: Sequence[Change]) -> list[bool]:
        self._fail()
        done = super().change(changes)
        if self.is_cut_off:
            raise LedgerError("no answer in time")
        return done

    def set_note(self, name: str, before: str | None, after: str | None) -> bool:
        self._fail()
        return super().set_note(name, before, after)


class Fleet:
    """Two simulated engines with two cameras under a controller."""

    def __init__(self) -> None:
        self.clock, self.ledger = FakeClock(), Unreliable()
        self.network = SimulatedNetwork(self.clock)
        self.controller = Controller(self.ledger, self.network, self.clock, OPTIONS)
        self.controller.configure([CameraSpec(name, {"uri": "rtsp://gate"}) for name in ("c1", "c2")])
        for name in ("a", "b"):
            self.network.engines[name] = SimulatedEngine(name, self.clock, f"{name}1", cpu=4.0)
            self.controller.join(Machine(name, 4.0), f"{name}1")
        self.turn(5.0)

    def turn(self, seconds: float) -> None:
        for _ in range(int(seconds / 0.25)):
            self.clock.advance(0.25)
            self.controller.turn()

    def publishing(self) -> dict[str, tuple[str, int]]:
        return {
            name: (engine_id, epoch)
            for engine_id, engine in self.network.engines.items()
            for name, epoch in engine.publishing().items()
        }


def test_nothing_stops_while_the_ledger_is_away_and_lost_cameras_come_back_with_it() -> None:
    fleet = Fleet()
    before = fleet.publishing()
    owner = before["c1"][0]
    other = "b" if owner == "a" else "a"
    if before["c2"][0] == owner:
        fleet.controller.move("c2", other)
        fleet.turn(5.0)
    kept = fleet.publishing()["c2"]
    fleet.ledger.is_away = True
    fleet.network.kill(owner)
    fleet.controller.end(owner)
    fleet.turn(60.0)
    assert fleet.publishing() == {"c2": kept}, "a lease was not renewed"
    assert fleet.ledger.calls < 200, "the ledger is asked on every turn"
    fleet.ledger.is_away = False
    fleet.turn(5.0)
    assert fleet.publishing()["c1"] == (other, before["c1"][1] + 1)
    assert fleet.publishing()["c2"] == kept


def test_the_end_of_a_second_process_says_nothing_about_the_first() -> None:
    fleet = Fleet()
    owner, epoch = fleet.publishing()["c1"]
    first, other = fleet.network.engines[owner], "b" if owner == "a" else "a"
    fleet.network.engines[owner] = SimulatedEngine(owner, fleet.clock, f"{owner}2", cpu=4.0)
    fleet.controller.join(Machine(owner, 4.0), f"{owner}2")  # the first process lives on, out of reach
    fleet.network.kill(owner)
    fleet.controller.end(owner)
    while "c1" in first.publishing():
        assert "c1" not in fleet.publishing(), "two engines publish it"
        fleet.turn(0.25)
    fleet.turn(5.0)
    assert fleet.publishing()["c1"] == (other, epoch + 1)


def test_the_end_of_the_only_process_frees_its_cameras_at_once() -> None:
    fleet = Fleet()
    owner, epoch = fleet.publishing()["c1"]
    fleet.network.kill(owner)
    fleet.controller.end(owner)
    fleet.turn(1.0)
    assert fleet.publishing()["c1"] == ("b" if owner == "a" else "a", epoch + 1)


def test_a_change_without_an_answer_is_read_again() -> None:
    """The change may have been made: the epoch that is in the ledger afterwards counts."""
    fleet = Fleet()
    owner, epoch = fleet.publishing()["c1"]
    other = "b" if owner == "a" else "a"
    fleet.controller.move("c1", other)
    fleet.ledger.is_cut_off = True
    fleet.turn(0.75)
    fleet.ledger.is_cut_off = False
    fleet.turn(10.0)
    assert fleet.publishing()["c1"] == (other, epoch + 1)
    held = fleet.ledger.read()["c1"]
    assert (held.engine_id, held.epoch) == (other, epoch + 1)


@pytest.mark.parametrize("is_known", [False, True])
def test_a_fleet_that_starts_waits_for_all_of_its_engines(is_known: bool) -> None:
    """The first engine to answer would get all cameras, also those that the ledger knows from an earlier run."""
    fleet = Fleet()
    if is_known:
        for name in ("a", "b"):
            fleet.network.kill(name)
            fleet.controller.end(name)
        fleet.turn(1.0)
    else:
        fleet.ledger = Unreliable()
        fleet.network.engines.clear()
    fleet.network.reconnect()
    options = ControllerOptions(lease_s=4.0, renew_s=1.0, join_s=20.0, limits=Limits(rule="least_loaded"))
    fleet.controller = Controller(fleet.ledger, fleet.network, fleet.clock, options)
    fleet.controller.configure([CameraSpec(name, {"uri": "rtsp://gate"}) for name in ("c1", "c2")])
    for name in ("a", "b"):
        fleet.controller.join(Machine(name, 4.0))
    fleet.network.engines["a"] = SimulatedEngine("a", fleet.clock, "a2", cpu=4.0)
    fleet.turn(8.0)
    assert fleet.publishing() == {}
    fleet.network.engines["b"] = SimulatedEngine("b", fleet.clock, "b2", cpu=4.0)
    fleet.turn(8.0)
    assert {engine_id for engine_id, _ in fleet.publishing().values()} == {"a", "b"}


def test_draining_is_not_begun_where_it_cannot_be_recorded() -> None:
    fleet = Fleet()
    fleet.ledger.is_away = True
    with pytest.raises(LedgerError):
        fleet.controller.drain("a")
    assert not fleet.controller.status()["engines"]["a"]["draining"]
    fleet.ledger.is_away = False
    fleet.controller.drain("a")
    assert fleet.controller.status()["engines"]["a"]["draining"]


def test_a_machine_that_is_drained_and_empty_costs_the_controller_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going through all cameras of a large fleet on every turn would fill a core."""
    fleet, calls = Fleet(), list[None]()
    settled = Book.settled

    def counted(self: Book, without: Collection[str] = ()) -> list[tuple[Need, str]]:
        calls.append(None)
        return settled(self, without)

    fleet.controller.drain("a")
    fleet.turn(30.0)
    assert {engine_id for engine_id, _ in fleet.publishing().values()} == {"b"}
    monkeypatch.setattr(Book, "settled", counted)
    fleet.turn(2 * OPTIONS.relieve_s)
    assert len(calls) <= 3


@pytest.mark.parametrize("leave", [False, True])
def test_a_controller_that_fails_leaves_the_engines_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, leave: bool
) -> None:
    closed: list[bool] = []

    class Service:
        def __init__(self, config: Any, say: Callable[[str], None]) -> None:
            self.config = config

        def turn(self) -> None:
            raise ConfigError("the disk is full")

        def close(self, *, leave: bool) -> None:
            closed.append(leave)

    monkeypatch.setattr(service_module, "FleetService", Service)
    file = tmp_path / "fleet.yaml"
    file.write_text("{name: x, engine: {detector: {model: motion}}}")
    run: Callable[..., Any] = CliRunner().invoke
    done = run(app, ["fleet", "up", str(file), *(["--leave"] if leave else [])])
    assert done.exit_code != 0
    assert closed == [True]
