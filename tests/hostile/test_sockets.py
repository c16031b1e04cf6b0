"""Strangers at the sockets: they cannot command a run, and take neither its memory nor its descriptors."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from engine.errors import ConfigError
from pipelines.running.control import ask
from pipelines.running.control_access import find_run
from tests.freshness.engine_process import free_port
from tests.hostile.lab import Engine, Lab, wait_until
from tests.hostile.processes import usage
from tests.hostile.raw import RawPeer, zmtp_1_frame, zmtp_frame

ATTACK_S = 4.0
MANY = 1136
TOPICS = 25_000
PEAK_MB = 100.0
SILENCE_MS = 1500
GROWTH_MB = 1.5  # between two equal rounds; one that kept what its clients left would grow by 3 MB
SHARE_BESIDE_A_FLOOD = 0.5  # on two cores, the attacker takes one and libzmq, which answers it, most of the other


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _flood(port: int, kind: bytes, data: bytes) -> int:
    """Send the same bytes, again after each refusal, for some seconds; return how often the connection was cut."""
    end, cut = time.monotonic() + ATTACK_S, 0
    while time.monotonic() < end:
        with suppress(OSError), RawPeer(port, kind) as peer:
            peer.socket.settimeout(2.0)
            while time.monotonic() < end:
                peer.send(data)
        cut += 1
    return cut


FLOODS = {
    "empty parts": b"\x01\x00" * 32_768,
    "long parts": zmtp_frame(bytes(1000), more=True) * 64,
    "pings": zmtp_frame(b"\x04PING\x00\x00", command=True) * 4096,
}


@pytest.mark.alone
@pytest.mark.parametrize("kind", [b"SUB", b"DEALER"], ids=["publish", "snapshot"])
def test_messages_without_an_end_take_no_memory(kind: bytes) -> None:
    snapshot = f"tcp://127.0.0.1:{free_port()}"
    with Lab(None, f"publish.snapshot={snapshot}") as lab:
        port = _port(lab.engine.publish if kind == b"SUB" else snapshot)
        verdict = lab.play(lambda engine: {name: _flood(port, kind, part) for name, part in FLOODS.items()})
    assert verdict.faults(share=SHARE_BESIDE_A_FLOOD) == {}, str(verdict)
    assert verdict.peak_mb - verdict.base.memory_mb < PEAK_MB
    assert min(verdict.notes.values()) > 0, verdict.notes


@pytest.mark.alone
def test_many_long_topics_take_no_memory() -> None:
    def subscribe(engine: Engine) -> int:
        sent = 0
        with suppress(OSError), RawPeer(_port(engine.publish), b"SUB") as peer:
            for number in range(TOPICS):
                peer.send(zmtp_frame(b"\x01v1/frame/%06d/" % number + os.urandom(900)))
                sent += 1
        return sent

    with Lab() as lab:
        verdict = lab.play(subscribe)
    assert verdict.faults() == {}, str(verdict)
    assert verdict.notes < TOPICS // 4


def _connections(port: int, count: int) -> list[socket.socket]:
    made: list[socket.socket] = []
    with suppress(OSError):
        while len(made) < count:
            made.append(socket.create_connection(("127.0.0.1", port), 2.0))
    return made


@pytest.mark.alone
@pytest.mark.parametrize("target", ["publish", "snapshot"])
def test_idle_connections_leave_room_for_readers_and_control(target: str) -> None:
    snapshot = f"tcp://127.0.0.1:{free_port()}"

    def crowd(engine: Engine) -> dict[str, Any]:
        idle = _connections(_port(engine.publish if target == "publish" else snapshot), MANY)
        try:
            return {"control": engine.ask({"command": "status"})["ok"], "reader": _hears(engine.publish)}
        finally:
            for each in idle:
                each.close()

    with Lab(None, f"publish.snapshot={snapshot}") as lab:
        verdict = lab.play(crowd)
    assert verdict.faults() == {}, str(verdict)
    assert verdict.notes == {"control": True, "reader": True}


def _ask_and_leave(address: str) -> None:
    """Send many requests, some of them garbage, without reading a reply, and leave."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.setsockopt(zmq.LINGER, 200)
        client.setsockopt(zmq.SNDTIMEO, 1000)
        client.connect(address)
        with suppress(zmq.Again):
            for number in range(50):
                client.send_multipart([b"", b'{"command": "status"}'] if number % 2 else [os.urandom(40)] * 3)


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", ["control", "snapshot"])
def test_clients_that_ask_much_and_leave_keep_no_memory(target: str, tmp_path: Path) -> None:
    snapshot = f"tcp://127.0.0.1:{free_port()}"

    def rounds(engine: Engine) -> list[float]:
        held = []
        for _ in range(3):
            for _ in range(100):
                _ask_and_leave(engine.control if target == "control" else snapshot)
            wait_until(lambda: engine.ask({"command": "status"})["ok"], 60.0)
            time.sleep(3.0)  # the freed memory is given back after two
            held.append(usage(engine.pid).memory_mb)
        return held

    with Lab(None, f"publish.snapshot={snapshot}") as lab:
        verdict = lab.play(rounds)
    assert verdict.faults(share=SHARE_BESIDE_A_FLOOD) == {}, str(verdict)
    _, second, third = verdict.notes
    assert third - second < GROWTH_MB, verdict.notes


def _hears(address: str) -> bool:
    with zmq.Context() as context, context.socket(zmq.SUB) as reader:
        reader.linger = 0
        reader.connect(address)
        reader.subscribe(b"v1/frame/")
        return bool(reader.poll(10_000))


class _TcpRun:
    """A run whose control socket is TCP, as configured."""

    def __init__(self) -> None:
        self.port, self.address = free_port(), ""
        self.address = f"tcp://127.0.0.1:{self.port}"
        command = [sys.executable, "-c", "from pipelines.entry import main; main()", "run", "--model", "motion"]
        command += ["--source", "cam=synthetic://?realtime=1&fps=10&width=64&height=48", "--publish", "none"]
        self.process = subprocess.Popen(
            [*command, "--control", self.address, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def status(self) -> dict[str, Any]:
        return ask(self.address, {"command": "status"}, 30.0)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def run() -> Iterator[_TcpRun]:
    with closing(_TcpRun()) as started:
        started.status()
        yield started


def _send(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 2.0) as peer:
        peer.settimeout(1.0)
        with suppress(OSError):
            peer.sendall(data)
            return peer.recv(4096)
    return b""


def _http_post(request: dict[str, Any], pad: int) -> bytes:
    """Return what a browser posts for a page of any site: a sled of short frames, then the request as ZMTP 1.0."""
    body = b"\x02" * (600 + pad) + zmtp_1_frame(b"", more=True)
    body += zmtp_1_frame(json.dumps(request).encode(), more=False) + b"\x02" * 60
    head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("pad", range(3))
def test_a_web_page_cannot_command_a_run(run: _TcpRun, pad: int) -> None:
    added = {"command": "add", "source": {"source_id": "PWNED", "uri": "synthetic://?realtime=1"}}
    for request in (added, {"command": "stop"}):
        _send(run.port, _http_post(request, pad))
    assert set(run.status()["sources"]) == {"cam"}
    assert run.process.poll() is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="GET"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), id="TLS"),
        pytest.param(b"SSH-2.0-OpenSSH_9.0\r\n" + bytes(300), id="SSH"),
        pytest.param(b"\x01\x01" * 5000, id="parts without an end"),
        pytest.param(b"\x01\x00" * 5000, id="empty parts"),
        pytest.param(bytes(range(256)) * 20, id="noise"),
    ],
)
def test_bytes_of_other_protocols_do_not_swallow_the_next_request(run: _TcpRun, data: bytes) -> None:
    _send(run.port, data)
    assert run.status()["ok"]


def test_tcp_control_answers_nothing_without_the_token(run: _TcpRun) -> None:
    assert find_run(run.address).token
    with zmq.Context() as context:
        for options in ({}, {zmq.PLAIN_USERNAME: b"framewire", zmq.PLAIN_PASSWORD: b"guess"}):
            with context.socket(zmq.REQ) as socket_:
                socket_.linger = 0
                for option, value in options.items():
                    socket_.setsockopt(option, value)
                socket_.connect(run.address)
                socket_.send(b'{"command":"stop"}')
                assert not socket_.poll(SILENCE_MS)
    assert run.status()["ok"]


def _private_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let runs of this test keep their cards separate from all others; return the runtime directory."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def test_the_card_with_the_token_is_private_and_goes_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _private_places(tmp_path, monkeypatch)
    with closing(_TcpRun()) as started:
        assert started.status()["ok"]
        (card,) = (folder / "framewire").iterdir()
        assert card.stat().st_mode & 0o777 == 0o600
        assert (folder / "framewire").stat().st_mode & 0o777 == 0o700
        started.process.send_signal(signal.SIGINT)
        _, errors = started.process.communicate(timeout=30)
    assert find_run(started.address).token == ""
    assert list((folder / "framewire").iterdir()) == [], errors


def test_control_without_an_address_is_a_private_file_that_ctl_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _private_places(tmp_path, monkeypatch)
    start = [sys.executable, "-c", "from pipelines.entry import main; main()"]
    source = "cam=synthetic://?realtime=1&fps=10&width=64&height=48"
    command = [*start, "run", "--model", "motion", "--source", source, "--publish", "none", "--control", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        found = _once_found(find_run)
        assert found.address.startswith(f"ipc://{folder}/framewire/")
        assert os.stat(found.address[len("ipc://") :]).st_mode & 0o777 == 0o600
        asked = subprocess.run([*start, "ctl", "status"], capture_output=True, text=True, timeout=60)
        assert set(json.loads(asked.stdout)["sources"]) == {"cam"}, asked.stderr
    finally:
        process.kill()
        process.communicate()


def _once_found(find: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60.0
    while True:
        try:
            return find()
        except ConfigError:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_ctl_without_a_run_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _private_places(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match="start one with --control"):
        find_run()
