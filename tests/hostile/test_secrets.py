"""The password of a camera appears nowhere: not in the stream, snapshot, `ctl`, log, summary or files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import zmq

from engine.errors import ConfigError
from pipelines.running.control import ask
from tests.freshness.engine_process import free_port
from tests.preforked import Preforked

SECRET = "S3CRETx"
ADDRESSES = {
    "userpass": f"rtsp://admin:{SECRET}1@127.0.0.1:9/1",
    "srt": f"srt://127.0.0.1:9?mode=caller&passphrase={SECRET}2{SECRET}",
    "loginpas": f"http://127.0.0.1:9/videostream.cgi?loginuse=a&loginpas={SECRET}3",
    "space": f"rtsp://admin:a {SECRET}4@127.0.0.1:9/1",
    "token": f"http://127.0.0.1:9/live.m3u8?access_token={SECRET}5",
    "hash": f"rtsp://admin:x#{SECRET}6@127.0.0.1:9/1",
    "slash": f"rtsp://admin:{SECRET}7/y@127.0.0.1:9/1",
    "path": f"rtsp://127.0.0.1:9/user=admin_password={SECRET}8_channel=1_stream=0.sdp",
    "rtmp": f"rtmp://127.0.0.1:9/live/{SECRET}9",
}
COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()"]
LISTEN_S = 4.0


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Everything that one run with hostile passwords outputs, by channel."""
    folder = tmp_path_factory.mktemp("secrets")
    publish, snapshot = f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"
    control = f"ipc://{folder}/control"
    command = [*COMMAND, "-vv", "run", "--model", "motion", "--publish", publish, "--control", control, "--json"]
    command += ["--set", f"publish.snapshot={snapshot}", "--jsonl", str(folder / "lines")]
    command += ["--source", "healthy=synthetic://?realtime=1&fps=5&width=64&height=48"]
    for name, address in ADDRESSES.items():
        if name not in ("hash", "slash"):  # these are refused before a run begins; see below
            command += ["--source", f"{name}={address}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        found = {"status": json.dumps(ask(control, {"command": "status"}, 60.0)), **_read(publish, snapshot)}
        found["second add"] = _refused(control, {"uri": ADDRESSES["srt"], "source_id": "srt"})
        for name in ("hash", "slash"):
            found[f"add {name}"] = _refused(control, {"uri": ADDRESSES[name], "source_id": name})
        found["arguments of readers"] = _arguments(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        found["summary"], found["log"] = process.communicate(timeout=60)
    found["lines"] = (folder / "lines").read_text()
    return found


def _read(publish: str, snapshot: str) -> dict[str, str]:
    with zmq.Context() as context, context.socket(zmq.SUB) as reader, context.socket(zmq.REQ) as asking:
        reader.linger = asking.linger = 0
        reader.connect(publish)
        reader.subscribe(b"")
        parts, end = [], time.monotonic() + LISTEN_S
        while time.monotonic() < end:
            if reader.poll(200):
                parts += reader.recv_multipart()
        asking.connect(snapshot)
        asking.send(b"")
        assert asking.poll(20_000)
        return {"stream": b"\n".join(parts).decode(), "snapshot": asking.recv().decode()}


def _refused(control: str, source: dict[str, str]) -> str:
    try:
        return json.dumps(ask(control, {"command": "add", "source": source}, 30.0))
    except ConfigError as error:
        return str(error)


def _arguments(pid: int) -> str:
    return " ".join(" ".join(child.cmdline()) for child in psutil.Process(pid).children(recursive=True))


WAYS = [
    "status",
    "stream",
    "snapshot",
    "second add",
    "add hash",
    "add slash",
    "arguments of readers",
    "summary",
    "log",
    "lines",
]


@pytest.mark.parametrize("way", WAYS)
def test_no_password_leaves_the_process(shown: dict[str, str], way: str) -> None:
    text = shown[way]
    leaks = [text[max(place - 60, 0) : place + 40] for place in range(len(text)) if text.startswith("S3CRET", place)]
    assert leaks == []
    assert text or way == "arguments of readers"


@pytest.mark.parametrize("way", ["stream", "snapshot", "lines"])
def test_no_user_and_no_query_is_published(shown: dict[str, str], way: str) -> None:
    assert "admin" not in shown[way]
    assert "loginuse" not in shown[way]


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=list(ADDRESSES))
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["run", "{0}"], id="as a configuration"),
        pytest.param(["run", "--source", "{0}", "--publish", "tcp://127.0.0.1:99999"], id="beside another mistake"),
        pytest.param(["run", "--source", "{0}", "--nonsense"], id="beside an unknown option"),
        pytest.param(["run", "one.yaml", "{0}"], id="too many words"),
        pytest.param(["bridge", "tcp://127.0.0.1:9", "mqtt://u:{1}:x@127.0.0.1:port"], id="bridge"),
    ],
)
def test_no_mistake_on_the_command_line_quotes_a_password(preforked: Preforked, address: str, words: list[str]) -> None:
    done = preforked.run(*(word.format(address, SECRET) for word in words))
    assert done.returncode != 0
    assert done.stderr
    assert "S3CRET" not in done.stdout + done.stderr


def test_a_variable_of_the_environment_is_not_read_by_a_request(tmp_path: Path) -> None:
    control = f"ipc://{tmp_path}/control"
    command = [*COMMAND, "run", "--model", "motion", "--publish", "none", "--control", control]
    command += ["--source", "cam=synthetic://?realtime=1&fps=5&width=64&height=48"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "TOP": SECRET}
    )
    try:
        ask(control, {"command": "status"}, 60.0)
        for request in (
            {"command": "add", "source": {"uri": "/no/${TOP}.mp4"}},
            {"command": "set", "key": "detector.model", "value": "${TOP}.onnx"},
            {"command": "set", "key": "detector.${TOP}", "value": 1},
        ):
            with pytest.raises(ConfigError) as refused:
                ask(control, request, 30.0)
            assert SECRET not in str(refused.value)
    finally:
        process.kill()
        process.wait()
