"""A fake GPU: its memory is a dictionary, and its streams run their work as late as CUDA allows.

For tests of everything around the GPU. Work on a stream runs only when something waits for it, so code that reads a
result too early, or changes an input too soon, gets wrong numbers here as on a real GPU. Copies from freed memory,
frees of unknown addresses and leaked allocations are detected.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.backends.cuda.driver import PinnedArray
from engine.backends.cuda.probe import Gpu
from engine.errors import ModelError
from engine.testing.cuda_kernels import KERNELS, Bytes, Kernel

Work = Callable[[], None]
FAKE_GPU = Gpu(0, "Fake GPU", (8, 9), "GPU-00000000-0000-0000-0000-000000000000", 1 << 30, False)


class FakeCuda:
    """`CudaApi` without CUDA.

    Args:
        gpu: the GPU that it claims to be.
        before: called with the name of every operation before it runs; may raise, to test failures.
        kernels: Python code for each of our kernels.
    """

    name = "fake"

    def __init__(
        self,
        gpu: Gpu = FAKE_GPU,
        before: Callable[[str], None] = lambda operation: None,
        kernels: Mapping[str, Kernel] = KERNELS,
    ) -> None:
        self.gpu = gpu
        self.is_open = True
        self._before = before
        self._numbers = count(0x1000)
        self._memory: dict[int, Bytes] = {}
        self._next_address = 0x10_0000
        self._pinned: dict[int, PinnedArray] = {}
        self._queues: dict[int, list[Work]] = {}
        self._done: dict[int, int] = defaultdict(int)
        self._events: dict[int, tuple[int, int]] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._captures: dict[int, list[Work]] = {}
        self._image = kernels
        self._kernels: dict[int, Kernel] = {}
        self._lock = threading.RLock()
        self._depth = threading.local()

    @property
    def live(self) -> int:
        """Allocations, streams, events and graphs that have not been freed."""
        return len(self._memory) + len(self._pinned) + len(self._queues) + len(self._events) + len(self._graphs)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current on this thread."""
        self._depth.value = getattr(self._depth, "value", 0) + 1
        try:
            yield
        finally:
            self._depth.value -= 1

    def _enter(self, operation: str) -> None:
        if not self.is_open:
            raise ModelError(f"{operation}: the context was released")
        if getattr(self._depth, "value", 0) == 0:
            raise ModelError(f"{operation}: CUDA_ERROR_INVALID_CONTEXT: no context is current on this thread")
        self._before(operation)

    def allocate(self, size: int) -> int:
        """Return the address of new memory, filled with garbage."""
        self._enter("allocate")
        if sum(len(block) for block in self._memory.values()) + size > self.gpu.memory_bytes:
            raise ModelError(f"the memory of {self.gpu} is used up: use a smaller batch or model")
        address = self._next_address
        self._next_address += size + 512
        self._memory[address] = np.full(max(size, 1), 0xA5, np.uint8)
        return address

    def free(self, address: int) -> None:
        """Free memory."""
        self._enter("free")
        if self._memory.pop(address, None) is None:
            raise ModelError(f"free of {address:#x}, which was not allocated")

    def view(self, address: int, size: int) -> Bytes:
        """Return the (size,) bytes at an address, which may lie inside an allocation or in mapped host memory.

        Raises:
            ModelError: there is no such memory.
        """
        starts = sorted(self._memory)
        place = bisect_right(starts, address) - 1
        if place >= 0 and address + size <= starts[place] + len(self._memory[starts[place]]):
            offset = address - starts[place]
            return self._memory[starts[place]][offset : offset + size]
        for start, pinned in self._pinned.items():
            if pinned.device_address is not None and 0 <= address - start <= pinned.array.nbytes - size:
                flat = pinned.array.reshape(-1).view(np.uint8)
                return flat[address - start : address - start + size]
        raise ModelError(f"CUDA_ERROR_ILLEGAL_ADDRESS: {size} bytes at {address:#x}")

    def pinned(self, shape: Sequence[int], dtype: DTypeLike, *, mapped: bool = False) -> PinnedArray:
        """Return host memory."""
        self._enter("pinned")
        array = np.empty(tuple(shape), dtype)
        pinned = PinnedArray(array, array.ctypes.data if mapped else None)
        self._pinned[array.ctypes.data] = pinned
        return pinned

    def free_pinned(self, pinned: PinnedArray) -> None:
        """Free host memory."""
        self._enter("free_pinned")
        if self._pinned.pop(pinned.array.ctypes.data, None) is None:
            raise ModelError("free of host memory that was not allocated")

    def create_stream(self) -> int:
        """Return a stream."""
        self._enter("create_stream")
        stream = next(self._numbers)
        self._queues[stream] = []
        return stream

    def free_stream(self, stream: int) -> None:
        """Free a stream."""
        self._enter("free_stream")
        del self._queues[stream]

    def create_event(self) -> int:
        """Return an event."""
        self._enter("create_event")
        event = next(self._numbers)
        self._events[event] = 0, 0
        return event

    def free_event(self, event: int) -> None:
        """Free an event."""
        self._enter("free_event")
        del self._events[event]

    def enqueue(self, operation: str, work: Work, stream: int) -> None:
        """Queue work on a stream."""
        self._enter(operation)
        with self._lock:
            self._captures.get(stream, self._queues[stream]).append(work)

    def copy_to_gpu(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Queue a copy to the GPU."""
        source = array.reshape(-1).view(np.uint8)

        def copy() -> None:
            self.view(address, len(source))[:] = source

        self.enqueue("copy_to_gpu", copy, stream)

    def copy_to_host(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Queue a copy from the GPU."""
        target = array.reshape(-1).view(np.uint8)

        def copy() -> None:
            target[:] = self.view(address, len(target))

        self.enqueue("copy_to_host", copy, stream)

    def record(self, event: int, stream: int) -> None:
        """Mark all work queued on the stream so far with an event."""
        self._enter("record")
        with self._lock:
            self._events[event] = stream, self._done[stream] + len(self._queues[stream])

    def wait(self, event: int) -> None:
        """Do the work that the event marks."""
        self._enter("wait")
        with self._lock:
            stream, until = self._events[event]
            self._run(stream, until - self._done[stream])

    def synchronize(self, stream: int) -> None:
        """Do all work of a stream."""
        self._enter("synchronize")
        with self._lock:
            self._run(stream, len(self._queues[stream]))

    def _run(self, stream: int, pieces: int) -> None:
        for _ in range(pieces):
            work = self._queues[stream].pop(0)
            self._done[stream] += 1
            work()

    def load_kernel(self, image: bytes, name: str) -> int:
        """Return the handle of one of our kernels."""
        self._enter("load_kernel")
        if name not in self._image:
            raise ModelError(f"no kernel {name} in the image")
        handle = next(self._numbers)
        self._kernels[handle] = self._image[name]
        return handle

    def launch(
        self, kernel: int, grid: tuple[int, int, int], block: tuple[int, int, int], values: bytes, stream: int
    ) -> None:
        """Queue a kernel."""
        work = self._kernels[kernel]
        self.enqueue("launch", lambda: work(self.view, grid[2], values), stream)

    def begin_capture(self, stream: int) -> None:
        """Record work instead of queueing it."""
        self._enter("begin_capture")
        self._captures[stream] = []

    def end_capture(self, stream: int) -> int:
        """Return the recorded work."""
        recorded = self._captures.pop(stream)
        self._enter("end_capture")
        graph = next(self._numbers)
        self._graphs[graph] = recorded
        return graph

    def launch_graph(self, graph: int, stream: int) -> None:
        """Queue the recorded work."""
        for work in self._graphs[graph]:
            self.enqueue("launch_graph", work, stream)

    def free_graph(self, graph: int) -> None:
        """Discard recorded work."""
        self._enter("free_graph")
        del self._graphs[graph]

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes."""
        return self.gpu.memory_bytes - sum(len(block) for block in self._memory.values()), self.gpu.memory_bytes

    def close(self) -> None:
        """Release the context."""
        self.is_open = False
