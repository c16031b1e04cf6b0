"""A slot on the GPU for one submission: its stream, execution context, tensors and page-locked results.

Two slots overlap: while one computes, the other's images are transferred. Call everything but `wait` on the GPU's
thread.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import ClassScores, ImageInput, TensorSpec
from engine.backends.cuda import candidates as cuda_candidates
from engine.backends.cuda.driver import CudaApi, free_quietly
from engine.backends.cuda.letterbox import BLOCK, WholeFrame, grid, parameters, planes_parameters
from engine.backends.cuda.letterbox import KERNEL_NAME as LETTERBOX
from engine.backends.cuda.letterbox import PLANES_KERNEL_NAME as PLANES_LETTERBOX
from engine.backends.device import Pixels, Placement
from engine.backends.tensorrt.images import ImageStage
from engine.backends.tensorrt.loaded_plan import LoadedPlan
from engine.backends.tensorrt.results import Results
from engine.clock import SYSTEM_CLOCK, Clock
from engine.errors import ModelError
from engine.lazy_image import Chroma, YuvPlanes

logger = logging.getLogger(__name__)

GRAPH_AFTER = 3
"""Consecutive batches of one size before a graph is recorded: a size that occurs once is not worth it."""

MAX_SLOWDOWN = 1.2
"""A graph may take this much longer than the eager run, for noise; TensorRT-RTX may have recorded slow kernels."""

TIMED_RUNS = 3


class GpuSlot:
    """Runs one inference at a time.

    Args:
        cuda: the GPU.
        plan: what to run.
        image: how the first input takes images; None: feed all inputs as they are.
        kernels: handles of our kernels by name; empty if `image` is None.
        scores: output rows to reduce to candidates; None: return all outputs as they are.
        use_graph: replay the inference as a CUDA graph when a batch size repeats.
        clock: times the graph against the eager run; for tests.
    """

    def __init__(
        self,
        cuda: CudaApi,
        plan: LoadedPlan,
        image: ImageInput | None,
        kernels: Mapping[str, int],
        scores: ClassScores | None = None,
        *,
        use_graph: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._cuda, self._plan, self._image, self._kernels = cuda, plan, image, kernels
        self._clock = clock
        self._use_graph = use_graph
        self._tensors: dict[str, int] = {}
        self._held: list[NDArray[Any]] = []  # arrays whose copy is in flight must not be freed
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._graph: int | None = None
        self._repeats = 0
        self._taken = ExitStack()
        self._stage = ImageStage(cuda)
        try:
            self._stream = cuda.create_stream()
            self._given_back(cuda.free_stream, self._stream)
            self._event = cuda.create_event()
            self._given_back(cuda.free_event, self._event)
            self._context = plan.create_context()
            self._given_back(self._context.close)
            self._allocate(scores)
        except BaseException:
            self._taken.close()
            raise

    def _given_back(self, free: Callable[..., None], *arguments: Any) -> None:
        """Register something to free at the end, even if freeing later allocations fails."""
        self._taken.callback(free_quietly, free, *arguments)

    def _allocate(self, scores: ClassScores | None) -> None:
        """Allocate memory for the largest batch."""
        shapes = {spec.name: self._plan.largest(spec) for spec in self._plan.inputs}
        for spec in self._plan.inputs:
            size = math.prod(shapes[spec.name]) * np.dtype(spec.dtype).itemsize
            self._tensors[spec.name] = self._cuda.allocate(size)
            self._given_back(self._cuda.free, self._tensors[spec.name])
        largest = self._context.bind(shapes, {})
        self._results = Results(self._cuda, self._plan.outputs, largest, self._given_back)
        self._tensors |= self._results.addresses
        if scores is not None:
            first = largest[self._plan.outputs[0].name]
            self._results.keep_candidates(scores, self._kernels[cuda_candidates.KERNEL_NAME], first)

    def keep_above(self, score: float) -> None:
        """Skip anchors whose best score is not above `score`, from the next start on."""
        candidates = self._results.filter
        if candidates is not None and candidates.above != score:
            candidates.above = score
            self._drop_graph()
            self._repeats = 0

    def start(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Start an inference on (b, ...) arrays by input name; do not change them until `wait` has returned."""
        specs = self._plan.inputs
        self._held.clear()
        for spec in specs[1:] if self._image else specs:
            self._copy(spec, feeds[spec.name])
        if self._image is not None:
            batch = feeds[specs[0].name]
            rows, columns = self._image.size_hw
            self._held.append(np.ascontiguousarray(batch))
            source = self._stage.send(self._held[-1], self._stream)
            self._place(WholeFrame((columns, rows)), source, 0, len(batch))
        shapes = {spec.name: tuple(feeds[spec.name].shape) for spec in specs}
        if self._image is not None:
            shapes[specs[0].name] = self._image_shape(len(feeds[specs[0].name]))
        self._infer(shapes)

    def start_images(self, images: Sequence[Pixels], placements: Sequence[Placement]) -> None:
        """Start an inference on (H, W, 3) uint8 BGR images or planes of any sizes, which the GPU letterboxes."""
        self._held.clear()
        addresses = self._stage.upload(images, self._stream)
        row = 0
        kinds = [image.chroma if isinstance(image, YuvPlanes) else None for image in images]
        for (placement, chroma), alike in groupby(zip(placements, kinds, strict=True)):
            count = len(list(alike))  # images of one size and kind lie one after the other: one launch
            self._place(placement, addresses[row], row, count, chroma)
            row += count
        self._infer({self._plan.inputs[0].name: self._image_shape(len(images))})

    def _copy(self, spec: TensorSpec, array: NDArray[Any]) -> None:
        self._held.append(np.ascontiguousarray(array))
        self._cuda.copy_to_gpu(self._tensors[spec.name], self._held[-1], self._stream)

    def _place(self, placement: Placement, source: int, row: int, count: int, chroma: Chroma | None = None) -> None:
        """Launch the kernel that writes `count` rows of the first input, from `row` on; with `chroma`, from planes."""
        if self._image is None:
            raise ModelError("this slot takes no images")
        rows, columns = self._image.size_hw
        first = self._plan.inputs[0]
        target = self._tensors[first.name] + row * rows * columns * 3 * np.dtype(first.dtype).itemsize
        if chroma is None:
            kernel, values = LETTERBOX, parameters(self._image, placement, source, target, first.dtype)
        else:
            values = planes_parameters(self._image, placement, chroma, source, target, first.dtype)
            kernel = PLANES_LETTERBOX
        self._cuda.launch(self._kernels[kernel], grid(self._image, count), BLOCK, values, self._stream)

    def _image_shape(self, batch: int) -> tuple[int, ...]:
        rows, columns = self._image.size_hw if self._image else (0, 0)
        planar = self._image is None or self._image.layout == "nchw"
        return (batch, 3, rows, columns) if planar else (batch, rows, columns, 3)

    def _infer(self, shapes: dict[str, tuple[int, ...]]) -> None:
        if shapes != self._shapes:
            self._drop_graph()
            self._shapes = {}
            self._results.bind(self._context.bind(shapes, self._tensors))
            self._shapes, self._repeats = shapes, 0
        self._repeats += 1
        if self._graph is not None:
            self._cuda.launch_graph(self._graph, self._stream)
        else:
            self._run()
            if self._repeats == GRAPH_AFTER:
                self._plan.note_warm()
            if self._use_graph and self._repeats >= GRAPH_AFTER and self._context.is_capturable(self._stream):
                self._record_graph()
        self._cuda.record(self._event, self._stream)

    def _run(self) -> None:
        """Queue the inference and the copies of its results on the stream."""
        self._context.enqueue(self._stream)
        self._results.enqueue(self._stream)

    def _record_graph(self) -> None:
        """Record the inference as a graph; keep it only if it gives the eager run's results and is as fast."""
        self._cuda.synchronize(self._stream)
        eager = self._results.everything(self._stream)
        try:
            graph = self._graph = self._captured()
        except ModelError as error:
            self._give_up_graphs(f"cannot be recorded ({error})")
            self._run_after_failed_capture()
            return
        self._results.spoil(self._stream)
        self._cuda.launch_graph(graph, self._stream)
        self._cuda.synchronize(self._stream)
        if not all(map(_equal, self._results.everything(self._stream), eager)):
            reason = "gives results that differ from the eager run"
        elif self._is_slow(graph):
            reason = "is slower than the eager run"
        else:
            return
        self._drop_graph()
        self._give_up_graphs(reason)
        self._run()

    def _captured(self) -> int:
        """Return the recorded inference; free the graph if a call in it failed."""
        self._cuda.begin_capture(self._stream)
        try:
            self._run()
        except BaseException:
            with suppress(ModelError):
                self._cuda.free_graph(self._cuda.end_capture(self._stream))
            raise
        return self._cuda.end_capture(self._stream)

    def _run_after_failed_capture(self) -> None:
        """Run again: the runtime may report the failed capture on the next call, which must not end the run."""
        try:
            self._run()
            self._cuda.synchronize(self._stream)
        except ModelError as error:
            logger.debug("left over from the failed capture: %s", error)
            self._run()

    def _is_slow(self, graph: int) -> bool:
        """Return whether a graph is slower than the eager run by more than noise."""
        eager_ns = self._quickest_ns(self._run)
        graph_ns = self._quickest_ns(lambda: self._cuda.launch_graph(graph, self._stream))
        return graph_ns > MAX_SLOWDOWN * eager_ns

    def _quickest_ns(self, start: Callable[[], None]) -> int:
        """Return the nanoseconds that the quickest of a few runs takes, including the GPU's work."""
        times = []
        for _ in range(TIMED_RUNS):
            started_ns = self._clock.monotonic_ns()
            start()
            self._cuda.synchronize(self._stream)
            times.append(self._clock.monotonic_ns() - started_ns)
        return min(times)

    def _give_up_graphs(self, reason: str) -> None:
        logger.warning("no CUDA graph for this plan: it %s; inference continues without one", reason)
        self._use_graph = False

    @property
    def has_graph(self) -> bool:
        """Whether the next inference of the same batch size is a graph."""
        return self._graph is not None

    def wait(self) -> tuple[NDArray[Any], ...]:
        """Wait for the inference and return its outputs, (b, ...) each, valid until the next `start`. Any thread."""
        with self._cuda.current():
            self._cuda.wait(self._event)
            return self._results.take(self._stream)

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._cuda.free_graph(self._graph)
            self._graph = None

    def settle(self) -> None:
        """Wait until the stream is idle."""
        self._cuda.synchronize(self._stream)

    def close(self) -> None:
        """Wait for work in flight and free everything, in reverse order, even if the GPU is lost."""
        self._given_back(self._stage.close)
        self._given_back(self._drop_graph)
        self._given_back(self.settle)
        self._results.let_go()
        self._taken.close()


def _equal(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Return whether two runs of the same kernels gave equal results; NaN equals NaN."""
    return found.shape == expected.shape and bool(np.allclose(found, expected, rtol=1e-3, atol=1e-3, equal_nan=True))
