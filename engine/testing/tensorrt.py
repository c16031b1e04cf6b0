"""A plan without TensorRT: a function computes its outputs on the fake GPU, when its stream reaches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import TensorSpec
from engine.errors import ConfigError
from engine.testing.cuda import FakeCuda

Respond = Callable[[Mapping[str, NDArray[Any]]], Sequence[NDArray[Any]]]


class FakePlan:
    """A plan whose outputs a function computes; it runs on a `FakeCuda`.

    Args:
        cuda: the fake GPU that holds its tensors.
        inputs: the input tensors; an open first size is the batch.
        outputs: the output tensors.
        respond: maps inputs to outputs; called when the stream reaches it.
        max_batch: of the profile.
        min_batch: of the profile.
    """

    precision = "fp32"

    def __init__(
        self,
        cuda: FakeCuda,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        respond: Respond,
        max_batch: int = 4,
        min_batch: int = 1,
    ) -> None:
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.max_batch, self.min_batch = max_batch, min_batch
        self.open_contexts = self.warm_calls = 0
        self.is_capturable = True
        self._cuda = cuda
        self._respond = respond

    def create_context(self) -> FakeContext:
        """Return a new context."""
        self.open_contexts += 1
        return FakeContext(self, self._cuda, self._respond)

    def largest(self, spec: TensorSpec) -> tuple[int, ...]:
        """Return the shape at the largest batch."""
        return tuple(self.max_batch if size is None else size for size in spec.shape)

    def note_warm(self) -> None:
        """Count the calls."""
        self.warm_calls += 1

    def close(self) -> None:
        """Check that all contexts have been closed. Raises `ConfigError` otherwise."""
        if self.open_contexts:
            raise ConfigError(f"{self.open_contexts} contexts are still open")


class FakeContext:
    """An execution context of a `FakePlan`, which runs one inference at a time."""

    def __init__(self, plan: FakePlan, cuda: FakeCuda, respond: Respond) -> None:
        self._plan, self._cuda, self._respond = plan, cuda, respond
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def bind(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Store shapes and addresses, and return the shapes of the outputs."""
        batch = next(iter(shapes.values()))[0]
        outputs = {
            spec.name: tuple(batch if size is None else size for size in spec.shape) for spec in self._plan.outputs
        }
        self._shapes = {**shapes, **outputs}
        self._addresses = dict(addresses)
        return outputs

    def enqueue(self, stream: int) -> None:
        """Queue the function."""
        shapes, addresses = dict(self._shapes), dict(self._addresses)

        def tensor(spec: TensorSpec) -> NDArray[Any]:
            shape, dtype = shapes[spec.name], np.dtype(spec.dtype)
            size = int(np.prod(shape)) * dtype.itemsize
            return self._cuda.view(addresses[spec.name], size).view(dtype).reshape(shape)

        def infer() -> None:
            answers = self._respond({spec.name: tensor(spec).copy() for spec in self._plan.inputs})
            for spec, answer in zip(self._plan.outputs, answers, strict=True):
                tensor(spec)[...] = answer

        self._cuda.enqueue("enqueue", infer, stream)

    def is_capturable(self, stream: int) -> bool:
        """Return the plan's `is_capturable`."""
        return self._plan.is_capturable

    def close(self) -> None:
        """Decrement the plan's count of open contexts."""
        self._plan.open_contexts -= 1
