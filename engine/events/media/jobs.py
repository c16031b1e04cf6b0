"""The engine's side of the media process: one job at a time, a limit for each, and a new process after a failure."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.process import Child
from engine.process_log import current_level, take_log

logger = logging.getLogger(__name__)
MODULE = "engine.events.media.worker"
LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a job: its result, or why it failed (`error`): the process died, or did not answer in time."""

    result: Mapping[str, Any]
    error: str = ""


class MediaProcess:
    """Runs jobs in a separate process, started when first needed. Used by one thread.

    Args:
        limit_s: after this time without an answer, the process is considered hung and is killed.
        clock: time.
        network: the jobs need the network, to reach a database server.
    """

    def __init__(self, limit_s: float = LIMIT_S, clock: Clock = SYSTEM_CLOCK, *, network: bool = False) -> None:
        self._network = network
        self._limit_ns = int(limit_s * NS_PER_S)
        self._clock = clock
        self._child: Child | None = None
        self._kind = ""
        self._began_ns = 0
        self.restarts = 0

    @property
    def is_busy(self) -> bool:
        """Whether a job is running."""
        return bool(self._kind)

    @property
    def pid(self) -> int | None:
        """Process id, None while there is no process."""
        return None if self._child is None else self._child.pid

    def begin(self, kind: str, job: Mapping[str, Any]) -> None:
        """Start a job; nothing else may be running.

        Raises:
            OSError: no process can be started, or it does not take jobs.
        """
        if self._child is None:
            self._child = Child(MODULE)
            first = {"log_level": current_level(), "network": self._network}
            self._child.connection.send_bytes(json.dumps(first).encode())
        try:
            self._child.connection.send_bytes(json.dumps({kind: job}).encode())
        except OSError:
            self.close()
            self.restarts += 1
            raise
        self._kind, self._began_ns = kind, self._clock.monotonic_ns()

    def poll(self, wait_s: float = 0.0) -> Answer | None:
        """Return the answer to the running job if it arrives within `wait_s`."""
        if self._child is None or not self._kind:
            return None
        try:
            while self._child.connection.poll(wait_s):
                news = json.loads(self._child.connection.recv_bytes())
                if not take_log(news, ""):
                    kind, self._kind = self._kind, ""
                    result = news[kind]
                    return Answer(result, result.get("error", ""))
        except (EOFError, OSError):
            return self._failed("the media process died")
        if self._clock.monotonic_ns() - self._began_ns > self._limit_ns:
            return self._failed(f"the disk did not answer for {self._limit_ns / NS_PER_S:.0f} s")
        return None

    def close(self) -> None:
        """End the process; harmless when repeated."""
        child, self._child, self._kind = self._child, None, ""
        if child is not None:
            child.end(0)

    def _failed(self, reason: str) -> Answer:
        logger.warning("%s: restarting it", reason)
        self.close()
        self.restarts += 1
        return Answer({}, reason)
