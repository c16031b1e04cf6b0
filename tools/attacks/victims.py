"""Processes other than an engine as victims: started, asked by a healthy client, and judged like an engine."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPException
from typing import Any

from tests.hostile.lab import CHECKOUT, HEALTHY_FPS, START_S, Lab, wait_until

COMMAND = [sys.executable, "-c", "from pipelines.entry import main; main()"]


class Victim:
    """A verb of Framewire in its own process.

    Args:
        words: verb and options.
        ready: what it writes to stderr once it listens; a number that follows at once is its port.
    """

    def __init__(self, words: Sequence[str], ready: str) -> None:
        self._ready, self.port = ready, 0
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed in `close`
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=CHECKOUT,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it is still running."""
        return self.process.poll() is None

    def errors(self) -> str:
        """Return its stderr so far."""
        self._errors.seek(0)
        return self._errors.read()

    def has_started(self) -> bool:
        """Return whether it listens; raise `AssertionError` if it has ended."""
        assert self.alive, self.errors()
        _, is_ready, after = self.errors().partition(self._ready)
        port = after[: len(after) - len(after.lstrip("0123456789"))]
        self.port = int(port or 0)
        return bool(is_ready)

    def close(self) -> None:
        """Kill what is left of it."""
        if self.alive:
            self.process.kill()
        self.process.communicate()
        self._errors.close()


class Asking:
    """Asks a victim ten times a second on its own thread, as a healthy client, and notes when that succeeds.

    Args:
        ask: returns whether the answer is good.
    """

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self.times: list[float] = []
        self._ended = threading.Event()
        self.first = threading.Event()
        self._thread = threading.Thread(target=self._run, name="healthy client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            with suppress(OSError, HTTPException):
                if self._ask():
                    self.times.append(time.monotonic())
                    self.first.set()
            due = max(due + 1 / HEALTHY_FPS, time.monotonic() - 1.0)
            self._ended.wait(max(due - time.monotonic(), 0.0))

    def share(self, start: float, end: float) -> float:
        """Return the good answers between two moments as a share of those due."""
        count = sum(start <= at < end for at in list(self.times))
        return min(count / max(HEALTHY_FPS * (end - start), 1e-9), 1.0)

    def longest_gap_s(self, start: float, end: float) -> float:
        """Return the longest wait between two good answers."""
        moments = [start, *(at for at in list(self.times) if start <= at < end), end]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()


class ProcessLab(Lab):
    """A verb under attack, with a healthy client; judged by `Lab.play`.

    Args:
        words: verb and options; it must print a summary as JSON at the end.
        ready: what it writes to stderr once it listens, just before its port.
        is_healthy: asks the port, and returns whether the answer is good.
    """

    def __init__(self, words: Sequence[str], ready: str, is_healthy: Callable[[int], bool]) -> None:
        self.engine: Any = Victim(words, ready)
        self._is_healthy = is_healthy

    def __enter__(self) -> ProcessLab:
        try:
            wait_until(self.engine.has_started, START_S)
            self._watch: Any = Asking(lambda: self._is_healthy(self.engine.port))
            assert self._watch.first.wait(START_S), f"no good answer: {self.engine.errors()}"
        except BaseException:
            self.engine.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._watch.close()
        self.engine.close()
