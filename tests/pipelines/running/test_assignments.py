"""Engines of a fleet: two processes and a collecting proxy; each camera has one owner, whichever process freezes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.subscriber import Subscriber
from engine.wire import EosMessage, FrameMessage, Message, StatusMessage
from pipelines.metrics.source_cost import cpu_seconds, usable_cores
from pipelines.running.control_client import ConflictError, ask

COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()"]
CAMERA = "synthetic://?width=64&height=48&fps=10&count=1000000&objects=1&seed=1&realtime=1"
PATIENCE_S = 60.0
LEASE_S = 5.0


def until(is_so: Callable[[], Any]) -> Any:
    """Wait for a condition and return what it returned."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := is_so()):
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)
    return found


class Engine:
    """An engine that waits for assignments, and what its controller knows of it."""

    def __init__(self, name: str, folder: str) -> None:
        self.name, self.control = name, f"ipc://{folder}/{name}"
        options = [f"publish.connect=['ipc://{folder}/collect']", f"pipeline.engine_id={name}"]
        command = [*COMMAND, "run", "--model", "motion", "--control", self.control, "--json"]
        command += [part for option in options for part in ("--set", option)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.last: dict[str, Any] = {}

    def ask(self, command: str, **values: Any) -> dict[str, Any]:
        return ask(self.control, {"command": command, **values}, timeout_s=PATIENCE_S)

    def renew(self, lease_s: float = 30.0, **leases: int) -> dict[str, Any]:
        request = {"incarnation": self.last.get("incarnation"), "as_of_ns": self.last.get("engine_ns")}
        self.last = self.ask("renew", lease_s=lease_s, leases=[list(each) for each in leases.items()], **request)
        return self.last

    def assign(self, name: str, epoch: int, *, lease_s: float = 30.0, **changes: Any) -> dict[str, Any]:
        request = {"incarnation": self.last["incarnation"], "as_of_ns": self.last["engine_ns"], **changes}
        source = {"source_id": name, "uri": CAMERA, **request.pop("source", {})}
        return self.ask("assign", epoch=epoch, lease_s=lease_s, source=source, **request)

    def publishes(self, name: str) -> bool:
        return bool(self.ask("status")["sources"].get(name, {}).get("published", 0) > 3)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


class Fleet:
    """Two engines, a proxy and everything that a reader of the proxy received, with the time of its arrival."""

    def __init__(self, folder: str) -> None:
        address, collect = f"ipc://{folder}/out", f"ipc://{folder}/collect"
        command = [*COMMAND, "proxy", "--collect", collect, "--publish", address, "--json"]
        self.proxy = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.engines = [Engine(name, folder) for name in ("one", "two")]
        self.received: list[tuple[float, Message]] = []
        self._subscriber = Subscriber(address)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for message in self._subscriber:
            self.received.append((time.monotonic(), message))

    def of(self, source_id: str, kind: type[Any] = object) -> list[Any]:
        """Return the messages about a source so far."""
        return [m for _, m in list(self.received) if getattr(m, "source_id", "") == source_id and isinstance(m, kind)]

    def close(self) -> None:
        for engine in self.engines:
            engine.kill()
        self._subscriber.close()
        self.proxy.kill()
        self.proxy.communicate()


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory(prefix="fleet-", dir="/tmp") as folder:
        made = Fleet(folder)
        try:
            for engine in made.engines:
                engine.renew()
            yield made
        finally:
            made.close()


def test_a_camera_moves_when_it_has_been_released(fleet: Fleet) -> None:
    one, two = fleet.engines
    one.renew()
    assert one.assign("gate", 1)["done"] == ["added gate"]
    assert one.assign("gate", 1)["done"] == []  # the answer was lost, and the request repeated
    until(lambda: one.publishes("gate"))
    until(lambda: fleet.of("gate", FrameMessage))  # a reader may connect later than the engine
    owned = one.renew(gate=1)["owned"]["gate"]
    assert (owned["epoch"], owned["state"], owned["model"]) == (1, "live", "detector")
    assert 20 < owned["lease_left_s"] <= 30
    status = one.ask("status")
    assert status["incarnation"] == one.last["incarnation"]
    assert status["capacity"]["cpu_cores"] == usable_cores()
    assert status["sources"]["gate"]["owner_epoch"] == 1

    assert one.assign("gate", 2)["done"] == []  # a higher epoch alone does not disturb the camera
    until(lambda: fleet.of("gate", FrameMessage)[-1].owner_epoch == 2)
    reply = one.ask("release", source_id="gate", epoch=2)
    assert (reply["done"], reply["stopped"]) == (["removed gate"], True)
    assert "gate" not in one.renew()["owned"]
    until(lambda: fleet.of("gate", EosMessage))
    last = fleet.of("gate")[-1]
    assert isinstance(last, EosMessage)
    assert last.owner_epoch == 2

    two.renew()
    two.assign("gate", 3)
    until(lambda: two.publishes("gate"))
    until(lambda: fleet.of("gate", FrameMessage)[-1].engine_id == "two")
    owners = [(m.owner_epoch, m.engine_id) for m in fleet.of("gate")]
    assert owners == sorted(owners)
    assert list(dict.fromkeys(owners)) == [(1, "one"), (2, "one"), (3, "two")]
    assert [m.state for m in fleet.of("gate", StatusMessage) if m.engine_id == "two"] == ["connecting", "live"]
    two.ask("release", source_id="gate", epoch=3)


def test_what_a_controller_must_not_do_is_refused_and_changes_nothing(fleet: Fleet) -> None:
    one, _ = fleet.engines
    one.renew()
    one.assign("hall", 5)
    one.ask("add", source={"source_id": "mine", "uri": CAMERA})
    stale = one.last["engine_ns"] - 60 * 10**9
    refused: list[tuple[type[ConfigError], str, Callable[[], object]]] = [
        (ConflictError, "epoch 5", lambda: one.assign("hall", 4)),
        (ConfigError, "raise the epoch", lambda: one.assign("hall", 5, source={"max_fps": 3})),
        (ConflictError, "incarnation", lambda: one.assign("yard", 1, incarnation="other")),
        (ConflictError, "lease has run out", lambda: one.assign("yard", 1, as_of_ns=stale)),
        (ConflictError, "another engine or run", lambda: one.assign("yard", 1, as_of_ns=2**62)),
        (ConfigError, "lease_s", lambda: one.assign("yard", 1, lease_s=-1)),
        (ConfigError, "epoch is 0", lambda: one.assign("yard", 0)),
        (ConfigError, "runs here without a fleet", lambda: one.assign("mine", 1)),
        (ConfigError, "did you mean", lambda: one.assign("yard", 1, source={"uris": "x"})),
        (ConfigError, "no/such.mp4", lambda: one.assign("yard", 1, source={"uri": "/no/such.mp4"})),
        (ConflictError, "epoch 5 here", lambda: one.ask("release", source_id="hall", epoch=4)),
        (ConfigError, "use remove", lambda: one.ask("release", source_id="mine", epoch=1)),
        (ConfigError, "assigned by a fleet", lambda: one.ask("remove", source_id="hall")),
        (ConfigError, "expected a list", lambda: one.ask("renew", leases={"hall": 5})),
        (ConfigError, r"expected \[source_id", lambda: one.renew_raw([["hall"]])),  # type: ignore[attr-defined]
    ]
    one.renew_raw = lambda leases: one.ask(  # type: ignore[attr-defined]
        "renew", leases=leases, lease_s=3, incarnation=one.last["incarnation"], as_of_ns=one.last["engine_ns"]
    )
    for error, message, request in refused:
        with pytest.raises(error, match=message) as found:
            request()
        assert getattr(found.value, "epoch", None) == (5 if message.startswith("epoch 5") else None)
    reply = one.renew(hall=4, yard=1, mine=1)
    assert reply["refused"] == {
        "hall": {"why": "epoch", "epoch": 5},
        "yard": {"why": "unknown", "epoch": None},
        "mine": {"why": "unknown", "epoch": None},
    }
    assert list(reply["owned"]) == ["hall"]
    assert one.assign("yard", 1)["done"] == ["added yard"]  # a failed attempt has not used up the epoch
    for name, epoch in (("hall", 5), ("yard", 1)):
        assert one.ask("release", source_id=name, epoch=epoch)["stopped"]
        assert one.ask("release", source_id=name, epoch=epoch)["done"] == []
    assert one.ask("remove", source_id="mine")["done"] == ["removed mine"]


def test_costs_are_measured_and_add_up_to_the_process(fleet: Fleet) -> None:
    _, two = fleet.engines
    two.renew()
    began, cpu_s = time.monotonic(), _cpu_s(two.process.pid)
    for name in ("a", "b"):
        two.assign(name, 1)
    until(lambda: all(each["cpu_ms"] is not None and each["fps"] for each in two.renew(a=1, b=1)["owned"].values()))
    threading.Event().wait(4)
    costs = two.renew(a=1, b=1)["owned"].values()
    told = sum(each["cpu_ms"] * each["fps"] / 1000 for each in costs)
    used = (_cpu_s(two.process.pid) - cpu_s) / (time.monotonic() - began)
    assert 0.4 * used < told < 2.5 * used
    assert all(each["gpu_ms"] == 0 and each["infer_ms"] > 0 for each in costs)
    for name in ("a", "b"):
        two.ask("release", source_id=name, epoch=1)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_an_engine_that_was_frozen_publishes_nothing_that_it_has_lost(fleet: Fleet) -> None:
    """`fleet_freeze` for engines: SIGSTOP, the lease runs out, another owner, SIGCONT."""
    one, two = fleet.engines
    names = ("north", "south")
    one.renew()
    for name in names:
        one.assign(name, 2, lease_s=LEASE_S)
    leases = dict.fromkeys(names, 2)
    until(lambda: not one.renew(LEASE_S, **leases)["refused"] and all(fleet.of(name, FrameMessage) for name in names))
    one.process.send_signal(signal.SIGSTOP)
    try:
        threading.Event().wait(LEASE_S + 0.2)  # what the controller waits for: it cannot know more
        two.renew()
        for name in names:
            two.assign(name, 3)
        until(lambda: all(fleet.of(name, FrameMessage)[-1].owner_epoch == 3 for name in names))
    finally:
        one.process.send_signal(signal.SIGCONT)
    thawed = time.monotonic()
    until(lambda: not one.renew()["owned"])
    until(lambda: any(t > thawed + 1 and m.engine_id == "one" for t, m in list(fleet.received)))  # it lives: heartbeats
    for name in names:
        epochs = [m.owner_epoch for m in fleet.of(name)]
        assert epochs == sorted(epochs)
        late = [m for t, m in list(fleet.received) if t > thawed and m.engine_id == "one" and m in fleet.of(name)]
        assert late == []
        with pytest.raises(ConflictError, match="not higher"):
            one.assign(name, 2)
        two.ask("release", source_id=name, epoch=3)


def test_the_cpu_time_of_children_counts() -> None:
    before = cpu_seconds()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        until(lambda: cpu_seconds() - before > 0.3)
    finally:
        child.kill()
        child.wait()


def test_the_end_of_a_fleet_engine_is_a_normal_end(fleet: Fleet) -> None:
    one, _ = fleet.engines
    one.renew()
    one.assign("last", 1)
    until(lambda: one.publishes("last"))
    one.process.send_signal(signal.SIGINT)
    out, err = one.process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err
    figures = json.loads(out.splitlines()[-1])["sources"]["last"]
    assert figures["captured"] == figures["published"] + sum(figures["dropped"].values())
    until(lambda: fleet.of("last", EosMessage))
