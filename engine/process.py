"""A child process of the engine: one connection, and an end that is never waited for long.

It runs `main()` of one module of ours, as a plain child with few imports, in a session of its own, so that Ctrl-C on a
terminal is the engine's affair. It dies with the engine: see `die_with`.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

KILL_WAIT_S = 0.3  # a process inside a disk that hangs does not even end when it is killed
_PATH = "FRAMEWIRE_SYS_PATH"
_BOOT = f"import os, sys; sys.path[:] = os.environ['{_PATH}'].split(os.pathsep); from {{module}} import main; main()"


class Child:
    """A running process; its arguments are the descriptors of the connection, of the lifeline, and `fds`.

    Args:
        module: whose `main` is run.
        fds: further descriptors that it inherits.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, module: str, *fds: int) -> None:
        here, there = socket.socketpair()
        self._lifeline, lifeline = socket.socketpair()
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
        self.connection = Connection(here.detach())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def say(self, message: bytes) -> None:
        """Send a message, if it still listens."""
        with suppress(OSError):
            self.connection.send_bytes(message)

    def end(self, grace_s: float) -> int | None:
        """Hang up, kill it when it is still there after `grace_s`, and return its exit code where it has one."""
        self.connection.close()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_WAIT_S)
        self._lifeline.close()
        return self._process.returncode


def die_with(fd: int) -> None:
    """Let the kernel end this process, even inside a native call, when the other end of socket `fd` is closed.

    The kernel signals SIGIO then, whose default is to end the process.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
