"""Recovery from a failed inference: end the run, or reload the model and then try another backend."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from engine.clock import NS_PER_S, Clock
from engine.errors import ModelError

OnInferenceError = Literal["stop", "restart"]
Step = Literal["restart", "fall back", "stop"]
RELAPSE_S = 60.0
"""A failure this soon after the last recovery means that it did not help."""

CAUSE = "detector"
"""Frames whose inference failed are dropped under this cause."""


@runtime_checkable
class FallsBack(Protocol):
    """A detector that can switch to another backend."""

    def fall_back(self) -> bool:
        """Choose the next backend, which the next `open` loads; return False if there is none."""


class Recovery:
    """Decides how to recover from the failures of one model.

    Args:
        policy: `stop` ends the run at the first failure; `restart` reloads the model, then switches to another
            backend, and ends the run if neither helps.
        clock: time.
    """

    def __init__(self, policy: OnInferenceError, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._last_ns: int | None = None
        self._steps = 0
        self.error: ModelError | None = None

    def note(self, error: ModelError) -> bool:
        """Record a failure, from any thread; return whether the run continues."""
        if self._policy == "stop":
            return False
        self.error = self.error or error
        return True

    def next_step(self) -> Step:
        """Return the next recovery step; called on the submitting thread, once per recovery."""
        now_ns = self._clock.monotonic_ns()
        if self._last_ns is None or now_ns - self._last_ns > RELAPSE_S * NS_PER_S:
            self._steps = 0
        steps: tuple[Step, ...] = ("restart", "fall back", "stop")
        step = steps[min(self._steps, len(steps) - 1)]
        self._steps += 1
        return step

    def done(self) -> None:
        """Record that the model runs again."""
        self.error = None
        self._last_ns = self._clock.monotonic_ns()
