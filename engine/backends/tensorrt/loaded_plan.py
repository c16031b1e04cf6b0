"""A loaded plan and its execution contexts. All calls to TensorRT's runtime are here.

One plan serves several contexts, each with its own stream; a context runs one inference at a time. Use everything on
the thread that loads the plan, with the CUDA context current.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from engine.backends.base import TensorSpec
from engine.backends.tensorrt.api import TensorRt, engine_specs
from engine.backends.tensorrt.runtime_cache import ContextFactory
from engine.errors import ModelError

PROFILE = 0


class PlanContext(Protocol):
    """One execution of a plan at a time."""

    def bind(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Set the inputs' shapes and every tensor's GPU address; return the outputs' shapes. Raises `ModelError`."""

    def enqueue(self, stream: int) -> None:
        """Start the inference on a stream. Raises `ModelError`."""

    def is_capturable(self, stream: int) -> bool:
        """Return whether the next `enqueue` may be recorded as a CUDA graph."""

    def close(self) -> None:
        """Free the context."""


class LoadedPlan(Protocol):
    """A plan that is ready to run."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it returns."""

    @property
    def min_batch(self) -> int:
        """Smallest batch of its profile, or the fixed one."""

    @property
    def max_batch(self) -> int:
        """Largest batch of its profile, or the fixed one."""

    def largest(self, spec: TensorSpec) -> tuple[int, ...]:
        """Return the largest shape of an input."""

    def create_context(self) -> PlanContext:
        """Return a new execution context. Raises `ModelError` if the GPU has too little memory."""

    def note_warm(self) -> None:
        """Keep what was compiled for the next start; call it once all kernels have run."""

    def close(self) -> None:
        """Free the plan, after its contexts."""


class TensorRtPlan:
    """`LoadedPlan` on TensorRT.

    Args:
        trt: the library.
        content: the serialized engine; must be trusted, because it contains code.
        path: where it came from, for messages.
        dla_core: deep learning accelerator that it was built for.
        runtime_cache: file that keeps the kernels which TensorRT-RTX compiles at load; None: keep none.
        is_eager: as for `ContextFactory`.

    Raises:
        ModelError: the library refuses it; the message has the library's reason.
    """

    def __init__(
        self,
        trt: TensorRt,
        content: bytes,
        path: Path,
        *,
        dla_core: int | None = None,
        runtime_cache: Path | None = None,
        is_eager: bool = True,
    ) -> None:
        self._trt = trt
        self._path = path
        self._runtime: Any = trt.make(trt.module.Runtime)
        if dla_core is not None:
            self._runtime.DLA_core = dla_core
        self._engine: Any = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise ModelError(f'{path}: {trt} refuses it: {trt.messages.take()}; rebuild it with "framewire build"')
        self.inputs, self.outputs = engine_specs(trt, self._engine)
        unknown = [str(spec) for spec in self.outputs if spec.shape[:1] != (None,) and None in spec.shape]
        if unknown:
            raise ModelError(f"{path}: output {unknown[0]} depends on the data: export with the raw head, without NMS")

        self._contexts = ContextFactory(self._engine, trt, runtime_cache, is_eager=is_eager)

    @property
    def min_batch(self) -> int:
        """Smallest batch of the profile, or the fixed one."""
        return self._bounds(self.inputs[0])[0][0]

    @property
    def max_batch(self) -> int:
        """Largest batch of the profile, or the fixed one."""
        return self.largest(self.inputs[0])[0]

    def largest(self, spec: TensorSpec) -> tuple[int, ...]:
        """Return the largest shape of an input."""
        return self._bounds(spec)[1]

    def _bounds(self, spec: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the smallest and the largest shape of an input."""
        if None not in spec.shape:
            fixed = tuple(size or 0 for size in spec.shape)
            return fixed, fixed
        smallest, _optimal, largest = self._engine.get_tensor_profile_shape(spec.name, PROFILE)
        return tuple(map(int, smallest)), tuple(map(int, largest))

    def create_context(self) -> TensorRtContext:
        """Return a new context."""
        context = self._contexts.create()
        if context is None:
            raise ModelError(f"{self._path}: no execution context: {self._trt.messages.take()}")
        return TensorRtContext(self._trt, context, self.outputs, self._path)

    def note_warm(self) -> None:
        """Write the runtime cache."""
        self._contexts.save()

    def close(self) -> None:
        """Write the runtime cache, then release engine and runtime, in this order."""
        self._contexts.save()
        self._contexts.close()
        self._engine = None
        self._runtime = None


class TensorRtContext:
    """`PlanContext` on TensorRT."""

    def __init__(self, trt: TensorRt, context: Any, outputs: tuple[TensorSpec, ...], path: Path) -> None:
        self._trt, self._context, self._outputs, self._path = trt, context, outputs, path

    def bind(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Set shapes and addresses."""
        self._trt.messages.take()
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                self._refuse(f"input {name} cannot be {shape}")
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                self._refuse(f"no memory for {name}")
        return {spec.name: tuple(map(int, self._context.get_tensor_shape(spec.name))) for spec in self._outputs}

    def enqueue(self, stream: int) -> None:
        """Start the inference."""
        if not self._context.execute_async_v3(stream):
            self._refuse("inference did not start")

    def is_capturable(self, stream: int) -> bool:
        """Return TensorRT-RTX's answer, which may still be compiling; TensorRT never is."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(stream))

    def _refuse(self, what: str) -> None:
        raise ModelError(f"{self._path}: {what}: {self._trt.messages.take()}")

    def close(self) -> None:
        """Release the context."""
        self._context = None
