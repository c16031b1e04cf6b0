"""The outputs of one slot, on the GPU and on the host, and which parts of them are copied.

Only the candidates of a raw head are copied to the host (`engine/backends/cuda/candidates.py`). If an image has more of
them than fit, the whole head is copied, so that none is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import ClassScores, TensorSpec
from engine.backends.cuda import candidates as cuda_candidates
from engine.backends.cuda.candidates import CandidateLayout
from engine.backends.cuda.driver import CudaApi, PinnedArray
from engine.errors import ModelError

GivenBack = Callable[..., None]
MAPPED_BYTES = 1 << 16
"""Outputs up to this size, such as the boxes of end-to-end models, are written to mapped memory on a Jetson."""

SPOILT = 0x45
"""A byte pattern that no result contains: as float32 it is 3156, as a count it exceeds the candidates that fit."""


class PinnedTensor:
    """GPU memory and page-locked host memory of one tensor; the same memory if `may_map` and the GPU is integrated.

    Args:
        cuda: the GPU.
        shape: the largest.
        dtype: of its elements.
        given_back: registers a function and its arguments to call at the end.
        may_map: let an integrated GPU write to host memory. It does not cache that memory, so this pays off
            only for small tensors that no kernel reads again.
    """

    def __init__(
        self, cuda: CudaApi, shape: Sequence[int], dtype: str, given_back: GivenBack, *, may_map: bool = False
    ) -> None:
        self._cuda = cuda
        self._pinned: PinnedArray = cuda.pinned(shape, dtype, mapped=may_map and cuda.gpu.is_integrated)
        given_back(cuda.free_pinned, self._pinned)
        mapped = self._pinned.device_address
        self.is_mapped = mapped is not None
        self.address = cuda.allocate(self._pinned.array.nbytes) if mapped is None else mapped
        if mapped is None:
            given_back(cuda.free, self.address)

    def view(self, shape: Sequence[int]) -> NDArray[np.generic]:
        """Return the first elements of the host memory, in a shape."""
        flat = self._pinned.array.reshape(-1)
        view: NDArray[np.generic] = flat[: math.prod(shape)].reshape(tuple(shape))
        return view

    def copy(self, view: NDArray[np.generic], stream: int) -> None:
        """Copy the GPU's values into a view of the host memory, in stream order."""
        if not self.is_mapped:
            self._cuda.copy_to_host(view, self.address, stream)

    def spoil(self, view: NDArray[np.generic], stream: int) -> None:
        """Overwrite the first elements on the host and on the GPU, in stream order."""
        view.reshape(-1).view(np.uint8).fill(SPOILT)
        if not self.is_mapped:
            self._cuda.copy_to_gpu(self.address, view, stream)


class CandidateFilter:
    """The candidates of one slot's raw head.

    Args:
        cuda: the GPU.
        kernel: the candidates kernel.
        layout: of the largest head.
        given_back: as for `PinnedTensor`.
    """

    def __init__(self, cuda: CudaApi, kernel: int, layout: CandidateLayout, given_back: GivenBack) -> None:
        self._cuda, self._kernel, self.layout = cuda, kernel, layout
        self._zeros = cuda.pinned((layout.images,), np.int32)
        given_back(cuda.free_pinned, self._zeros)
        self._zeros.array[:] = 0
        self._words = PinnedTensor(cuda, (layout.words(layout.images),), "int32", given_back)
        self.above = -math.inf

    def fit(self, anchors: int) -> None:
        """Set the number of anchors of the next heads: a smaller image has fewer, and its rows lie closer together."""
        self.layout = replace(self.layout, anchors=anchors)

    def enqueue(self, head: int, images: int, stream: int) -> None:
        """Queue the kernel, and the copy of what it keeps, on the stream."""
        self._cuda.copy_to_gpu(self._words.address, self._zeros.array, stream)
        values = self.layout.parameters(head, self._words.address, self.above)
        self._cuda.launch(self._kernel, self.layout.grid(images), cuda_candidates.BLOCK, values, stream)
        self._words.copy(self._words.view((self.layout.words(images),)), stream)

    def take(self, images: int) -> NDArray[np.float32] | None:
        """Return the (images, rows, candidates) candidates once the stream is done, or None if they did not fit."""
        words = self._words.view((self.layout.words(images),)).view(np.int32)
        return self.layout.ordered(words, images)

    def counts(self, images: int) -> NDArray[np.int32]:
        """Return an (images,) view of each image's number of candidates, once the stream is done."""
        return self._words.view((images,)).view(np.int32)

    def spoil(self, images: int, stream: int) -> None:
        """Overwrite the results, in stream order."""
        self._words.spoil(self._words.view((self.layout.words(images),)), stream)


class Results:
    """The outputs of one slot.

    Args:
        cuda: the GPU.
        outputs: of the plan.
        largest: shapes at the largest batch.
        given_back: as for `PinnedTensor`.

    Raises:
        ModelError: the size of an output depends on the data.
    """

    def __init__(
        self,
        cuda: CudaApi,
        outputs: Sequence[TensorSpec],
        largest: Mapping[str, tuple[int, ...]],
        given_back: GivenBack,
    ) -> None:
        self._cuda, self._outputs, self._given_back = cuda, outputs, given_back
        self._tensors: list[PinnedTensor] = []
        for spec in outputs:
            shape = largest[spec.name]
            if min(shape, default=0) < 0:
                raise ModelError(f"output {spec} depends on the data: export with the raw head, without NMS")
            small = math.prod(shape) * np.dtype(spec.dtype).itemsize <= MAPPED_BYTES
            self._tensors.append(PinnedTensor(cuda, shape, spec.dtype, given_back, may_map=small))
        self._views: list[NDArray[np.generic]] = []
        self.filter: CandidateFilter | None = None

    @property
    def addresses(self) -> dict[str, int]:
        """GPU address by output."""
        return {spec.name: tensor.address for spec, tensor in zip(self._outputs, self._tensors, strict=True)}

    def keep_candidates(self, scores: ClassScores, kernel: int, largest: tuple[int, ...]) -> None:
        """Copy only the candidates of the first output from now on."""
        images, rows, anchors = largest
        layout = CandidateLayout(scores, rows, anchors, images)
        self.filter = CandidateFilter(self._cuda, kernel, layout, self._given_back)

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Fit the host memory to the outputs' shapes."""
        self._views = [
            tensor.view(shapes[spec.name]) for spec, tensor in zip(self._outputs, self._tensors, strict=True)
        ]
        if self.filter is not None:
            self.filter.fit(self._views[0].shape[2])

    def enqueue(self, stream: int) -> None:
        """Queue the copies to the host on the stream."""
        pairs = list(zip(self._tensors, self._views, strict=True))
        if self.filter is not None:
            self.filter.enqueue(self._tensors[0].address, len(self._views[0]), stream)
            pairs = pairs[1:]
        for tensor, view in pairs:
            tensor.copy(view, stream)

    def take(self, stream: int) -> tuple[NDArray[np.generic], ...]:
        """Return the (b, ...) outputs once the stream is done: views of page-locked memory, except for candidates."""
        if self.filter is None:
            return tuple(self._views)
        head = self._views[0]
        kept = self.filter.take(len(head))
        if kept is None:
            self._tensors[0].copy(head, stream)
            self._cuda.synchronize(stream)
            kept = self.filter.layout.merged(head, self.filter.above)
        return kept, *self._views[1:]

    def everything(self, stream: int) -> list[NDArray[np.generic]]:
        """Return copies of the outputs and of the candidates' counts once the stream is done."""
        taken = [view.copy() for view in self.take(stream)]
        if self.filter is not None:
            taken.append(self.filter.counts(len(self._views[0])).copy())
        return taken

    def spoil(self, stream: int) -> None:
        """Overwrite all results, in stream order, so that only an inference and its copies can restore them."""
        if self.filter is not None:
            self.filter.spoil(len(self._views[0]), stream)
        for tensor, view in zip(self._tensors, self._views, strict=True):
            tensor.spoil(view, stream)

    def let_go(self) -> None:
        """Drop the views before the memory is freed."""
        self._views = []


def merged_spec(spec: TensorSpec, scores: ClassScores | None) -> TensorSpec | None:
    """Return the spec of a raw head reduced to its candidates, or None if it is not a raw head."""
    if scores is None or spec.dtype != "float32" or len(spec.shape) != 3:
        return None
    batch, rows, _anchors = spec.shape
    if rows is None or rows < scores.first + scores.count:
        return None
    return TensorSpec(spec.name, (batch, scores.merged(rows), None), spec.dtype)
