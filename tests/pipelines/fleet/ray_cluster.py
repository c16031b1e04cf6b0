"""A Ray cluster of several nodes on this machine, and a node that dies with everything on it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

START_S = 300
MEMORY = 80_000_000
QUICK = {  # Ray sees the end of a node after 1.5 s; otherwise after 13
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}


@contextmanager
def ray_cluster(nodes: Sequence[str]) -> Iterator[str]:
    """Yield the address of a cluster with a node for each name."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    try:
        for number, name in enumerate(nodes):
            port = address.rpartition(":")[2]
            head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
            words = [*(head if number == 0 else [f"--address={address}"]), f"--labels=framewire={name}"]
            words += ["--num-cpus=1", f"--object-store-memory={MEMORY}", "--disable-usage-stats"]
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words]
            subprocess.run(command, check=True, timeout=START_S, env=os.environ | QUICK, stdout=subprocess.DEVNULL)
        yield address
    finally:
        kill_processes_of(str(folder))


def kill_processes_of(word: str) -> None:
    """Kill the processes in whose command line this occurs, such as the folder of a cluster."""
    for pid in _processes_of(word):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def node_processes(engine_pid: int) -> list[int]:
    """Return an engine, the worker that keeps it, and the node's own process, with all that these have started."""
    node = _parent(_parent(engine_pid))
    found = [node]
    for pid in found:
        found += [other for other in _all() if _parent(other) == pid]
    return found


def control_service(address: str) -> int:
    """Return the process of a cluster's control service (GCS)."""
    port = address.rpartition(":")[2]
    return next(pid for pid in _processes_of("gcs_server") if f"--gcs_server_port={port}" in _command(pid))


def _command(pid: int) -> str:
    return _read(f"/proc/{pid}/cmdline").replace("\0", " ")


def _processes_of(word: str) -> list[int]:
    mine = os.getpid()
    return [pid for pid in _all() if pid != mine and word in _read(f"/proc/{pid}/cmdline")]


def _all() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent(pid: int) -> int:
    words = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(words[1]) if words else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except OSError:
        return ""
