"""The part of CUDA that the TensorRT backend needs, as one small protocol: memory, streams, events, kernels, graphs.

Implementations: pycuda (`pycuda.py`), cuda-bindings (`bindings.py`) and, for tests, a fake whose streams run late
(`engine/testing/cuda.py`). All use the device's primary context, so that other CUDA users in the process share it, and
make it current only inside `current()`: nothing stays bound to a thread.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, cast

from numpy.typing import DTypeLike, NDArray

from engine.backends.cuda.probe import Gpu, probe_cuda
from engine.errors import ConfigError, MissingDependencyError, ModelError
from engine.optional import install, require_attribute

logger = logging.getLogger(__name__)

OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
INSTALL = f"{install('rtx')} for cuda-bindings (no toolkit needed), or pycuda where the CUDA toolkit is"


@dataclass(frozen=True, slots=True)
class PinnedArray:
    """Page-locked host memory, which the GPU copies from and to directly.

    Attributes:
        array: the memory.
        device_address: the GPU's address of the same memory; None if it is not mapped.
    """

    array: NDArray[Any]
    device_address: int | None = None


class CudaApi(Protocol):
    """One GPU. Make every call but `wait` on one thread, inside `with api.current()`. Handles are plain numbers."""

    @property
    def name(self) -> str:
        """Package behind it."""

    @property
    def gpu(self) -> Gpu:
        """The GPU in use."""

    def current(self) -> AbstractContextManager[None]:
        """Make the GPU's primary context current on this thread within a `with` block."""

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes of GPU memory. Raises `ModelError` if there is not enough."""

    def free(self, address: int) -> None:
        """Free what `allocate` returned."""

    def pinned(self, shape: Sequence[int], dtype: DTypeLike, *, mapped: bool = False) -> PinnedArray:
        """Return uninitialised page-locked host memory; if `mapped`, the GPU sees it too."""

    def free_pinned(self, pinned: PinnedArray) -> None:
        """Free what `pinned` returned; do not use its array afterwards."""

    def create_stream(self) -> int:
        """Return a new stream, not synchronised with the default one."""

    def free_stream(self, stream: int) -> None:
        """Free a stream."""

    def create_event(self) -> int:
        """Return a new event for `record` and `wait`."""

    def free_event(self, event: int) -> None:
        """Free an event."""

    def copy_to_gpu(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a contiguous host array of any shape to GPU memory, in stream order; do not change it before then."""

    def copy_to_host(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy GPU memory into a contiguous host array of any shape, in stream order."""

    def record(self, event: int, stream: int) -> None:
        """Signal `event` when all work queued on `stream` so far is done."""

    def wait(self, event: int) -> None:
        """Block until `event` is signalled, without holding the GIL. Any thread, inside `current()`."""

    def synchronize(self, stream: int) -> None:
        """Block until all work on `stream` is done."""

    def load_kernel(self, image: bytes, name: str) -> int:
        """Return a kernel from a compiled image (cubin or PTX)."""

    def launch(
        self, kernel: int, grid: tuple[int, int, int], block: tuple[int, int, int], values: bytes, stream: int
    ) -> None:
        """Start a kernel whose only parameter is a struct passed by value, given as its bytes."""

    def begin_capture(self, stream: int) -> None:
        """Record what follows on `stream` into a graph instead of running it."""

    def end_capture(self, stream: int) -> int:
        """Return the recorded graph, ready to launch. Raises `ModelError` if something cannot be recorded."""

    def launch_graph(self, graph: int, stream: int) -> None:
        """Run a graph in stream order."""

    def free_graph(self, graph: int) -> None:
        """Free a graph."""

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes of the GPU."""

    def close(self) -> None:
        """Release the context; harmless when repeated. Free all allocations first."""


def free_quietly(free: Callable[..., object], *arguments: Any) -> None:
    """Free something, logging a failure: on a lost GPU every call fails, and the rest must still be freed."""
    try:
        free(*arguments)
    except ModelError as error:
        logger.debug("not freed: %s", error)


IMPLEMENTATIONS = (
    ("pycuda.driver", "engine.backends.cuda.pycuda:PyCuda"),
    ("cuda.bindings.driver", "engine.backends.cuda.bindings:CudaBindings"),
)


def available_packages() -> tuple[str, ...]:
    """Return the packages that can provide a `CudaApi` here, the preferred one first, without importing them."""
    return tuple(module.split(".")[0] for module, _ in IMPLEMENTATIONS if _is_installed(module))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def open_cuda(index: int = 0) -> CudaApi:
    """Return CUDA on one GPU, through pycuda if it works, otherwise through cuda-bindings.

    Raises:
        ConfigError: there is no usable GPU, or none with this index.
        MissingDependencyError: neither package is installed and loadable.
    """
    probe = probe_cuda()
    if probe.reason is not None:
        raise ConfigError(probe.reason)
    if not 0 <= index < len(probe.gpus):
        raise ConfigError(f"GPU {index}: there are {len(probe.gpus)}, counted from 0")
    obstacles = []
    for module, target in IMPLEMENTATIONS:
        if not _is_installed(module):
            continue
        try:
            return cast(CudaApi, require_attribute(target)(probe.gpus[index]))
        except ImportError as error:  # installed for another CUDA version: note it, and try the next package
            obstacles.append(f"{module} does not load ({error})")
    raise MissingDependencyError(f"{'; '.join(obstacles) or 'no Python package for CUDA is installed'}: {INSTALL}")
