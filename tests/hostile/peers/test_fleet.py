"""Engines, collectors and publishers that attack whoever connects to them, and a ledger that fails."""

from __future__ import annotations

import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from engine.clock import SYSTEM_CLOCK, FakeClock
from engine.errors import ConfigError
from pipelines.fleet.control.controller import DRAINING, Controller
from pipelines.fleet.control.facts import CameraSpec
from pipelines.fleet.ledger.sqlite import SqliteLedger
from pipelines.fleet.placement.facts import Machine
from pipelines.fleet.running.roll import NOTE, Roll
from pipelines.running.control_client import ask
from pipelines.running.control_links import MAX_REPLY_BYTES, Answer, ControlLinks
from pipelines.stream.proxy import Proxy
from tests.freshness.engine_process import free_port
from tests.hostile.lab import CHECKOUT, Lab
from tests.hostile.raw import GREETING, ready, zmtp_frame
from tests.patience import AT_ONCE_S

ATTACK_S = 5.0
PEAK_MB = 500.0
ENDLESS = zmtp_frame(bytes(500_000), more=True)


@contextmanager
def raw_server(kind: bytes, play: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """Serve ZMTP on a port: shake hands with each peer as a socket of `kind`, then `play`."""
    over = threading.Event()

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10)
            connection.sendall(GREETING)
            connection.recv(64)
            connection.sendall(ready(kind))
            play(connection, over)

    def accept(listener: socket.socket) -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join()


def floods(data: bytes) -> Callable[[socket.socket, threading.Event], None]:
    """Return a play: the same bytes again and again."""

    def play(connection: socket.socket, over: threading.Event) -> None:
        while not over.is_set():
            connection.sendall(data)

    return play


def peak_mb(program: str) -> float:
    """Return the most memory of a Python program, which must end well."""
    program += "\nfrom engine.process import peak_memory_mb; print(peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=110, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])


READERS = {
    "Subscriber": """
from engine.subscriber import NoMessageError, Subscriber
with Subscriber(ADDRESS) as messages:
    try:
        messages.receive(SECONDS)
    except NoMessageError:
        pass
""",
    "AsyncSubscriber": """
import asyncio
from engine.subscriber.aio import AsyncSubscriber
async def main():
    async with AsyncSubscriber(ADDRESS) as messages:
        try:
            await asyncio.wait_for(messages.receive(), SECONDS)
        except asyncio.TimeoutError:
            pass
asyncio.run(main())
""",
    "framewire proxy": """
import threading
from pipelines.stream.proxy import Proxy
proxy = Proxy([ADDRESS], "tcp://127.0.0.1:*")
threading.Timer(SECONDS, proxy.stop).start()
proxy.run()
proxy.close()
""",
}


@pytest.mark.parametrize("reader", READERS)
def test_a_publisher_whose_message_never_ends_takes_no_memory_of_its_readers(reader: str) -> None:
    with raw_server(b"XPUB", floods(ENDLESS)) as port:
        names = f"ADDRESS, SECONDS = 'tcp://127.0.0.1:{port}', {ATTACK_S}"
        assert peak_mb(f"{names}\n{READERS[reader]}") < PEAK_MB


def test_a_busy_reader_keeps_only_so_much_of_complete_messages() -> None:
    message = zmtp_frame(b"v1/frame/a/", more=True) + zmtp_frame(bytes(500_000))
    program = "import time\nfrom engine.subscriber import Subscriber\nwith Subscriber(ADDRESS): time.sleep(SECONDS)"
    with raw_server(b"XPUB", floods(message)) as port:
        assert peak_mb(f"ADDRESS, SECONDS = 'tcp://127.0.0.1:{port}', {ATTACK_S}\n{program}") < PEAK_MB


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(zmtp_frame(bytes(900), more=True) * 60, id="a message without an end"),
        pytest.param(b"".join(zmtp_frame(b"\x01v1/frame/%05d/" % n + b"x" * 900) for n in range(3000)), id="topics"),
    ],
)
def test_a_collector_takes_no_memory_of_an_engine(data: bytes) -> None:
    with raw_server(b"XSUB", floods(data)) as port, Lab(None, f"publish.connect=[tcp://127.0.0.1:{port}]") as lab:
        verdict = lab.play(lambda engine: time.sleep(ATTACK_S))
    print(verdict)
    assert not set(verdict.faults()) - {"healthy camera"}, str(verdict)
    assert verdict.peak_mb - verdict.base.memory_mb < 100


@pytest.fixture
def links() -> Iterator[ControlLinks]:
    with closing(ControlLinks(SYSTEM_CLOCK, answer_s=1.0)) as made:
        yield made


def answered(links: ControlLinks, seconds: float) -> tuple[list[Answer], int]:
    """Return the answers within some seconds, and how often waiting returned."""
    found, turns, until = list[Answer](), 0, time.monotonic() + seconds
    while time.monotonic() < until:
        found += links.receive()
        links.wait(0.05)
        turns += 1
    return found, turns


@pytest.mark.parametrize(
    "answer",
    [b"[" * 100_000, b"\xff\xfe", b"7", b"null", b'"ok"', b'{"ok":' * 50_000, b"9" * 100_000],
    ids=["deep", "no text", "number", "null", "text", "deep objects", "long number"],
)
def test_an_answer_that_is_none_is_one_of_an_engine_that_refuses(links: ControlLinks, answer: bytes) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as engine:
        port = engine.bind_to_random_port("tcp://127.0.0.1")
        links.connect("n1", f"tcp://127.0.0.1:{port}")
        links.send("n1", {"command": "renew"})
        assert engine.poll(int(AT_ONCE_S * 1000))
        who, empty, _ = engine.recv_multipart()
        engine.send_multipart([who, empty, answer])
        until = time.monotonic() + AT_ONCE_S
        found: list[Answer] = []
        while not found and time.monotonic() < until:
            found = links.receive()
            links.wait(0.05)
        assert found[0].reply == {"ok": False, "error": "the answer is not a JSON object"}


def test_answers_to_nothing_neither_pile_up_nor_keep_the_controller_busy(links: ControlLinks) -> None:
    """The messages were never read, so every wait returned at once."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as engine:
        port = engine.bind_to_random_port("tcp://127.0.0.1")
        links.connect("n1", f"tcp://127.0.0.1:{port}")
        links.send("n1", {"command": "renew"})
        assert engine.poll(int(AT_ONCE_S * 1000))
        who, empty, _ = engine.recv_multipart()
        for _ in range(500):
            engine.send_multipart([who, empty, b"{}"])
        found, turns = answered(links, 2.0)
        assert len(found) == 1
        assert turns < 200


def test_an_engine_whose_answer_never_ends_takes_no_memory_of_the_controller() -> None:
    program = f"""
import time
from engine.clock import SYSTEM_CLOCK
from pipelines.running.control_links import ControlLinks
links = ControlLinks(SYSTEM_CLOCK, answer_s=30.0)
links.connect("n1", ADDRESS)
links.send("n1", {{"command": "renew"}})
until = time.monotonic() + {ATTACK_S}
while time.monotonic() < until:
    links.receive()
    links.wait(0.05)
links.close()
"""
    with raw_server(b"ROUTER", floods(ENDLESS)) as port:
        assert peak_mb(f"ADDRESS = 'tcp://127.0.0.1:{port}'\n{program}") < 8 * MAX_REPLY_BYTES / 1e6 + 200


@pytest.mark.parametrize(
    "answer", [b"[" * 100_000, b"\xff", b"[]", b"7", b'{"ok": false, "error": {"a": "\\u001b[2J"}}'], ids=range(5)
)
def test_ctl_takes_any_answer(answer: bytes, tmp_path: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as engine:
        engine.setsockopt(zmq.LINGER, 0)
        engine.bind(f"ipc://{tmp_path}/control")

        def reply() -> None:
            if engine.poll(int(AT_ONCE_S * 1000)):
                who, empty, _ = engine.recv_multipart()
                engine.send_multipart([who, empty, answer])

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(ConfigError, match="not a reply|2J"):
            ask(f"ipc://{tmp_path}/control", {"command": "status"}, AT_ONCE_S)
        thread.join()


def test_kinds_that_an_engine_invents_are_counted_as_one() -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as engine:
        port = engine.bind_to_random_port("tcp://127.0.0.1")
        proxy = Proxy([f"tcp://127.0.0.1:{port}"], f"tcp://127.0.0.1:{free_port()}")
        proxy.open()
        thread = threading.Thread(target=proxy.run)
        thread.start()
        try:
            with context.socket(zmq.SUB) as reader:
                reader.connect(proxy.address)
                reader.setsockopt(zmq.SUBSCRIBE, b"")
                until = time.monotonic() + 60
                while not proxy.summary.messages["other"] and time.monotonic() < until:
                    for number in range(100):
                        engine.send_multipart([b"v1/%06d/x/" % number, b"{}"])
                    time.sleep(0.05)
            assert set(proxy.summary.messages) == {"other"}
        finally:
            proxy.stop()
            thread.join()
            proxy.close()


class Failing(SqliteLedger):
    """A ledger whose disk is full for a while."""

    is_full = False

    def change(self, changes: Any) -> list[bool]:
        if self.is_full:
            raise ConfigError("ledger: database or disk is full")
        return super().change(changes)


class Obedient:
    """An engine that runs whatever it is assigned."""

    def __init__(self) -> None:
        self.sent, self.owned = list[Answer](), dict[str, Any]()
        self.renewed = 0

    def send(self, engine_id: str, request: dict[str, Any]) -> None:
        if request["command"] == "assign":
            self.owned[request["source"]["source_id"]] = {"epoch": request["epoch"]}
        self.renewed += request["command"] == "renew"
        reply = {"ok": True, "engine_id": "n1", "incarnation": "i", "engine_ns": 5, "owned": dict(self.owned)}
        self.sent.append(Answer(engine_id, request, reply))

    def receive(self) -> list[Answer]:
        sent, self.sent = self.sent, []
        return sent


def test_leases_are_renewed_while_the_ledger_fails_and_nothing_is_forgotten() -> None:
    clock, engine, ledger = FakeClock(), Obedient(), Failing(":memory:")
    controller = Controller(ledger, engine, clock)
    controller.configure([CameraSpec("a", {"uri": "rtsp://gate"})])
    controller.join(Machine("n1", 8.0))

    def turns(count: int) -> None:
        for _ in range(count):
            clock.advance(1.0)
            with suppress(ConfigError):
                controller.turn()

    turns(5)
    assert set(engine.owned) == {"a"}
    ledger.is_full = True
    controller.configure([CameraSpec(name, {"uri": "rtsp://gate"}) for name in "ab"])
    engine.owned |= {"stranger": {"epoch": 7}}
    before = engine.renewed
    turns(10)
    assert engine.renewed >= before + 9
    assert "b" not in engine.owned
    ledger.is_full = False
    turns(5)
    assert {"a", "b"} <= set(engine.owned)
    assert controller.owners()["a"] == "n1"


@pytest.mark.parametrize("note", ["[" * 50_000, "7", "{", "nonsense", "inf", "-1"])
def test_notes_of_a_ledger_that_make_no_sense_are_named(note: str) -> None:
    for name in (DRAINING, "lease_s"):
        ledger = SqliteLedger(":memory:")
        ledger.set_note(name, None, note)
        if (name, note) in ((DRAINING, "inf"), ("lease_s", "7")):
            continue
        with pytest.raises(ConfigError, match=f"the note {name}"):
            Controller(ledger, Obedient(), FakeClock())
    ledger = SqliteLedger(":memory:")
    ledger.set_note(NOTE, None, note)
    with pytest.raises(ConfigError, match="the note roll"):
        Roll(ledger, lambda name: lambda request: {}, None, lambda model: None)


def _locked(path: Path) -> None:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("create table if not exists t (x)")
    holder.execute("begin exclusive")
    _HELD.append(holder)


_HELD: list[sqlite3.Connection] = []
DAMAGES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("no ledger" * 200),
    "a folder": Path.mkdir,
    "a link to nowhere": lambda path: path.symlink_to("/nowhere/ledger"),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "another version": lambda path: sqlite3.connect(path).execute("pragma user_version = 99"),
    "locked by another program": _locked,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_ledger_file_that_cannot_be_used_is_named(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.fleet.ledger.sqlite.BUSY_S", 0.2)
    path = tmp_path / "ledger.sqlite"
    DAMAGES[damage](path)
    try:
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            SqliteLedger(path)
    finally:
        while _HELD:
            _HELD.pop().close()
