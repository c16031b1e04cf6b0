"""Turns of tests that run in several processes: beside the others, or without them."""

from __future__ import annotations

import fcntl
from pathlib import Path


class Turns:
    """The turns of one process, on two lock files that all processes share.

    A test that runs beside others holds a shared lock, one that runs without them an exclusive one. All pass through a
    turnstile first, where the latter waits, so that tests which start later cannot keep it waiting.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._running = (folder / "running.lock").open("w")
        self._turnstile = (folder / "turnstile.lock").open("w")

    def beside_others(self) -> None:
        """Wait until no test runs alone, then start a turn beside others."""
        self._start(fcntl.LOCK_SH)

    def alone(self) -> None:
        """End the turn, wait until no other test runs, then start one alone."""
        self.end()  # first: a test in the turnstile may wait for the end of this turn
        self._start(fcntl.LOCK_EX)

    def end(self) -> None:
        """End the turn."""
        fcntl.flock(self._running, fcntl.LOCK_UN)

    def _start(self, kind: int) -> None:
        fcntl.flock(self._turnstile, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._running, kind)
        finally:
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock files."""
        self._running.close()
        self._turnstile.close()
