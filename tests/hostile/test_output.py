"""A run whose output nobody reads continues, answers and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from engine.subscriber import Subscriber
from pipelines.running.control import ask
from tests.freshness.engine_process import free_port
from tests.patience import AT_ONCE_S

COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()", "run", "--model", "motion"]
SOURCE = "cam=synthetic://?realtime=1&fps=10&width=64&height=48"
SILENCE_S = 7.0  # longer than the pause between two lines of progress


def _fill(pipe: int) -> None:
    """Fill a pipe, as if its reader had stopped."""
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x" * 64)
    os.set_blocking(pipe, True)


@pytest.mark.parametrize("unread", ["stderr", "stdout", "both"])
def test_output_that_nobody_reads_holds_up_nothing(unread: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    publish, control = f"tcp://127.0.0.1:{free_port()}", f"ipc://{tmp_path}/control"
    streams = {name: writing if unread in (name, "both") else subprocess.DEVNULL for name in ("stdout", "stderr")}
    arguments = ["--source", SOURCE, "--publish", publish, "--control", control, "--json"]
    process = subprocess.Popen([*COMMAND, *arguments], **streams)  # type: ignore[call-overload]
    try:
        with Subscriber(publish, ("v1/frame/",)) as subscriber:
            assert subscriber.receive(60.0) is not None
            _fill(writing)
            end = time.monotonic() + SILENCE_S
            while time.monotonic() < end:
                assert subscriber.receive(AT_ONCE_S) is not None
        assert ask(control, {"command": "status"}, 30.0)["ok"]
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30.0) == 130
        assert time.monotonic() - begin < AT_ONCE_S
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)
