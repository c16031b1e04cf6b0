"""Several workers as one engine of a fleet: each source runs in one, and the engine answers for all or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.clock import SYSTEM_CLOCK
from pipelines.running.control_links import Answer, ControlLinks
from pipelines.running.control_socket import ControlSocket
from pipelines.workers import assignments as assignments_module
from pipelines.workers.assignments import WorkersAssignments
from pipelines.workers.control import WorkersControl
from tests.pipelines.fleet.simulated_server import SimulatedServer

PATIENCE_S = 60.0


class Engine:
    """An engine of two simulated workers, and a controller's link to it."""

    def __init__(self, folder: Path) -> None:
        self.workers = [SimulatedServer(f"ipc://{folder}/w{n}", f"x.{n}", f"process {n}") for n in range(2)]
        self.running = [worker.address for worker in self.workers]
        self.assignments = WorkersAssignments("x", lambda: self.running, 2)
        address = f"ipc://{folder}/control"
        self.control: ControlSocket = WorkersControl(
            address, lambda: self.running, lambda: None, assignments=self.assignments
        )
        self.links = ControlLinks(SYSTEM_CLOCK, 0.5)
        self.links.connect("x", address)
        self.known: dict[str, Any] = {}

    def ask_all(self, *requests: dict[str, Any]) -> list[dict[str, Any] | None]:
        for request in requests:
            self.links.send("x", request)
        found: list[Answer] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(found) < len(requests):
            self.control.poll()
            self.links.wait(0.005)
            found += self.links.receive()
            assert time.monotonic() < deadline
        for answer in found:
            if answer.reply is not None and answer.reply["ok"]:
                facts = answer.reply
                self.known = {"incarnation": facts["incarnation"], "as_of_ns": facts["engine_ns"], "lease_s": 60.0}
                assert facts["engine_id"] == "x"
        return [next(a.reply for a in found if a.request is request) for request in requests]

    def ask(self, command: str, **values: Any) -> dict[str, Any] | None:
        return self.ask_all({"command": command, **values})[0]

    def assigned(self, epoch: int, *names: str) -> list[dict[str, Any] | None]:
        sources = [{"source_id": name, "uri": "rtsp://gate"} for name in names]
        return self.ask_all(*({"command": "assign", "source": each, "epoch": epoch, **self.known} for each in sources))

    def publishing(self) -> list[dict[str, int]]:
        return [worker.engine.publishing() for worker in self.workers]

    def close(self) -> None:
        self.links.close()
        self.control.close()
        for worker in self.workers:
            worker.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    made.ask("renew", leases=[])
    yield made
    made.close()


def ok(reply: dict[str, Any] | None) -> dict[str, Any]:
    assert reply is not None
    assert reply["ok"], reply
    return reply


NAMES = tuple(f"c{n}" for n in range(20))


def test_sources_are_shared_out_evenly_and_renewed_in_their_workers(engine: Engine) -> None:
    for reply in engine.assigned(1, *NAMES):
        ok(reply)
    assert [len(part) for part in engine.publishing()] == [10, 10]
    assert not engine.publishing()[0].keys() & engine.publishing()[1].keys()
    found = ok(engine.ask("renew", leases=[[name, 1] for name in (*NAMES, "other")], **engine.known))
    assert set(found["owned"]) == set(NAMES)
    assert found["refused"] == {"other": {"why": "unknown", "epoch": None}}


def test_a_source_stays_in_its_worker_under_a_higher_epoch(engine: Engine) -> None:
    engine.assigned(1, "a", "b", "c")
    before = engine.publishing()
    for reply in engine.assigned(2, "a", "b", "c"):
        ok(reply)
    assert [part.keys() for part in engine.publishing()] == [part.keys() for part in before]
    assert {epoch for part in engine.publishing() for epoch in part.values()} == {2}


def test_no_earlier_epoch_comes_back_in_another_worker(engine: Engine) -> None:
    engine.assigned(3, "a", "b")
    ok(engine.ask("release", source_id="a", epoch=3, incarnation=engine.known["incarnation"]))
    [late] = engine.assigned(3, "a")
    assert late is not None
    assert (late["ok"], late["conflict"], late["epoch"]) == (False, True, 3)
    assert sum("a" in part for part in engine.publishing()) == 0
    ok(engine.ask("release", source_id="never", epoch=9, incarnation=engine.known["incarnation"]))
    [late] = engine.assigned(9, "never")
    assert late is not None
    assert (late.get("conflict"), late.get("epoch")) == (True, 9)
    ok(engine.assigned(4, "a")[0])
    assert sum("a" in part for part in engine.publishing()) == 1


def test_an_engine_with_a_silent_worker_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the engine answered for the others alone, the fleet would believe the silent worker's sources stopped."""
    monkeypatch.setattr(assignments_module, "ANSWER_S", 0.1)
    engine = Engine(tmp_path)
    try:
        while engine.ask("renew", leases=[]) is None:
            pass
        while not all(engine.assigned(1, "a", "b")):
            pass
        assert [len(part) for part in engine.publishing()] == [1, 1]
        engine.workers[1].freeze()
        assert engine.ask("renew", leases=[], **engine.known) is None
        engine.workers[1].thaw()
        while (found := engine.ask("renew", leases=[])) is None:
            pass
        assert set(found["owned"]) == {"a", "b"}
    finally:
        engine.close()


def test_an_engine_whose_workers_do_not_run_yet_takes_no_source(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    try:
        engine.running = engine.running[:1]
        reply = engine.ask("renew", leases=[])
        assert reply is not None
        assert "1 of 2 workers are not running yet" in reply["error"]
    finally:
        engine.close()


def test_requests_for_an_earlier_process_are_refused(engine: Engine) -> None:
    engine.known["incarnation"] = "an earlier one"
    [reply] = engine.assigned(1, "a")
    assert reply is not None
    assert reply["conflict"]
    assert "incarnation" in reply["error"]
    assert json.dumps(engine.publishing()) == "[{}, {}]"
