"""Limits the bytes that all requests together may hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from engine.clock import pause
from engine.transport.release import release_memory
from pipelines.serving.refusals import BusyError

RETRY_S = 1.0
RELEASE_BYTES = 4_000_000
RELEASE_S = 1.0


class Budget:
    """Counts the bytes held by requests. Any thread may use it.

    Args:
        most: maximum bytes for all requests together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._lock, self._releases = threading.Lock(), threading.Lock()

    @property
    def held(self) -> int:
        """Bytes currently held."""
        return self._held

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Yield the share of one request; it is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self._add(-share.held)
            if share.most >= RELEASE_BYTES:
                self._release()

    def _release(self) -> None:
        """Return the memory of large requests to the system soon: the C library keeps 50 MB for each thread."""
        if self._releases.acquire(blocking=False):
            threading.Thread(target=self._release_once, name="release memory", daemon=True).start()

    def _release_once(self) -> None:
        pause(RELEASE_S)  # for the request that is just ending, and for all of a burst at once
        self._releases.release()
        release_memory()

    def _add(self, count: int) -> None:
        with self._lock:
            if count > 0 and self._held and self._held + count > self._most:
                raise BusyError(
                    "the server holds as many bytes of requests as it may: try again", retry_after_s=RETRY_S
                )
            self._held += count


class Share:
    """The bytes held by one request."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.held = self.most = 0

    def take(self, count: int) -> None:
        """Hold more bytes.

        Raises `BusyError` if all requests together would hold too many; a single request never does.
        """
        self._budget._add(count)
        self.held += count
        self.note(self.held)

    def note(self, count: int) -> None:
        """Record that the request may have held this many bytes for a moment, even if they were not counted."""
        self.most = max(self.most, count)

    def give(self, count: int) -> None:
        """Hold fewer bytes."""
        self._budget._add(-count)
        self.held -= count
