"""Waiting between attempts to reach a camera. Imports nothing heavy."""

from __future__ import annotations

import random

from engine.video.explain import is_refusal
from engine.video.options import SourceOptions


class Backoff:
    """Computes the wait before the next attempt: it doubles, with jitter, and resets once a connection has held.

    >>> waits = Backoff(SourceOptions(backoff_s=1, backoff_max_s=4), random.Random(0))
    >>> [0.5 * limit <= waits.next_s("no answer") <= limit for limit in (1, 2, 4, 4)]
    [True, True, True, True]
    """

    def __init__(self, options: SourceOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self.attempts = 0

    def reset(self) -> None:
        """Record that the connection has held."""
        self.attempts = 0

    def next_s(self, reason: str) -> float:
        """Record a failure and return the seconds to wait."""
        limit = self._options.backoff_s * 2.0 ** min(self.attempts, 32)
        limit = min(limit, self._options.backoff_max_s)
        if is_refusal(reason):
            limit = max(limit, self._options.refused_backoff_s)
        self.attempts += 1
        return limit * self._rng.uniform(0.5, 1.0)
