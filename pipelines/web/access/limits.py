"""Limits of servers, and limits per client on requests and password guesses."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock

MAX_CLIENTS = 10_000

GUESSES_PER_MINUTE = 5
GUESSES_PER_HOUR = 20
MINUTE_S, HOUR_S = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits that a server sets for its clients.

    Attributes:
        connections: maximum open at the same time.
        per_client: of one client.
        head_s: how long the head of a request may take to arrive, so that slow clients cannot block connections.
        head_bytes: its largest size.
        rest_bytes: how much of an already answered body a client may still send; more closes the connection.
        idle_s: how long a connection may wait for its next request.
        stop_s: how long requests may continue once the server is ending.
        message_bytes: of one WebSocket message from a client.
    """

    connections: int = 512
    per_client: int = 128
    head_s: float = 10.0
    head_bytes: int = 64 * 1024
    rest_bytes: int = 64 * 1024 * 1024
    idle_s: float = 30.0
    stop_s: float = 5.0
    message_bytes: int = 64 * 1024


class RateLimiter:
    """A token bucket per client: `per_s` requests per second on average, `burst` at once.

    It remembers at most `MAX_CLIENTS` clients, the most recent ones, so that a flood of addresses does not use up
    memory.
    """

    def __init__(self, per_s: float, burst: float | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._per_s = per_s
        self._burst = burst if burst is not None else max(2 * per_s, 1.0)
        self._clock = clock
        self._left_at: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str) -> float:
        """Count a request, and return 0 if it is allowed, else how long to wait before the next one."""
        now = self._clock.monotonic_ns() / NS_PER_S
        left, at = self._left_at.pop(client, (self._burst, now))
        left = min(left + (now - at) * self._per_s, self._burst)
        allowed = left >= 1.0
        self._left_at[client] = (left - 1.0 if allowed else left, now)
        while len(self._left_at) > MAX_CLIENTS:
            self._left_at.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self._per_s


class FailureLimiter:
    """Slows down guessing: after some failures in a window, a key is refused until the oldest has left the window.

    Args:
        most: failures allowed in the window.
        window_s: its length.
        clock: monotonic clock.
    """

    def __init__(self, most: int = GUESSES_PER_MINUTE, window_s: float = MINUTE_S, clock: Clock = SYSTEM_CLOCK) -> None:
        self._most, self._window_s, self._clock = most, window_s, clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Return 0 if an attempt is allowed, else how long to wait."""
        failed = self._failures.get(key)
        if failed is None:
            return 0.0
        now = self._clock.monotonic_ns() / NS_PER_S
        while failed and now - failed[0] >= self._window_s:
            failed.popleft()
        return self._window_s - (now - failed[0]) if len(failed) >= self._most else 0.0

    def failed(self, key: str) -> None:
        """Count a failure."""
        failed = self._failures.setdefault(key, deque(maxlen=self._most))
        failed.append(self._clock.monotonic_ns() / NS_PER_S)
        self._failures.move_to_end(key)
        while len(self._failures) > MAX_CLIENTS:
            self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)


def retry_after(wait_s: float) -> str:
    """Return the header's value: whole seconds, at least one.

    >>> retry_after(0.02), retry_after(3.2)
    ('1', '4')
    """
    return str(max(math.ceil(wait_s), 1))
