"""What follows a failed inference: the run ends, or the model is loaded again, and then run by another backend."""

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
    """A detector that can go on with another backend."""

    def fall_back(self) -> bool:
        """Choose the next backend, to be loaded by the next `open`; return False where there is none."""


class Recovery:
    """Decides what follows the failures of one model.

    Args:
        policy: `stop` lets the first failure end the run; `restart` loads the model again, then goes on with another
            backend, and ends the run when neither helps.
        clock: time.
    """

    def __init__(self, policy: OnInferenceError, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._last_ns: int | None = None
        self._steps = 0
        self.error: ModelError | None = None

    def note(self, error: ModelError) -> bool:
        """Note a failure, from any thread; return whether the run goes on after it."""
        if self._policy == "stop":
            return False
        self.error = self.error or error
        return True

    def next_step(self) -> Step:
        """Return what to do about the failure: on the submitting thread, once per recovery."""
        now_ns = self._clock.monotonic_ns()
        if self._last_ns is None or now_ns - self._last_ns > RELAPSE_S * NS_PER_S:
            self._steps = 0
        steps: tuple[Step, ...] = ("restart", "fall back", "stop")
        step = steps[min(self._steps, len(steps) - 1)]
        self._steps += 1
        return step

    def done(self) -> None:
        """Note that the model runs again."""
        self.error = None
        self._last_ns = self._clock.monotonic_ns()
