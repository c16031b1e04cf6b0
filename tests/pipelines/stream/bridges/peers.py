"""Real peers for the bridges: a broker and a server started for one test."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def program(name: str, package: str) -> str:
    """Return the path of a program, or skip the test."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {package}")
    return found


def until_listening(port: int) -> None:
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        threading.Event().wait(0.01)
    raise AssertionError(f"nothing listens on port {port}")


@contextmanager
def running(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until_listening(port)
            yield process
        finally:
            process.terminate()
            process.wait(5)


def mosquitto_command(folder: Path, port: int, *, password_file: Path | None = None) -> list[str]:
    config = folder / "mosquitto.conf"
    access = f"password_file {password_file}\nallow_anonymous false" if password_file else "allow_anonymous true"
    config.write_text(f"listener {port} 127.0.0.1\n{access}\npersistence false\nuser root\n")
    return [program("mosquitto", "mosquitto"), "-c", str(config)]


def wait_for(condition: object, timeout_s: float = 10.0) -> None:
    """Wait until a callable returns true."""
    end = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.005)


def packet(kind: int, body: bytes) -> bytes:
    """Return a packet of MQTT 3.1.1."""
    size, length = len(body), b""
    while True:
        size, rest = divmod(size, 128)
        length += bytes([rest | (128 if size else 0)])
        if not size:
            return bytes([kind]) + length + body
