"""Changing a run in progress: by the control socket and by editing the file."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from typer.testing import CliRunner

from engine.errors import ConfigError
from engine.transport.keys import load_key_pair, make_keys
from engine.transport.zap import token_options
from pipelines.cli import app
from pipelines.running.control import ask
from pipelines.running.control_access import find_run
from pipelines.running.control_socket import check_reach
from tests.freshness.engine_process import free_port as unused_port

COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()"]
CAMERA = "synthetic://?width=64&height=48&fps=5&count=1000000&objects=1&seed=1&realtime=1"
PATIENCE_S = 30.0


class Engine:
    def __init__(self, *arguments: str, control: str) -> None:
        self.control = control
        command = [*COMMAND, "run", *arguments, "--publish", "none", "--control", control, "--json"]
        command += ["--overflow", "block", "--set", "pipeline.max_age_ms=null"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ask(self, command: str, **values: Any) -> dict[str, Any]:
        return ask(self.control, {"command": command, **values}, timeout_s=PATIENCE_S)

    def connect(self, socket: zmq.Socket[bytes]) -> None:
        """Connect as a client of this user, but with a socket that takes any bytes."""
        for option, value in token_options(find_run(self.control).token).items():
            socket.setsockopt(option, value)
        socket.linger, socket.rcvtimeo = 0, int(PATIENCE_S * 1000)
        socket.connect(self.control)

    def wait_until_live(self, *names: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            sources = self.ask("status")["sources"]
            if all(name in sources and sources[name]["published"] > 3 for name in names):
                return sources
            assert time.monotonic() < deadline, sources
            threading.Event().wait(0.05)

    def end(self) -> dict[str, Any]:
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in err, err
        summary: dict[str, Any] = json.loads(out.splitlines()[-1])
        for figures in summary["sources"].values():
            assert figures["captured"] == figures["published"] + sum(figures["dropped"].values())
        return summary


@contextmanager
def running_engine() -> Iterator[Engine]:
    engine = Engine("--source", f"steady={CAMERA}", control=f"tcp://127.0.0.1:{unused_port()}")
    try:
        yield engine
    finally:
        engine.process.kill()
        engine.process.communicate()


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def unchanged() -> Iterator[Engine]:
    """One engine for all tests whose requests change nothing."""
    with running_engine() as engine:
        engine.wait_until_live("steady")
        yield engine
        assert engine.end()["sources"]["steady"]["published"] > 3


def test_cameras_thresholds_and_model_change_without_a_restart(engine: Engine, data_dir: Path) -> None:
    engine.wait_until_live("steady")
    engine.ask("add", source={"source_id": "guest", "uri": CAMERA})
    engine.wait_until_live("guest")
    assert engine.ask("set", key="detector.score_threshold", value=0.6)["done"] == ["score_threshold is 0.6"]
    engine.ask("set", key="detector.classes", value=["person"])
    other = str(data_dir / "models" / "yolo11n_int8_320.onnx")
    engine.ask("set", key="detector.model", value=other)
    deadline = time.monotonic() + PATIENCE_S
    while engine.ask("status")["model"] != "yolo11n_int8_320.onnx":  # loaded in the background, then swapped in
        assert time.monotonic() < deadline
    while (status := engine.ask("status"))["loading"]:
        assert time.monotonic() < deadline
    assert status["files"] == {"detector": other}
    engine.ask("set", key="models.second", value={"model": other})
    assert engine.ask("set", source_id="guest", key="model", value="second")["done"]
    while (status := engine.ask("status"))["sources"]["guest"]["model"] != "second":
        assert time.monotonic() < deadline
    assert status["files"] == {"detector": other, "second": other}
    assert status["sources"]["steady"]["model"] == "detector"
    engine.ask("pause", source_id="guest")
    engine.ask("resume", source_id="guest")
    assert engine.ask("remove", source_id="guest")["done"] == ["removed guest"]
    summary = engine.end()
    assert set(summary["sources"]) == {"steady", "guest"}
    assert summary["model"] == "yolo11n_int8_320.onnx"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        pytest.param({"command": "dance"}, "unknown command 'dance'; expected one of: status", id="unknown command"),
        pytest.param({"command": "remove", "source_id": "yard"}, "there is no source yard", id="unknown source"),
        pytest.param({"command": "pause"}, "pause needs source_id", id="missing argument"),
        pytest.param({"command": "add", "source": {"uri": "/no/such.mp4"}}, "no/such.mp4", id="missing file"),
        pytest.param({"command": "add", "source": {"uri": "0", "loops": 1}}, "did you mean loop", id="unknown key"),
        pytest.param({"command": "add", "source": {"uri": "0", "source_id": {}}}, "source_id", id="a table as a name"),
        pytest.param(
            {"command": "set", "key": "detector.model", "value": "x" * 5000}, "File name too long", id="long model name"
        ),
        pytest.param({"command": "add", "source": {"uri": "9" * 400}}, "such a long name", id="long camera number"),
        pytest.param({"command": "set", "key": "sources", "value": 5}, "sources", id="a number as sources"),
        pytest.param(
            {"command": "set", "key": "sources", "value": [{"source_id": []}]}, "sources", id="a list as name"
        ),
        pytest.param(
            {"command": "set", "key": "detector.model", "value": "none.onnx"}, "none.onnx", id="missing model"
        ),
        pytest.param(
            {"command": "set", "key": "detector.score_threshold", "value": 3}, "less than or equal", id="bounds"
        ),
        pytest.param(
            {"command": "set", "key": "publish.address", "value": "ipc://x"}, "publish cannot change", id="fixed"
        ),
        pytest.param(
            {"command": "set", "source_id": "none", "key": "model", "value": None}, "no source none", id="no source"
        ),
        pytest.param({"command": "set", "source_id": 1, "key": "model"}, "needs source_id, a str", id="no name"),
    ],
)
def test_impossible_changes_are_refused_and_change_nothing(
    unchanged: Engine, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ask(unchanged.control, request_, timeout_s=PATIENCE_S)
    assert unchanged.process.poll() is None


def test_garbage_on_the_control_socket_is_answered_with_an_error(unchanged: Engine) -> None:
    rng = random.Random(7)
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        unchanged.connect(socket)
        for body in [
            b"",
            b"[]",
            b"null",
            b"{" * 5000,
            b'"x"',
            *(rng.randbytes(rng.randint(1, 300)) for _ in range(30)),
        ]:
            socket.send(body)
            assert json.loads(socket.recv())["ok"] is False
    assert set(unchanged.ask("status")["sources"]) == {"steady"}


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        pytest.param(zmq.REQ, [b'{"command":"status"}', b"x"], id="two parts"),
        pytest.param(zmq.REQ, [b"x"] * 50, id="fifty parts"),
        pytest.param(zmq.DEALER, [b'{"command":"status"}'], id="no delimiter"),
        pytest.param(zmq.DEALER, [b""], id="delimiter alone"),
    ],
)
def test_malformed_messages_are_refused_and_the_run_goes_on(unchanged: Engine, kind: int, parts: list[bytes]) -> None:
    with zmq.Context() as context, context.socket(kind) as socket:
        unchanged.connect(socket)
        socket.send_multipart(parts)
        assert "one part" in json.loads(socket.recv_multipart()[-1])["error"]
    assert unchanged.ask("status")["ok"]


def test_client_that_never_reads_does_not_stop_the_run(engine: Engine) -> None:
    engine.wait_until_live("steady")
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.rcvhwm = 1
        engine.connect(socket)
        for _ in range(500):
            socket.send_multipart([b"", b'{"command":"status"}'])
        assert engine.ask("status")["ok"]
    assert engine.ask("status")["ok"]


def test_hundred_random_changes_leave_the_untouched_camera_alone(engine: Engine) -> None:
    engine.wait_until_live("steady")
    rng = random.Random(3)
    present: set[str] = set()
    threads_before = _threads(engine.process.pid)
    for _ in range(100):
        name = f"guest{rng.randint(0, 2)}"
        if name not in present:
            engine.ask("add", source={"source_id": name, "uri": CAMERA})
            present.add(name)
        elif rng.random() < 0.5:
            engine.ask(rng.choice(["pause", "resume"]), source_id=name)
        else:
            engine.ask("remove", source_id=name)
            present.remove(name)
    for name in present:
        engine.ask("remove", source_id=name)
    assert _threads(engine.process.pid) <= threads_before + 2
    steady = engine.end()["sources"]["steady"]
    assert set(steady["dropped"]) <= {"shutdown"}, "the others may slow the shared detector, but take no frame away"
    assert steady["reconnects"] == 0


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_edited_file_is_applied_and_a_bad_edit_changes_nothing(tmp_path: Path, free_port: int) -> None:
    file = tmp_path / "cameras.yaml"

    def write(*names: str, more: str = "") -> None:
        rows = "".join(f"  - {{source_id: {name}, uri: '{CAMERA}'}}\n" for name in names)
        file.write_text(f"sources:\n{rows}control: {{watch: true}}\n{more}")

    write("steady")
    engine = Engine(str(file), control=f"tcp://127.0.0.1:{free_port}")
    try:
        engine.wait_until_live("steady")
        write("steady", "guest")
        engine.wait_until_live("steady", "guest")
        write("steady", more="detectors: {}\n")
        threading.Event().wait(0.5)
        assert engine.ask("status")["sources"]["guest"]["state"] == "live"
        write("steady", more="detector: {score_threshold: 0.7}\n")
        deadline = time.monotonic() + PATIENCE_S
        while engine.ask("status")["sources"]["guest"]["state"] != "ended":
            assert time.monotonic() < deadline
        assert engine.ask("status")["detector"]["score_threshold"] == 0.7
        engine.end()
    finally:
        engine.process.kill()
        engine.process.communicate()


@pytest.mark.parametrize("address", ["tcp://*:5556", "tcp://0.0.0.0:5556", "tcp://192.0.2.1:5556", "inproc://x"])
def test_control_is_refused_to_other_machines(address: str) -> None:
    with pytest.raises(ConfigError, match="open to other machines"):
        check_reach(address)


def test_asking_where_nobody_runs_says_so(free_port: int) -> None:
    with pytest.raises(ConfigError, match="no answer from"):
        ask(f"tcp://127.0.0.1:{free_port}", {"command": "status"}, timeout_s=0.2)


@pytest.mark.parametrize("value", ["[person", "!!binary aGk=", "&a [*a]", "\x00"])
def test_value_that_cannot_be_sent_is_refused_before_it_is(value: str) -> None:
    done = CliRunner().invoke(app, ["ctl", "set", "detector.classes", value, "--address", "none"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith("set detector.classes: the value")


def test_with_curve_only_listed_keys_control_a_run(free_port: int, tmp_path: Path) -> None:
    gate, listed, stranger = (load_key_pair(make_keys(tmp_path, name)[1]) for name in ("gate", "listed", "stranger"))
    settings = [f"control.keys={tmp_path}/gate.key_secret", f"control.allowed_keys=[{tmp_path}/listed.key]"]
    options = [part for setting in settings for part in ("--set", setting)]
    bound, address = f"tcp://*:{free_port}", f"tcp://127.0.0.1:{free_port}"
    engine = Engine("--source", f"steady={CAMERA}", *options, control=bound)
    status = {"command": "status"}
    try:
        known = ask(address, status, PATIENCE_S, server_key=gate.public, keys=listed)
        assert "steady" in known["sources"]
        for keys in ({}, {"server_key": gate.public}, {"server_key": gate.public, "keys": stranger}):
            with pytest.raises(ConfigError, match="no answer"):
                ask(address, status, 1.0, **keys)
        assert ask(address, {"command": "stop"}, PATIENCE_S, server_key=gate.public, keys=listed)["ok"]
        engine.process.communicate(timeout=PATIENCE_S)
        assert engine.process.returncode == 0
    finally:
        engine.process.kill()
        engine.process.communicate()


def test_keys_of_others_need_a_key_of_the_run(tmp_path: Path) -> None:
    make_keys(tmp_path, "listed")
    command = [*COMMAND, "run", "--source", CAMERA, "--publish", "none", "--control", "tcp://*:0"]
    done = subprocess.run(
        [*command, "--set", f"control.allowed_keys=[{tmp_path}/listed.key]"],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 2
    assert "open to other machines" in done.stderr
