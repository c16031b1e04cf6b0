"""Limits the requests in flight: fewer when answers are late, because requests queue at the server."""

from __future__ import annotations

import threading

SHRINK = 0.5


class Window:
    """A limit on requests in flight that halves on a late answer and grows with timely ones, as TCP's does.

    With more requests than a slow server can answer in time, every answer would be late and none would count.

    Args:
        most: maximum number of requests in flight.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = float(most)
        self._inside = 0
        self._changed = threading.Condition()

    @property
    def size(self) -> int:
        """Requests that may be in flight now."""
        return max(int(self._size), 1)

    def enter(self, timeout_s: float) -> None:
        """Wait, up to a timeout, until another request may be sent."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside < self.size, timeout_s)
            self._inside += 1

    def leave(self) -> None:
        """Record that a request is over."""
        with self._changed:
            self._inside -= 1
            self._changed.notify()

    def late(self) -> None:
        """Record that an answer did not arrive in time."""
        with self._changed:
            self._size = max(self._size * SHRINK, 1.0)

    def in_time(self) -> None:
        """Record that an answer arrived in time."""
        with self._changed:
            self._size = min(self._size + 1.0 / self._size, float(self._most))
            self._changed.notify()
