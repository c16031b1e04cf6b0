"""How many requests may be under way: fewer when answers are late, because requests queue at the server."""

from __future__ import annotations

import threading

SHRINK = 0.5


class Window:
    """A number of requests under way that halves with a late answer and grows with those in time, as TCP's does.

    With more requests than a slow server answers in time, every one of them would be late, and none would ever count.

    Args:
        most: requests under way at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = float(most)
        self._inside = 0
        self._changed = threading.Condition()

    @property
    def size(self) -> int:
        """Requests that may be under way now."""
        return max(int(self._size), 1)

    def enter(self, timeout_s: float) -> None:
        """Wait until another request may be sent, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside < self.size, timeout_s)
            self._inside += 1

    def leave(self) -> None:
        """Tell that a request is over."""
        with self._changed:
            self._inside -= 1
            self._changed.notify()

    def late(self) -> None:
        """Tell that an answer did not come in time."""
        with self._changed:
            self._size = max(self._size * SHRINK, 1.0)

    def in_time(self) -> None:
        """Tell that an answer came in time."""
        with self._changed:
            self._size = min(self._size + 1.0 / self._size, float(self._most))
            self._changed.notify()
