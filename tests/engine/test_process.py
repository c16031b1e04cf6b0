"""Messages between the engine and its child processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from engine import process
from engine.process import Child, Messages, peak_memory_mb


def test_what_a_peer_sent_last_is_read_although_it_left_messages_unread() -> None:
    """As a recorder that reports its end and exits while a second `stop` waits for it."""
    ours, theirs = (Messages(end.detach()) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    ours.send_bytes(b"stop")
    theirs.send_bytes(b"progress")
    theirs.send_bytes(b"ended")
    theirs.close()
    assert [ours.recv_bytes(), ours.recv_bytes()] == [b"progress", b"ended"]
    with pytest.raises(EOFError):
        ours.recv_bytes()
    ours.close()


def test_the_peak_memory_is_that_of_the_process_itself_and_not_of_its_parent() -> None:
    large = bytearray(200 << 20)
    assert peak_memory_mb() > 200
    program = "from engine.process import peak_memory_mb; print(peak_memory_mb())"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert float(child.stdout) < 150, "getrusage() starts a child at its parent's peak"
    del large


def test_a_killed_child_that_takes_its_time_is_kept_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process object that is thrown away earlier complains, and leaves a zombie."""
    monkeypatch.setattr(process, "KILL_WAIT_S", 0.0)
    monkeypatch.setattr(process, "_dying", [])
    child = Child("engine.backends.trial")
    pid = child.pid
    child.end(0.0)
    while process._dying:  # the test's own time limit ends it
        process._reap()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
