"""A backend without a model: a function computes the outputs. For tests and for work on the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.backends.base import TensorSpec, check_feeds
from engine.backends.slots import Slots
from engine.errors import ConfigError

Respond = Callable[[Mapping[str, NDArray[Any]]], tuple[NDArray[Any], ...]]


class FakeBackend:
    """Answers each submission with `respond(feeds)`, called when the result is taken.

    Args:
        inputs: what `submit` takes.
        outputs: what `respond` returns.
        respond: maps feeds to outputs; may raise, to test a failing model.
        depth: submissions in flight.
    """

    name = "fake"
    precision = "float32"

    def __init__(
        self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], respond: Respond, depth: int = 2
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.depth = depth
        self._respond = respond
        self._slots: Slots[int] | None = None

    def open(self) -> None:
        """Make the slots."""
        if self._slots is None:
            self._slots = Slots(range(self.depth))

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Return uninitialised memory of this shape."""
        return np.empty(tuple(shape), dtype)

    def submit(self, feeds: Mapping[str, NDArray[Any]]) -> FakePending:
        """Note the feeds."""
        if self._slots is None:
            raise ConfigError("the backend is closed: call open() first")
        check_feeds(self.inputs, feeds)
        return FakePending(self._slots, self._slots.take(), lambda: self._respond(feeds))

    def close(self) -> None:
        """Forget the slots."""
        self._slots = None


class FakePending:
    """An answer that is computed when its result is taken."""

    def __init__(self, slots: Slots[int], slot: int, answer: Callable[[], tuple[NDArray[Any], ...]]) -> None:
        self._slots = slots
        self._slot: int | None = slot
        self._answer = answer
        self._outputs: tuple[NDArray[Any], ...] | None = None

    def result(self) -> tuple[NDArray[Any], ...]:
        """Return the outputs. Raises `ConfigError` after `release`."""
        if self._slot is None:
            raise ConfigError("the result has already been released")
        if self._outputs is None:
            self._outputs = self._answer()
        return self._outputs

    def release(self) -> None:
        """Give the slot back."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._slots.give(slot)
