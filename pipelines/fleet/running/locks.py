"""Locks of a fleet's state folder. The kernel releases them when their holder dies, and not before."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO

from engine.clock import NS_PER_S, Clock, pause
from engine.errors import ConfigError

CONTROLLER, LEASES, NEXT = "controller.lock", "leases.lock", "next.lock"
"""Of the controller, of the process that renews leases, and of a controller that waits to be that process."""
AGAIN_S = 0.02
PROBE_S, HAND_OVER_S = 0.5, 3.0


def take(folder: Path, name: str) -> IO[str] | None:
    """Return a lock as an open file, None if another process holds it; closing the file releases it."""
    file = (folder / name).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def is_held(folder: Path, name: str) -> bool:
    """Return whether a process holds a lock."""
    with (folder / name).open("a+", encoding="utf-8") as file, suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    return True


def take_controller(folder: Path, clock: Clock) -> IO[str]:
    """Return the lock of the controller. Raises `ConfigError` if another controller has it."""
    file = _waited_for(folder, CONTROLLER, clock, PROBE_S)  # the keeper may be testing it
    if file is None:
        with suppress(OSError, ValueError):
            holder = (folder / CONTROLLER).read_text(encoding="utf-8")[:20].strip()
            raise ConfigError(f"{folder} belongs to a running controller (process {holder}): stop it first")
        raise ConfigError(f"{folder} belongs to a controller that runs: stop it first")
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def take_leases(folder: Path, clock: Clock, end_keeper: Callable[[], None]) -> IO[str]:
    """Return the lock for renewing leases; a keeper that does not release it is killed. Raises `ConfigError`."""
    with _waited_for(folder, NEXT, clock, PROBE_S) or nullcontext():  # the keeper may be testing it
        file = _waited_for(folder, LEASES, clock, HAND_OVER_S)
        if file is None:
            end_keeper()
            file = _waited_for(folder, LEASES, clock, HAND_OVER_S)
    if file is None:
        raise ConfigError(
            f"{folder / LEASES} is held by another process: end the fleet's keeper (framewire fleet keep)"
        )
    return file


def _waited_for(folder: Path, name: str, clock: Clock, seconds: float) -> IO[str] | None:
    until_ns = clock.monotonic_ns() + int(seconds * NS_PER_S)
    while (file := take(folder, name)) is None and clock.monotonic_ns() < until_ns:
        pause(AGAIN_S)
    return file
