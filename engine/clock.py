"""Time: a monotonic clock for differences, a wall clock for timestamps, and a fake of both for tests.

This is the only module that sleeps.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class Clock(Protocol):
    """The clocks that the engine needs."""

    def monotonic_ns(self) -> int:
        """Return nanoseconds that never decrease; only differences are meaningful."""

    def utc_ns(self) -> int:
        """Return nanoseconds since 1970 UTC; may jump."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or `timeout_s` has passed; return whether it is set."""


class SystemClock:
    """The clocks of this machine."""

    def monotonic_ns(self) -> int:
        """Return `time.monotonic_ns()`."""
        return time.monotonic_ns()

    def utc_ns(self) -> int:
        """Return `time.time_ns()`."""
        return time.time_ns()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or `timeout_s` has passed; return whether it is set."""
        return event.wait(max(timeout_s, 0.0))


def boot_ns() -> int:
    """Return nanoseconds that never decrease and, on Linux, keep counting while the machine is suspended."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def pause(seconds: float) -> None:
    """Pause briefly, to poll things that the kernel sends no event for, such as another process's lock."""
    time.sleep(seconds)


class FakeClock:
    """A clock that moves only when `advance` is called, or when something waits on it."""

    def __init__(self, now_ns: int = 0, utc_ns: int = 1_700_000_000 * NS_PER_S) -> None:
        self._lock = threading.Lock()
        self._now_ns = now_ns
        self._utc_ns = utc_ns

    def monotonic_ns(self) -> int:
        """Return the fake monotonic time."""
        with self._lock:
            return self._now_ns

    def utc_ns(self) -> int:
        """Return the fake wall time."""
        with self._lock:
            return self._utc_ns

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        with self._lock:
            self._now_ns += int(seconds * NS_PER_S)
            self._utc_ns += int(seconds * NS_PER_S)

    def advance_to(self, now_ns: int) -> None:
        """Move both clocks forward until the monotonic one shows `now_ns`; a time in the past changes nothing."""
        with self._lock:
            passed_ns = max(now_ns - self._now_ns, 0)
            self._now_ns += passed_ns
            self._utc_ns += passed_ns

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Advance by `timeout_s` at once, unless `event` is already set; return whether it is set."""
        if not event.is_set():
            self.advance(max(timeout_s, 0.0))
        return event.is_set()


SYSTEM_CLOCK = SystemClock()
