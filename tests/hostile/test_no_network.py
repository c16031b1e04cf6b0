"""No verb opens a connection that its configuration does not name; traced at the kernel, native code included."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from engine.assets import demo_clip, demo_model
from tests.freshness.engine_process import free_port

COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()"]
FEW = ["--set", "pipeline.max_frames=3"]
EVENTS = ["--set", "events.folder=log"]
CALL = re.compile(r"\b(connect|sendto|sendmsg|bind)\(\d+, .*?sa_family=(AF_INET6?), sin6?_port=htons\((\d{1,5})\)(.*)")
PROBES = (("bind", "::1", 0), ("bind", "127.0.0.1", 0))
"""Free ports on loopback, by which nothing is reached: urllib3 looks for IPv6, and `bench` publishes to itself."""
HOST = re.compile(r'inet_(?:addr|pton)\((?:AF_INET6, )?"([0-9a-f.:]{2,45})"')

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: apt-get install strace"
)


def _network_calls(
    folder: Path, *words: str, code: str | None = None, until: str | None = None
) -> tuple[list[tuple[str, str, int]], Path]:
    """Run a verb, or code, with an empty home folder; return what it asked the kernel to reach, and that folder.

    Args:
        folder: to run in.
        words: of the command line.
        code: Python code instead of a verb.
        until: once the trace contains this, the verb is interrupted two seconds later; None: it ends by itself.
    """
    home, trace = folder / "home", folder / "trace"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    environment |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    traced = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,bind", "-s", "60", "-o", str(trace)]
    run = COMMAND if code is None else [sys.executable, "-c", code]
    place: Any = {"cwd": folder, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*traced, *run, *words], **place) as process:
        if until is not None:
            _interrupt_after(process, trace, until)
        _, stderr = process.communicate(timeout=110)
    assert code is None or process.returncode == 0, stderr
    assert trace.stat().st_size or process.returncode is not None, stderr
    if "ptrace" in stderr and not trace.stat().st_size:
        pytest.skip("strace may not trace here: run with the capability SYS_PTRACE")
    calls = []
    for line in trace.read_text(errors="replace").splitlines():
        found = CALL.search(line)
        if found:
            host = HOST.search(found.group(4))
            call = found.group(1), host.group(1) if host else "?", int(found.group(3))
            calls += [call] if call not in PROBES else []
    return calls, home


def _interrupt_after(process: subprocess.Popen[str], trace: Path, text: str) -> None:
    """Interrupt the traced program two seconds after the trace contains a text."""
    deadline = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline:
        if trace.is_file() and text in trace.read_text(errors="replace"):
            time.sleep(2)
            break
        time.sleep(0.1)
    for child in psutil.Process(process.pid).children():
        child.send_signal(signal.SIGINT)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(2):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), np.full((96, 128, 3), 40 * number, np.uint8))
        (folder / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["demo", "--publish", "none", *FEW], id="demo"),
        pytest.param(["run", "--source", "synthetic://?count=3", "--publish", "none"], id="run"),
        pytest.param(
            ["run", "--source", "synthetic://?count=3", "--publish", "none", "--set", "detector.backend=onnxruntime"],
            id="run on ONNX Runtime",
        ),
        pytest.param(["run", "--source", "synthetic://?count=3", "--publish", "none", "--save", "x.mp4"], id="save"),
        pytest.param(["detect", "{images}/images"], id="detect"),
        pytest.param(["eval", "detect", "--model", "demo", "--images", "{images}"], id="eval detect"),
        pytest.param(["bench", "--source", "{clip}", "--max-frames", "3"], id="bench"),
        pytest.param(["inspect", "{model}"], id="inspect"),
        pytest.param(["build", "{model}"], id="build"),
        pytest.param(["check", "webcam"], id="check"),
        pytest.param(["models", "list"], id="models list"),
        pytest.param(["models", "get", "demo"], id="models get of what is here"),
        pytest.param(["doctor"], id="doctor"),
    ],
)
def test_a_verb_reaches_nothing_that_it_was_not_given(words: list[str], images: Path, tmp_path: Path) -> None:
    places = {"images": str(images), "clip": str(demo_clip()), "model": str(demo_model())}
    calls, home = _network_calls(tmp_path, *(word.format(**places) for word in words))
    assert calls == []
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    assert [name for name in files if not name.startswith(".cache/framewire/compiled/")] == []


MANY = """
import sys
from pipelines.cli import app
for words in {verbs!r}:
    try:
        app(words)
    except SystemExit as end:
        assert not end.code, words
"""


def test_verbs_that_only_read_and_write_files_reach_nothing(images: Path, tmp_path: Path) -> None:
    verbs = [
        ["init", "--source", "gate=rtsp://127.0.0.1:9/1", "--out", "c.yaml"],
        ["config", "migrate", "c.yaml"],
        ["keys", "gate"],
        ["dataset", "import", str(images), "gate.fwm", "--classes", "a"],
        ["dataset", "stats", "gate.fwm"],
        ["dataset", "check", "gate.fwm"],
        ["dataset", "split", "gate.fwm", "--train", "1", "--val", "0", "--test", "0"],
        *(["dataset", "export", "gate.fwm", "--as", form, "--out", form] for form in ("coco", "yolo", "cvat", "voc")),
        [
            "run",
            "--source",
            "synthetic://?count=3",
            "--publish",
            "none",
            "--model",
            "motion",
            "--set",
            "events.folder=log",
        ],
        ["events", "list", "--folder", "log"],
        ["service", "install", "--help"],
    ]
    calls, home = _network_calls(tmp_path, code=MANY.format(verbs=verbs))
    assert calls == []
    assert [path for path in home.rglob("*") if path.is_file() and "framewire" not in str(path)] == []


@pytest.mark.soak
@pytest.mark.parametrize("arch", ["cnn", "deimv2-femto"])
def test_training_reaches_nothing(arch: str, images: Path, tmp_path: Path) -> None:
    """Its libraries would fetch pretrained weights, look for updates, or report what they do."""
    pytest.importorskip("torch", reason='torch is missing: pip install "framewire[train]"')
    data = images
    if arch == "cnn":
        data = tmp_path / "classes"
        for split, name, number in itertools.product(("train", "val"), "ab", range(4)):
            (data / split / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(data / split / name / f"{number}.png"), np.full((32, 32, 3), 60 * number, np.uint8))
    words = ["train", str(data), "--arch", arch, "--base", "none", "--budget", "1e", "--size", "64", "--batch", "2"]
    calls, _ = _network_calls(tmp_path, *words, "--classes", "a" if arch != "cnn" else "a,b")
    assert calls == []


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["serve", "--http", "127.0.0.1:{port}"], id="serve"),
        pytest.param(["label", "gate.fwm", "--assist", "none", "--http", "127.0.0.1:{port}"], id="label"),
    ],
)
def test_a_server_binds_only_its_own_address(words: list[str], images: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason='uvicorn is missing: pip install "framewire[web]"')
    port = free_port()
    if words[0] == "label":
        subprocess.run(
            [*COMMAND, "dataset", "import", str(images / "images"), "gate.fwm", "--classes", "a"],
            check=True,
            cwd=tmp_path,
        )
    given = [word.format(port=port) for word in words]
    calls, _ = _network_calls(tmp_path, *given, until=f"htons({port})")
    assert set(calls) == {("bind", "127.0.0.1", port)}


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["demo", "--publish", "none", "--web", "127.0.0.1:{port}"], id="demo --web"),
        pytest.param(
            ["run", "--source", "synthetic://?realtime=1", "--publish", "none", "--web", "127.0.0.1:{port}"],
            id="run --web",
        ),
    ],
)
def test_a_run_with_a_page_binds_only_the_address_of_the_page(words: list[str], tmp_path: Path) -> None:
    """The page is a separate process; it reaches the run by sockets in the file system."""
    pytest.importorskip("uvicorn", reason='uvicorn is missing: pip install "framewire[web]"')
    port = free_port()
    calls, home = _network_calls(tmp_path, *(word.format(port=port) for word in words), until=f"htons({port})")
    assert set(calls) == {("bind", "127.0.0.1", port)}
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    assert [name for name in files if not name.startswith(".cache/framewire/")] == []


def test_a_page_for_a_run_reaches_only_that_run(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason='uvicorn is missing: pip install "framewire[web]"')
    port, publisher = free_port(), free_port()
    words = ["web", "--connect", f"tcp://127.0.0.1:{publisher}", "--http", f"127.0.0.1:{port}"]
    calls, _ = _network_calls(tmp_path, *words)  # no run is there, so it ends
    assert ("connect", "127.0.0.1", publisher) in calls
    assert set(calls) <= {("bind", "127.0.0.1", port), ("connect", "127.0.0.1", publisher)}


def test_health_asks_only_the_run(tmp_path: Path) -> None:
    port = free_port()
    calls, _ = _network_calls(tmp_path, "health", f"127.0.0.1:{port}", "--timeout", "0.5")
    assert {call[1:] for call in calls} == {("127.0.0.1", port)}


def test_subscribe_reaches_only_the_publisher(tmp_path: Path) -> None:
    port = free_port()
    calls, _ = _network_calls(tmp_path, "subscribe", f"tcp://127.0.0.1:{port}", "--timeout", "1")
    assert {call[1:] for call in calls} == {("127.0.0.1", port)}


def test_a_run_binds_only_what_it_was_told(tmp_path: Path) -> None:
    port = free_port()
    words = ["run", "--source", "synthetic://?count=3", "--publish", f"tcp://127.0.0.1:{port}"]
    calls, _ = _network_calls(tmp_path, *words)
    assert set(calls) == {("bind", "127.0.0.1", port)}


def test_a_camera_is_the_only_place_that_its_run_reaches(tmp_path: Path) -> None:
    port = free_port()
    words = ["run", "--source", f"rtsp://127.0.0.1:{port}/1", "--publish", "none", "--model", "motion"]
    calls, _ = _network_calls(tmp_path, *words, "--set", "sources.0.max_attempts=1")
    assert {call[1:] for call in calls} == {("127.0.0.1", port)}


def test_the_trace_would_show_a_look_up(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', 53))"
    command = ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(trace), sys.executable, "-c", code]
    subprocess.run(command, check=True, capture_output=True)
    assert CALL.search(trace.read_text())
