"""Processes that talk to cameras and media servers: checks their reports, and restarts them with pauses.

They parse untrusted data, so the engine relies on neither their messages nor their lives.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any

from engine.clock import NS_PER_S, Clock

MAX_KEYS = 32
MAX_REASON_CHARS = 1000
MAX_NUMBER = 2**53


class ChildReportError(Exception):
    """A child sent something that our children never send."""


def report_from(message: bytes, states: Collection[str]) -> dict[str, Any]:
    """Return a report `{"state", "reason", counters…}`, or a log record as it is, for `take_log`.

    Raises:
        ChildReportError: the message is neither.
    """
    try:
        found = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise ChildReportError("a message that is not JSON") from error
    if not isinstance(found, dict) or len(found) > MAX_KEYS:
        raise ChildReportError("a message that is not a report")
    if "log" in found:
        return found
    counters = {name: value for name, value in found.items() if name not in ("state", "reason")}
    if found.get("state") not in states or not isinstance(found.get("reason"), str):
        raise ChildReportError("a report without a state that exists, or without its reason")
    if not all(map(_is_count, counters.values())):
        raise ChildReportError("a report with a counter that is not a number")
    reason = found["reason"][:MAX_REASON_CHARS]
    return {**found, "reason": "".join(letter if letter.isprintable() else "?" for letter in reason)}


def _is_count(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value <= MAX_NUMBER


class Restarts:
    """When to start a process again: at once after a long run, with growing pauses after short ones.

    Args:
        clock: monotonic time.
    """

    FIRST_S, LONGEST_S, STEADY_S = 0.5, 30.0, 60.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._started_ns = self._due_ns = clock.monotonic_ns()

    @property
    def is_due(self) -> bool:
        """Whether to start the process now."""
        return self._clock.monotonic_ns() >= self._due_ns

    def started(self) -> None:
        """Record that the process was started."""
        self._started_ns = self._clock.monotonic_ns()

    def ended(self) -> None:
        """Record that the process has ended."""
        now_ns = self._clock.monotonic_ns()
        self._failures = 1 if now_ns - self._started_ns > self.STEADY_S * NS_PER_S else self._failures + 1
        pause_s = self.FIRST_S * 2.0 ** min(self._failures - 2, 16) if self._failures > 1 else 0.0
        self._due_ns = now_ns + round(min(pause_s, self.LONGEST_S) * NS_PER_S)
