"""CUDA through NVIDIA's cuda-bindings: wheels only, no toolkit on the machine."""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.backends.cuda.driver import OUT_OF_MEMORY, PinnedArray, free_quietly
from engine.backends.cuda.graph import DriverCalls
from engine.backends.cuda.probe import Gpu
from engine.errors import ModelError
from engine.optional import require

logger = logging.getLogger(__name__)
HOST_PORTABLE, HOST_MAPPED = 1, 2  # CU_MEMHOSTALLOC_*
STREAM_NON_BLOCKING = 1
EVENT_BLOCKING_SYNC, EVENT_DISABLE_TIMING = 1, 2  # CU_EVENT_*; without the first, a waiting thread spins
OLDEST, REFUSED = (12, 9, 2), (13, 0, 0)


def refuse_old_versions() -> None:
    """Raise ImportError if cuda-bindings would hold Python's lock while it waits for the GPU.

    It releases the lock since 12.9.1; 12.9.1 and 13.0.0 fail when two threads make their first call (NVIDIA/cuda-python
    pull requests 835 and 836). An environment that pins it for another package may have such a version.
    """
    try:
        text = importlib.metadata.version("cuda-bindings")
    except importlib.metadata.PackageNotFoundError:
        return
    version = tuple(map(int, re.findall(r"\d+", text)[:3]))
    if version < OLDEST or version == REFUSED:
        raise ImportError(
            f"cuda-bindings {text} stops all threads while it waits for the GPU, or fails in threads: "
            "pip install 'cuda-bindings>=12.9.2,!=13.0.0'"
        )


class CudaBindings:
    """`CudaApi` on the driver interface of `cuda.bindings`."""

    name = "cuda-bindings"

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        refuse_old_versions()
        self._driver: Any = require("cuda.bindings.driver", extra="rtx")
        utils: Any = require("cuda.bindings.utils", extra="rtx")
        self._number: Callable[[Any], int] = getattr(utils, "get_cuda_native_handle", int)  # int() is deprecated
        self._graphs = DriverCalls()
        self._call("cuInit", 0)
        self._device = self._call("cuDeviceGet", gpu.index)
        self._context: Any = self._call("cuDevicePrimaryCtxRetain", self._device)
        self._modules: list[Any] = []
        self._kernels: dict[int, Any] = {}

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call the driver and return its result. Raises `ModelError` with the driver's message."""
        code, *results = getattr(self._driver, function)(*arguments)
        if int(code) != 0:
            raise ModelError(f"{function} failed: {self._reason(int(code))}")
        return results[0] if len(results) == 1 else results

    def _reason(self, code: int) -> str:
        if code == OUT_OF_MEMORY:
            return (
                f"the memory of {self.gpu} is used up: use a smaller batch or model, or end other programs that use it"
            )
        return f"{self._driver.CUresult(code).name} ({code})"

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context current on this thread."""
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def allocate(self, size: int) -> int:
        """Return the address of GPU memory."""
        return int(self._call("cuMemAlloc", max(size, 1)))

    def free(self, address: int) -> None:
        """Free GPU memory."""
        self._call("cuMemFree", address)

    def pinned(self, shape: Sequence[int], dtype: DTypeLike, *, mapped: bool = False) -> PinnedArray:
        """Return page-locked host memory."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        flags = HOST_PORTABLE | (HOST_MAPPED if mapped else 0)
        address = int(self._call("cuMemHostAlloc", max(size, 1), flags))
        memory = (ctypes.c_ubyte * max(size, 1)).from_address(address)
        array = np.frombuffer(memoryview(memory), np.uint8, count=size).view(dtype).reshape(tuple(shape))
        device = int(self._call("cuMemHostGetDevicePointer", address, 0)) if mapped else None
        return PinnedArray(array, device)

    def free_pinned(self, pinned: PinnedArray) -> None:
        """Free page-locked host memory."""
        self._call("cuMemFreeHost", pinned.array.ctypes.data)

    def create_stream(self) -> int:
        """Return a stream."""
        return self._number(self._call("cuStreamCreate", STREAM_NON_BLOCKING))

    def free_stream(self, stream: int) -> None:
        """Free a stream."""
        self._call("cuStreamDestroy", stream)

    def create_event(self) -> int:
        """Return an event."""
        return self._number(self._call("cuEventCreate", EVENT_BLOCKING_SYNC | EVENT_DISABLE_TIMING))

    def free_event(self, event: int) -> None:
        """Free an event."""
        self._call("cuEventDestroy", event)

    def copy_to_gpu(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy to the GPU."""
        self._call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, stream)

    def copy_to_host(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy from the GPU."""
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, stream)

    def record(self, event: int, stream: int) -> None:
        """Record an event."""
        self._call("cuEventRecord", event, stream)

    def wait(self, event: int) -> None:
        """Wait for an event."""
        self._call("cuEventSynchronize", event)

    def synchronize(self, stream: int) -> None:
        """Wait for a stream."""
        self._call("cuStreamSynchronize", stream)

    def load_kernel(self, image: bytes, name: str) -> int:
        """Return a kernel."""
        module = self._call("cuModuleLoadData", image)
        kernel = self._call("cuModuleGetFunction", module, name.encode())
        self._modules.append(module)
        handle = self._number(kernel)
        self._kernels[handle] = kernel
        return handle

    def launch(
        self, kernel: int, grid: tuple[int, int, int], block: tuple[int, int, int], values: bytes, stream: int
    ) -> None:
        """Start a kernel."""
        argument = ctypes.create_string_buffer(values, len(values))
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(argument))
        parameters = ctypes.addressof(pointers)
        self._call("cuLaunchKernel", self._kernels[kernel], *grid, *block, 0, stream, parameters, 0)

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
        free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def close(self) -> None:
        """Release the primary context. Tries every step and never raises, even if the GPU is lost."""
        context, self._context = self._context, None
        if context is None:
            return
        modules, self._modules = self._modules, []
        try:
            self._call("cuCtxPushCurrent", context)
        except ModelError as error:
            logger.debug("closing on a lost GPU: %s", error)
        else:
            for module in modules:
                free_quietly(self._call, "cuModuleUnload", module)
            free_quietly(self._call, "cuCtxPopCurrent")
        free_quietly(self._call, "cuDevicePrimaryCtxRelease", self._device)
