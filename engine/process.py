"""A child process of the engine with one connection; ending it never takes long.

It runs `main()` of one of our modules as a plain child with few imports, in its own session so that Ctrl-C in a
terminal reaches only the engine. It dies with the engine: see `die_with`.
"""

from __future__ import annotations

import array
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from multiprocessing.connection import wait
from typing import NamedTuple

KILL_WAIT_S = 0.3  # a process in uninterruptible I/O on a hanging disk survives even SIGKILL
MAX_MESSAGE_BYTES = 64 * 1024
_PATH = "FRAMEWIRE_SYS_PATH"
_BOOT = f"import os, sys; sys.path[:] = os.environ['{_PATH}'].split(os.pathsep); from {{module}} import main; main()"


class Messages:
    """Whole messages over a socket: each arrives at once or not at all.

    On a byte stream, half a message would keep its reader waiting for the rest, and a length prefix could claim any
    size. The child parses untrusted data, so the engine does not rely on it.

    Args:
        fd: descriptor of a connected `SOCK_SEQPACKET` socket, owned by this object from now on.
        waits: whether `send_bytes` waits for room; the engine does not, because the child may never read.
    """

    def __init__(self, fd: int, *, waits: bool = True) -> None:
        self._socket = socket.socket(fileno=fd)
        self._flags = 0 if waits else socket.MSG_DONTWAIT

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def send_bytes(self, message: bytes, fd: int | None = None) -> None:
        """Send a message, optionally with a descriptor. Raises OSError if the peer is gone or has too much unread."""
        rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self._socket.sendmsg([message], rights, self._flags)

    def recv_bytes(self) -> bytes:
        """Return the next message. Raises EOFError at the end, OSError if it is too long."""
        message, fd = self.recv_with_fd()
        if fd is not None:
            os.close(fd)
        return message

    def recv_with_fd(self) -> tuple[bytes, int | None]:
        """Return the next message and the descriptor sent with it, if any. Raises like `recv_bytes`."""
        fds = array.array("i")
        space = socket.CMSG_SPACE(fds.itemsize)
        try:
            message, rights, flags, _ = self._socket.recvmsg(MAX_MESSAGE_BYTES, space)
        except ConnectionResetError:  # the peer closed with unread messages: reported once, before its last messages
            message, rights, flags, _ = self._socket.recvmsg(MAX_MESSAGE_BYTES, space)
        for level, kind, data in rights:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        for extra in fds[1:]:
            os.close(extra)
        if not message:
            for fd in fds[:1]:
                os.close(fd)
            raise EOFError("the other side has closed the connection")
        if flags & socket.MSG_TRUNC:
            raise OSError(f"a message of more than {MAX_MESSAGE_BYTES} bytes")
        return message, fds[0] if fds else None

    def poll(self, timeout_s: float | None = 0.0) -> bool:
        """Return whether a message or the end arrives within `timeout_s` (None: wait without limit)."""
        return bool(wait([self.fileno()], timeout_s))

    def close(self) -> None:
        """Hang up; harmless when repeated."""
        self._socket.close()

    def __enter__(self) -> Messages:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class ChildFacts(NamedTuple):
    """One role of child processes of this process, for one source.

    Attributes:
        role: what the process does: `reader`, `record`, …
        name: of the source that it works for; may be empty.
        starts: how often a process was started for it.
        pids: of the running processes.
    """

    role: str
    name: str
    starts: int
    pids: tuple[int, ...]


class _Roster:
    """The running child processes, and how often each role was started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starts: Counter[tuple[str, str]] = Counter()
        self._running: dict[int, tuple[str, str]] = {}

    def add(self, pid: int, key: tuple[str, str]) -> None:
        with self._lock:
            self._starts[key] += 1
            self._running[pid] = key

    def remove(self, pid: int) -> None:
        with self._lock:
            self._running.pop(pid, None)

    def facts(self) -> list[ChildFacts]:
        with self._lock:
            running = list(self._running.items())
            starts = list(self._starts.items())
        return [ChildFacts(*key, n, tuple(pid for pid, of in running if of == key)) for key, n in starts]


_roster = _Roster()
_dying: list[subprocess.Popen[bytes]] = []
"""Killed, and not gone yet."""


def child_processes() -> list[ChildFacts]:
    """Return the child processes of this process by role and source; callable from any thread."""
    return _roster.facts()


class Child:
    """A running process; its arguments are the descriptors of the connection and the lifeline, then `fds`.

    Args:
        module: the module whose `main` it runs.
        fds: further descriptors that it inherits.
        name: of the source that it works for, for `child_processes`.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, module: str, *fds: int, name: str = "") -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._lifeline, lifeline = socket.socketpair()
        except OSError:
            here.close()
            there.close()
            raise
        passed = (there.fileno(), lifeline.fileno(), *fds)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT.format(module=module), *map(str, passed)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=passed,
                env={**os.environ, _PATH: os.pathsep.join(sys.path)},
                start_new_session=True,
            )
        except OSError:
            here.close()
            self._lifeline.close()
            raise
        finally:
            there.close()
            lifeline.close()
        self.connection = Messages(here.detach(), waits=False)
        _roster.add(self.pid, (module.rpartition(".")[2].removesuffix("_process").removesuffix("_child"), name))

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def say(self, message: bytes) -> None:
        """Send a message if the child still listens."""
        with suppress(OSError):
            self.connection.send_bytes(message)

    def end(self, grace_s: float) -> int | None:
        """Hang up, kill the child if it is still alive after `grace_s`, and return its exit code if it has one."""
        self.connection.close()
        _roster.remove(self.pid)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            try:
                self._process.wait(KILL_WAIT_S)
            except subprocess.TimeoutExpired:
                _dying.append(self._process)  # a busy machine takes its time; reaped when the next child ends
        _reap()
        self._lifeline.close()
        return self._process.returncode


def _reap() -> None:
    for process in tuple(_dying):
        if process.poll() is not None:
            with suppress(ValueError):  # another thread was faster
                _dying.remove(process)


def die_with(fd: int) -> None:
    """Let the kernel end this process, even inside a native call, when the other end of socket `fd` is closed.

    The kernel then sends SIGIO, whose default action ends the process.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process, in MB (2**20 bytes).

    On Linux it is read from `/proc`: `getrusage` starts a child at the peak of the process that started it, so it would
    report that of a large parent.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass  # no /proc: macOS, or a sandbox that hides it
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
