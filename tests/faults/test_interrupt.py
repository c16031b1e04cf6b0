"""Ctrl-C in every state of a source: the run ends in under a second, with its summary, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from engine.errors import ConfigError
from pipelines.running.control import ask
from tests.media import encode_clip, mjpeg_camera, numbered_images
from tests.patience import AT_ONCE_S

PATIENCE_S = 40.0


def nothing() -> None:
    pass


@contextmanager
def camera(state: str, folder: Path) -> Iterator[tuple[str, list[str], Callable[[], None]]]:
    """Yield address and settings of a source that reaches a state and stays in it, and what to do when it is live."""
    with ExitStack() as stack:
        if state == "connecting":
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            yield f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x", ["open_timeout_s=60"], nothing
        elif state == "offline":
            yield "rtsp://127.0.0.1:9/x", ["backoff_s=60", "backoff_max_s=60"], nothing
        elif state == "ended":
            yield str(encode_clip(folder / "short.mp4", numbered_images(5))), [], nothing
        else:
            served = stack.enter_context(mjpeg_camera(numbered_images(20), fps=25))
            yield served.url, ["stall_s=0.5", "read_timeout_s=60"], served.frozen.set


def wait_for(control: str, state: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = ask(control, {"command": "status"}, timeout_s=2.0)["sources"]["cam"]
        except (ConfigError, KeyError):
            found = {}
        if found.get("state") == state:
            return
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"not {state}: {found}"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("state", "reader"),
    [
        *((state, "process") for state in ("connecting", "live", "stalled", "offline", "ended")),
        *((state, "thread") for state in ("connecting", "live", "stalled", "offline")),
    ],
)
def test_ctrl_c_ends_a_run_at_once(state: str, reader: str, tmp_path: Path) -> None:
    control = f"ipc://{tmp_path}/control"
    with camera(state, tmp_path) as (uri, settings, freeze):
        line = [sys.executable, "-m", "pipelines", "run", "--source", f"cam={uri}", "--control", control, "--json"]
        line += ["--publish", "none", "--set", "detector.model=motion"]
        for setting in (*settings, f"reader={reader}"):
            line += ["--set", f"sources.0.{setting}"]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if state == "stalled":
            wait_for(control, "live", process)
            freeze()
        if (state, reader) == ("stalled", "thread"):
            time.sleep(1.0)  # it is stuck in a read and cannot report: there is no event to wait for
        else:
            wait_for(control, state, process)
        children = psutil.Process(process.pid).children()
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        took_s = time.monotonic() - begun
    assert process.returncode == 130, err
    assert took_s < AT_ONCE_S
    figures = json.loads(out.splitlines()[-1])["sources"]["cam"]
    assert figures["captured"] == figures["published"] + sum(figures["dropped"].values())
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive, "reader processes"
