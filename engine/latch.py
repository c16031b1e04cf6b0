"""A flag that a signal handler may set; threads can wait for several at once."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue

MAIN_THREAD_S = 1.0
"""Longest single wait of the main thread, on which Python runs signal handlers, between two bytecode instructions.

A signal that arrives just before a native wait does not interrupt it, so its handler would run only after that wait.
"""


class Latch:
    """A flag to wait for. Unlike `threading.Event`, `set` takes no lock.

    A signal handler may therefore set it even while it interrupts the thread that waits for it.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[SimpleQueue[None]] = []

    def is_set(self) -> bool:
        """Return whether the flag is set."""
        return self._is_set

    def set(self) -> None:
        """Set the flag and wake every thread that waits for it."""
        self._is_set = True
        for wake in tuple(self._waiting):
            wake.put(None)

    def clear(self) -> None:
        """Unset the flag."""
        self._is_set = False


def wait_for_any(*latches: Latch, timeout_s: float) -> bool:
    """Wait until one of the latches is set, and return whether one was set in time.

    An infinite `timeout_s` waits without limit.

    >>> ended, over = Latch(), Latch()
    >>> over.set()
    >>> wait_for_any(ended, over, timeout_s=5), wait_for_any(ended, timeout_s=0)
    (True, False)
    """
    wake: SimpleQueue[None] = SimpleQueue()
    for latch in latches:
        latch._waiting.append(wake)  # before checking, so that a latch set in between wakes this thread
    try:
        is_main = threading.current_thread() is threading.main_thread()
        longest_s = MAIN_THREAD_S if is_main else threading.TIMEOUT_MAX
        deadline_s = time.monotonic() + max(timeout_s, 0.0)
        while not any(latch.is_set() for latch in latches):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            with suppress(Empty):
                wake.get(timeout=min(left_s, longest_s))
                return True
        return True
    finally:
        for latch in latches:
            latch._waiting.remove(wake)
