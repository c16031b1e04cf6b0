"""One submission's place on the GPU: its stream, its execution context, its tensors, its page-locked results.

Two slots overlap: while one computes, the other's images travel. Everything but `wait` belongs to the GPU's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import ImageInput, TensorSpec
from engine.backends.cuda import CudaApi, PinnedArray
from engine.backends.cuda_letterbox import BLOCK, Placement, WholeFrame, grid, parameters
from engine.backends.tensorrt_plan import LoadedPlan
from engine.errors import ModelError

logger = logging.getLogger(__name__)

GRAPH_AFTER = 3
"""Batches of one size in a row before a graph is recorded: a size that comes once is not worth it."""


class GpuSlot:
    """Runs one inference at a time.

    Args:
        cuda: the GPU.
        plan: what to run.
        image: how the first input takes images; None feeds all inputs as they are.
        kernel: the letterbox kernel, where `image` is given.
        use_graph: replay the inference as a CUDA graph where one batch size repeats.
    """

    def __init__(
        self, cuda: CudaApi, plan: LoadedPlan, image: ImageInput | None, kernel: int | None, *, use_graph: bool = True
    ) -> None:
        self._cuda, self._plan, self._image, self._kernel = cuda, plan, image, kernel
        self._use_graph = use_graph
        self._is_mapped = cuda.gpu.is_integrated
        self._tensors: dict[str, int] = {}
        self._results: dict[str, PinnedArray] = {}
        self._raw = 0
        self._raw_size = 0
        self._views: tuple[NDArray[Any], ...] = ()
        self._held: list[NDArray[Any]] = []  # what is still being copied must not be freed
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._graph: int | None = None
        self._repeats = 0
        self._taken = ExitStack()
        try:
            self._stream = cuda.create_stream()
            self._given_back(cuda.free_stream, self._stream)
            self._event = cuda.create_event()
            self._given_back(cuda.free_event, self._event)
            self._context = plan.create_context()
            self._given_back(self._context.close)
            self._allocate()
        except BaseException:
            self._taken.close()
            raise

    def _given_back(self, free: Callable[..., None], *arguments: Any) -> None:
        """Have something freed at the end, also where freeing what was taken later failed."""
        self._taken.callback(free_quietly, free, *arguments)

    def _allocate(self) -> None:
        """Take memory for the largest batch."""
        for spec in self._plan.inputs:
            self._tensors[spec.name] = self._memory(self._plan.largest(spec), spec.dtype)
        shapes = {spec.name: self._plan.largest(spec) for spec in self._plan.inputs}
        largest = self._context.bind(shapes, {})
        for spec in self._plan.outputs:
            shape = largest[spec.name]
            if min(shape, default=0) < 0:
                raise ModelError(f"output {spec} depends on the data: export with the raw head, without NMS")
            pinned = self._cuda.pinned(shape, spec.dtype, mapped=self._is_mapped)
            self._given_back(self._cuda.free_pinned, pinned)
            self._results[spec.name] = pinned
            mapped = pinned.device_address
            self._tensors[spec.name] = self._memory(shape, spec.dtype) if mapped is None else mapped

    def _memory(self, shape: Sequence[int], dtype: str) -> int:
        """Return the address of GPU memory for a tensor."""
        address = self._cuda.allocate(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        self._given_back(self._cuda.free, address)
        return address

    def start(self, feeds: Mapping[str, NDArray[Any]], mapped: Mapping[int, int]) -> None:
        """Start an inference.

        Args:
            feeds: the inputs; unchanged until `wait` returned.
            mapped: GPU address by host address, for feeds that the GPU can read in place.
        """
        specs = self._plan.inputs
        self._held.clear()
        for spec in specs[1:] if self._image else specs:
            self._copy(spec, feeds[spec.name])
        if self._image is not None:
            batch = feeds[specs[0].name]
            rows, columns = self._image.size_hw
            source = mapped.get(batch.ctypes.data)
            source = self._upload([batch]) if source is None else source
            self._place(WholeFrame((columns, rows)), source, 0, len(batch))
        shapes = {spec.name: tuple(feeds[spec.name].shape) for spec in specs}
        if self._image is not None:
            shapes[specs[0].name] = self._image_shape(len(feeds[specs[0].name]))
        self._infer(shapes)

    def start_images(self, images: Sequence[NDArray[np.uint8]], placements: Sequence[Placement]) -> None:
        """Start an inference on images of any size each, which the GPU letterboxes."""
        self._held.clear()
        address = self._upload(images)
        for row, (image, placement) in enumerate(zip(images, placements, strict=True)):
            self._place(placement, address, row, 1)
            address += image.nbytes
        self._infer({self._plan.inputs[0].name: self._image_shape(len(images))})

    def _copy(self, spec: TensorSpec, array: NDArray[Any]) -> None:
        self._held.append(np.ascontiguousarray(array))
        self._cuda.copy_to_gpu(self._tensors[spec.name], self._held[-1], self._stream)

    def _upload(self, images: Sequence[NDArray[np.uint8]]) -> int:
        """Copy images behind each other into GPU memory, which grows as needed, and return its address."""
        size = sum(image.nbytes for image in images)
        if size > self._raw_size:
            self._free_raw()
            self._raw, self._raw_size = self._cuda.allocate(size), size
        address = self._raw
        for image in images:
            self._held.append(np.ascontiguousarray(image))
            self._cuda.copy_to_gpu(address, self._held[-1], self._stream)
            address += image.nbytes
        return self._raw

    def _place(self, placement: Placement, source: int, row: int, count: int) -> None:
        """Launch the kernel that writes `count` rows of the first input, from `row` on."""
        if self._image is None or self._kernel is None:
            raise ModelError("this slot takes no images")
        rows, columns = self._image.size_hw
        target = self._tensors[self._plan.inputs[0].name] + row * rows * columns * 3 * 4
        values = parameters(self._image, placement, source, target)
        self._cuda.launch(self._kernel, grid(self._image, count), BLOCK, values, self._stream)

    def _image_shape(self, batch: int) -> tuple[int, ...]:
        rows, columns = self._image.size_hw if self._image else (0, 0)
        planar = self._image is None or self._image.layout == "nchw"
        return (batch, 3, rows, columns) if planar else (batch, rows, columns, 3)

    def _infer(self, shapes: dict[str, tuple[int, ...]]) -> None:
        if shapes != self._shapes:
            self._drop_graph()
            self._shapes = {}
            outputs = self._context.bind(shapes, self._tensors)
            self._views = tuple(self._view(spec, outputs[spec.name]) for spec in self._plan.outputs)
            self._shapes, self._repeats = shapes, 0
        self._repeats += 1
        if self._graph is not None:
            self._cuda.launch_graph(self._graph, self._stream)
        else:
            self._run()
            if self._use_graph and self._repeats == GRAPH_AFTER:
                self._record_graph()
        self._cuda.record(self._event, self._stream)

    def _run(self) -> None:
        """Put the inference and the copies of its results on the stream."""
        self._context.enqueue(self._stream)
        if self._is_mapped:
            return
        for spec, view in zip(self._plan.outputs, self._views, strict=True):
            self._cuda.copy_to_host(view, self._tensors[spec.name], self._stream)

    def _view(self, spec: TensorSpec, shape: tuple[int, ...]) -> NDArray[Any]:
        flat = self._results[spec.name].array.reshape(-1)
        return flat[: int(np.prod(shape))].reshape(shape)

    def _record_graph(self) -> None:
        """Record the inference as a graph, and keep it only if it gives what the eager run gave on the same input."""
        self._cuda.synchronize(self._stream)
        eager = [view.copy() for view in self._views]
        try:
            self._cuda.begin_capture(self._stream)
            try:
                self._run()
            finally:
                graph = self._cuda.end_capture(self._stream)
        except ModelError as error:
            self._give_up_graphs(f"cannot be recorded ({error})")
            return
        for view in self._views:
            view.fill(0)
        self._cuda.launch_graph(graph, self._stream)
        self._cuda.synchronize(self._stream)
        self._graph = graph
        if not all(_equal(view, expected) for view, expected in zip(self._views, eager, strict=True)):
            self._drop_graph()
            self._give_up_graphs("gives other results than the eager run")
            self._run()

    def _give_up_graphs(self, reason: str) -> None:
        logger.warning("no CUDA graph for this plan: it %s; inference goes on without", reason)
        self._use_graph = False

    @property
    def has_graph(self) -> bool:
        """Whether the next inference of the same batch size is a graph."""
        return self._graph is not None

    def wait(self) -> tuple[NDArray[Any], ...]:
        """Wait for the inference and return its outputs, valid until the next `start`. Any thread."""
        with self._cuda.current():
            self._cuda.wait(self._event)
        return self._views

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._cuda.free_graph(self._graph)
            self._graph = None

    def _free_raw(self) -> None:
        if self._raw_size:
            self._cuda.synchronize(self._stream)
            self._cuda.free(self._raw)
            self._raw_size = 0

    def settle(self) -> None:
        """Wait until nothing is under way any more."""
        self._cuda.synchronize(self._stream)

    def close(self) -> None:
        """Wait for what is under way and free everything, in reverse order; goes on where the GPU is lost."""
        self._given_back(self._free_raw)
        self._given_back(self._drop_graph)
        self._given_back(self.settle)
        self._views = ()
        self._taken.close()


def free_quietly(free: Callable[..., None], *arguments: Any) -> None:
    """Free something; after a lost GPU every call fails, and the rest must be freed all the same."""
    try:
        free(*arguments)
    except ModelError as error:
        logger.debug("not freed: %s", error)


def _equal(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Return whether two runs of the same kernels gave the same; NaN equals NaN."""
    return bool(np.allclose(found, expected, rtol=1e-3, atol=1e-3, equal_nan=True))
