"""CUDA through pycuda, for machines with the CUDA toolkit, such as a Jetson.

Never use `pycuda.autoinit` or `make_context`: both tie the GPU to the importing thread. pycuda aborts the process when
a thread ends with a context pushed, so a context stays pushed only within a `with` block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.backends.cuda.driver import PinnedArray, free_quietly
from engine.backends.cuda.graph import DriverCalls
from engine.backends.cuda.probe import Gpu
from engine.errors import ModelError
from engine.optional import require

logger = logging.getLogger(__name__)
MISSING_CUDA_HINT = "pip install pycuda, on a machine with the CUDA toolkit"
STREAM_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


class PyCuda:
    """`CudaApi` on pycuda.

    Pycuda's objects free their memory when they are garbage-collected, so each is kept under its handle.
    """

    name = "pycuda"

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self._cuda: Any = require("pycuda.driver", hint=MISSING_CUDA_HINT)
        self._graphs = DriverCalls()
        self._call(self._cuda.init)
        device = self._call(self._cuda.Device, gpu.index)
        self._context: Any = self._call(device.retain_primary_context)
        self._objects: dict[int, Any] = {}
        self._kernels: dict[int, tuple[Any, Any]] = {}
        self._prepared: set[int] = set()

    def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call pycuda. Raises `ModelError` with its message."""
        try:
            return function(*arguments, **named)
        except self._cuda.MemoryError as error:
            raise ModelError(
                f"the memory of {self.gpu} is used up ({error}): use a smaller batch or model, or end others "
                "that use it"
            ) from error
        except self._cuda.Error as error:
            raise ModelError(f"CUDA failed: {error}") from error

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context current on this thread."""
        self._call(self._context.push)
        try:
            yield
        finally:
            self._cuda.Context.pop()

    def _keep(self, handle: int, thing: Any) -> int:
        self._objects[handle] = thing
        return handle

    def allocate(self, size: int) -> int:
        """Return the address of GPU memory."""
        memory = self._call(self._cuda.mem_alloc, max(size, 1))
        return self._keep(int(memory), memory)

    def free(self, address: int) -> None:
        """Free GPU memory."""
        self._call(self._objects.pop(address).free)

    def pinned(self, shape: Sequence[int], dtype: DTypeLike, *, mapped: bool = False) -> PinnedArray:
        """Return page-locked host memory."""
        kinds = self._cuda.host_alloc_flags
        flags = kinds.PORTABLE | (kinds.DEVICEMAP if mapped else 0)
        array = self._call(self._cuda.pagelocked_empty, tuple(shape), np.dtype(dtype), mem_flags=flags)
        self._keep(array.ctypes.data, array.base)
        return PinnedArray(array, int(self._call(array.base.get_device_pointer)) if mapped else None)

    def free_pinned(self, pinned: PinnedArray) -> None:
        """Free page-locked host memory."""
        self._call(self._objects.pop(pinned.array.ctypes.data).free)

    def create_stream(self) -> int:
        """Return a stream."""
        stream = self._call(self._cuda.Stream, STREAM_NON_BLOCKING)
        return self._keep(int(stream.handle), stream)

    def free_stream(self, stream: int) -> None:
        """Free a stream."""
        del self._objects[stream]

    def create_event(self) -> int:
        """Return an event."""
        flags = self._cuda.event_flags
        event = self._call(self._cuda.Event, flags.DISABLE_TIMING | flags.BLOCKING_SYNC)
        return self._keep(id(event), event)

    def free_event(self, event: int) -> None:
        """Free an event."""
        del self._objects[event]

    def copy_to_gpu(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy to the GPU."""
        self._call(self._cuda.memcpy_htod_async, address, array, self._objects[stream])

    def copy_to_host(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy from the GPU."""
        self._call(self._cuda.memcpy_dtoh_async, array, address, self._objects[stream])

    def record(self, event: int, stream: int) -> None:
        """Record an event."""
        self._call(self._objects[event].record, self._objects[stream])

    def wait(self, event: int) -> None:
        """Wait for an event."""
        self._call(self._objects[event].synchronize)

    def synchronize(self, stream: int) -> None:
        """Wait for a stream."""
        self._call(self._objects[stream].synchronize)

    def load_kernel(self, image: bytes, name: str) -> int:
        """Return a kernel."""
        module = self._call(self._cuda.module_from_buffer, image)
        function = self._call(module.get_function, name)
        self._kernels[id(function)] = module, function
        return id(function)

    def launch(
        self, kernel: int, grid: tuple[int, int, int], block: tuple[int, int, int], values: bytes, stream: int
    ) -> None:
        """Start a kernel."""
        _module, function = self._kernels[kernel]
        if kernel not in self._prepared:  # the unprepared call caches every argument it has ever seen
            function.prepare([f"{len(values)}s"])
            self._prepared.add(kernel)
        self._call(function.prepared_async_call, grid, block, self._objects[stream], values)

    def begin_capture(self, stream: int) -> None:
        """Begin to record a graph."""
        self._graphs.begin_capture(stream)

    def end_capture(self, stream: int) -> int:
        """Return the recorded graph."""
        return self._graphs.end_capture(stream)

    def launch_graph(self, graph: int, stream: int) -> None:
        """Run a graph."""
        self._graphs.launch(graph, stream)

    def free_graph(self, graph: int) -> None:
        """Free a graph."""
        self._graphs.free(graph)

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes."""
        free, total = self._call(self._cuda.mem_get_info)
        return int(free), int(total)

    def close(self) -> None:
        """Release the primary context. Tries every step and never raises, even if the GPU is lost."""
        context, self._context = self._context, None
        if context is None:
            return
        try:
            self._call(context.push)
        except ModelError as error:
            logger.debug("closing on a lost GPU: %s", error)
        else:
            self._kernels.clear()
            self._objects.clear()
            self._cuda.Context.pop()
        free_quietly(self._detach, context)

    def _detach(self, context: Any) -> None:
        """Release a context. pycuda pushes it first, only on the thread that created it, and leaves it on the stack."""
        before = self._graphs.current_context()
        self._call(context.detach)
        if self._graphs.current_context() != before:
            self._graphs.pop_context()
