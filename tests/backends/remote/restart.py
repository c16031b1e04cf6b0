"""An inference server that is killed under a run and started again: what the run loses, and how soon it is back."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.pipelines.fleet.lab import COMMAND, Reader

READY_S = 300.0
Start = Callable[[Path, int, Path], "subprocess.Popen[bytes]"]


def start_our_server(model: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start `framewire serve` with the model named `yolo`."""
    words = ["serve", "--model", f"yolo={model}", "--http", f"127.0.0.1:{port}"]
    with log.open("ab") as out:
        return subprocess.Popen([*COMMAND, *words], stdout=out, stderr=out, start_new_session=True)


@contextmanager
def serving(start: Start, model: Path, port: int, log: Path) -> Iterator[None]:
    """Let a server run until it is killed with all its children; it is ready on entry."""
    process = start(model, port, log)
    try:
        until = time.monotonic() + READY_S
        while not is_ready(port):
            assert time.monotonic() < until, log.read_text()[-2000:]
            assert process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.05)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_ready(port: int) -> bool:
    """Return whether the server has the model."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/yolo/ready", timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


def free_ports(count: int = 3) -> int:
    """Return the first of this many free consecutive ports."""
    for port in range(21000 + os.getpid() % 1000 * 7, 60000, 17):
        try:
            for offset in range(count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return port
    raise AssertionError("no free ports in a row")


def restart_under_a_run(start: Start, model: Path, away_s: float, fps: float = 5.0) -> dict[str, Any]:
    """Kill the server under a run of one camera, start it again, and return what the run lost and when it was back."""
    port = free_ports()
    with tempfile.TemporaryDirectory() as name:
        folder, stream = Path(name), f"ipc://{name}/out"
        source = f"cam=synthetic://?width=320&height=320&fps={fps:g}&realtime=1&count=1000000"
        words = ["run", "--source", source, "--model", f"kserve+http://127.0.0.1:{port}/yolo", "--json"]
        with serving(start, model, port, folder / "first.log"):
            run = subprocess.Popen(
                [*COMMAND, *words, "--set", f"publish.address={stream}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            reader = Reader(stream)
            _wait(lambda: len(reader.frames["cam"]) > 5, run)
        gone_s = time.monotonic()
        _wait(lambda: time.monotonic() > gone_s + away_s, run)
        with serving(start, model, port, folder / "second.log"):
            ready_s = time.monotonic()
            _wait(lambda: reader.last("cam").at_s > gone_s + away_s, run)
            back_s = next(seen.at_s for seen in reader.frames["cam"] if seen.at_s > gone_s + away_s) - ready_s
            run.send_signal(signal.SIGINT)
            summary = json.loads(run.communicate(timeout=READY_S)[0].splitlines()[-1])
        reader.close()
    facts = summary["sources"]["cam"]
    dropped = {cause: count for cause, count in facts["dropped"].items() if count}
    return {
        "back_s": round(max(back_s, 0.0), 2),
        "captured": facts["captured"],
        "published": facts["published"],
        "dropped": dropped,
        "unaccounted": facts["captured"] - facts["published"] - sum(dropped.values()),
    }


def _wait(condition: Callable[[], object], run: subprocess.Popen[str]) -> None:
    until = time.monotonic() + READY_S
    while not condition():
        assert run.poll() is None, "the run has ended"
        assert time.monotonic() < until
        time.sleep(0.02)


def main() -> None:
    """Print one line for `framewire serve`."""
    print(json.dumps(restart_under_a_run(start_our_server, Path(sys.argv[1]), 3.0)))


if __name__ == "__main__":
    main()
