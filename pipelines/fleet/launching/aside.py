"""A launcher on its own thread: what it waits for must not keep the controller from renewing leases."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from engine.clock import SYSTEM_CLOCK
from pipelines.fleet.launching.launcher import Ended, Joined, Launcher

logger = logging.getLogger(__name__)
POLL_S = 0.2
END_S = 10.0


class AsideLauncher:
    """Calls another launcher on a thread, and passes on what it reports.

    Ray's calls wait for its control service, for a minute if that is away.

    Args:
        launcher: used by no other thread from now on, until `close`.
        poll_s: time between two polls.
    """

    def __init__(self, launcher: Launcher, poll_s: float = POLL_S) -> None:
        self._launcher, self._poll_s = launcher, poll_s
        self._news: queue.SimpleQueue[Joined | Ended] = queue.SimpleQueue()
        self._due: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._left: list[Callable[[], object]] = []
        self._over = threading.Event()
        self._wanted: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._said = self._failure = ""
        self._thread = threading.Thread(target=self._run, name="launcher", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._turn()
                self._failure = ""
            except Exception as error:  # the cluster is away: engines and the controller continue
                if (failure := f"{type(error).__name__}: {error}") != self._failure:
                    logger.error("the launcher failed; trying again: %s", failure, exc_info=True)
                self._failure = failure
            SYSTEM_CLOCK.wait(self._over, self._poll_s)

    def _turn(self) -> None:
        """Collect changes from the launcher and run the waiting orders; a failed order is retried on the next turn."""
        for news in self._launcher.poll():
            self._news.put(news)
        self._left += [self._due.get() for _ in range(self._due.qsize())]
        while self._left:
            self._left[0]()
            self._left.pop(0)
        for machines in [self._wanted.get() for _ in range(self._wanted.qsize())][-1:]:
            self._said = self._launcher.want(machines)

    def poll(self) -> list[Joined | Ended]:
        """Return the changes since the last call."""
        news = list[Joined | Ended]()
        while not self._news.empty():
            news.append(self._news.get())
        return news

    def set_model(self, model: str | None) -> None:
        """Start engines with this model from now on."""
        self._due.put(lambda: self._launcher.set_model(model))

    def want(self, machines: int) -> str:
        """Request a number of machines, and return the outcome of the last request in one line.

        Repeat it now and then: a restarted cluster has forgotten the request, and the request depends on which machines
        exist.
        """
        self._wanted.put(machines)
        return self._said

    def give_back(self, engine_id: str) -> None:
        """End an engine whose machine is no longer needed."""
        self._due.put(lambda: self._launcher.give_back(engine_id))

    def close(self, *, leave: bool) -> None:
        """End all engines, or leave them running; safe to call again."""
        self._over.set()
        self._thread.join(END_S)
        self._launcher.close(leave=leave)
