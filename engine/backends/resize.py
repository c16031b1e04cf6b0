"""Finds the numbers in a fixed-size graph that change with the size of its images.

Exporters write the image size into a graph in two places: the targets of reshapes, and constants that hold a value per
cell of a grid (anchor points, strides). Both follow from the number of cells, and both are verified first: a reshape
must only regroup its dimensions, and a constant must be linear in the cell's row and column. A graph in which anything
else depends on the size (position embeddings, coordinates as fractions of the frame) is rejected.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Shape, TensorSpec
from engine.errors import ModelError

STRIDES = (2, 4, 8, 16, 32, 64)
ANCHOR_GRIDS = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32), *((stride,) for stride in STRIDES))
"""Strides of the grids that one dimension may hold in sequence."""
CELL_ANCHORS = (1, 3)
OPEN = 1_000_003
"""Stands for an open dimension (the batch) while dimensions are regrouped: a prime that no layer has as a size."""
LEAST_STEP = 0.4
"""Smallest step per cell: anchors count cells or pixels, while coordinates as fractions have far smaller steps."""


class FixedSizeError(ModelError):
    """The graph cannot take images of another size."""


@dataclass(frozen=True, slots=True)
class SizeChange:
    """A change from the image size that a graph was exported for to another one; rows and columns.

    >>> SizeChange((640, 640), (384, 640)).counts[8400]
    5040
    """

    old_hw: tuple[int, int]
    new_hw: tuple[int, int]

    @property
    def counts(self) -> Mapping[int, int]:
        """New cell counts by old ones, of single grids and of grids that share a dimension."""
        return _counts(self.old_hw, self.new_hw)

    @property
    def grids(self) -> Mapping[tuple[int, int], tuple[int, int]]:
        """New rows and columns of a grid by the old ones."""
        return _grids(self.old_hw, self.new_hw)

    def of_outputs(self, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """Return the graph's outputs at the new size, with the dimension of their cells, or their grid, changed."""
        grids = [strides for strides in ANCHOR_GRIDS if len(strides) > 1 or len(specs) > 1]
        changes: dict[int, int] = {}
        for strides in grids:
            for anchors in CELL_ANCHORS if len(strides) > 1 else (1,):
                old, new = (anchors * count_cells(hw, strides) for hw in (self.old_hw, self.new_hw))
                changes.setdefault(old, new)
        return tuple(self._of_output(spec, changes) for spec in specs)

    def _of_output(self, spec: TensorSpec, changes: Mapping[int, int]) -> TensorSpec:
        shape = spec.shape
        if len(shape) >= 4:
            tail = self.grids.get((shape[-2] or 0, shape[-1] or 0))
            return spec if tail is None else TensorSpec(spec.name, (*shape[:-2], *tail), spec.dtype)
        sizes = [size or 0 for size in shape]
        axes = [axis for axis, size in enumerate(sizes) if size in changes and (axis or len(sizes) == 2)]
        if not axes:
            return spec
        axis = max(axes, key=lambda at: (sizes[at], -at))
        return TensorSpec(spec.name, (*shape[:axis], changes[sizes[axis]], *shape[axis + 1 :]), spec.dtype)


@lru_cache(maxsize=16)
def _counts(old_hw: tuple[int, int], new_hw: tuple[int, int]) -> Mapping[int, int]:
    found: dict[int, int] = {}
    for strides, anchors in itertools.product(ANCHOR_GRIDS, CELL_ANCHORS):
        old, new = (anchors * count_cells(hw, strides) for hw in (old_hw, new_hw))
        found.setdefault(old, new)
    return MappingProxyType({old: new for old, new in found.items() if old > 1})


@lru_cache(maxsize=16)
def _grids(old_hw: tuple[int, int], new_hw: tuple[int, int]) -> Mapping[tuple[int, int], tuple[int, int]]:
    grids = {cells(old_hw, stride): cells(new_hw, stride) for stride in (1, *STRIDES)}
    return MappingProxyType({old: new for old, new in grids.items() if old != (1, 1)})


def cells(size_hw: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return the rows and columns of the grid of a stride."""
    return -(-size_hw[0] // stride), -(-size_hw[1] // stride)


def count_cells(size_hw: tuple[int, int], strides: Sequence[int]) -> int:
    """Return the total number of cells in the grids of several strides."""
    return sum(math.prod(cells(size_hw, stride)) for stride in strides)


def regrouped(before: Shape, after: Shape, target: Shape, change: SizeChange) -> list[int]:
    """Return the target of a reshape for an input of shape `after`, whose result was `target` for `before`.

    Args:
        before: the input's shape in the exported graph.
        after: the input's shape now.
        target: the result's shape in the exported graph.
        change: the old and the new image size.

    Returns:
        The sizes of the result; -1 for a dynamic one.

    Raises:
        FixedSizeError: the reshape does more than regroup dimensions.

    >>> regrouped((1, 64, 400), (1, 64, 240), (1, 64, 20, 20), SizeChange((640, 640), (384, 640)))
    [1, 64, 12, 20]
    """
    old, new, out = ([OPEN if size is None else size for size in shape] for shape in (before, after, target))
    if len(old) != len(new) or 0 in (*old, *new) or math.prod(old) != math.prod(out):
        raise FixedSizeError(f"a reshape of {before} to {target} cannot take {after}")
    sizes: list[int] = []
    for inputs, results in _groups(old, out):
        group_old, group_new = old[inputs], new[inputs]
        sizes += out[results] if group_old == group_new else _split(out[results], math.prod(group_new), change)
    return [-1 if size == OPEN else size for size in sizes]


def _groups(old: Sequence[int], out: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yield the smallest groups of adjacent dimensions on both sides that hold equally many elements."""
    i = j = 0
    while i < len(old) and j < len(out):
        start_i, start_j, left, right = i, j, old[i], out[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * out[j], j + 1
        if i == len(old) or j == len(out):
            i, j = len(old), len(out)  # trailing dimensions of size one
        yield slice(start_i, i), slice(start_j, j)


def _split(out: list[int], elements: int, change: SizeChange) -> list[int]:
    """Return the sizes of one group of the result whose number of elements has changed."""
    large = [axis for axis, size in enumerate(out) if size != 1]
    candidates = [[elements if axis == at else size for axis, size in enumerate(out)] for at in large[:1]]
    if len(large) > 1:
        candidates = [
            [*out[:axis], *change.grids[out[axis], out[axis + 1]], *out[axis + 2 :]]
            for axis in range(len(out) - 1)
            if (out[axis], out[axis + 1]) in change.grids
        ]
        candidates += [
            [*out[:axis], change.counts[size], *out[axis + 1 :]]
            for axis, size in enumerate(out)
            if size in change.counts and math.prod(out) // size in CELL_ANCHORS
        ]
    fitting = [candidate for candidate in candidates if math.prod(candidate) == elements]
    if not fitting:
        raise FixedSizeError(f"a reshape to {out} does not follow a grid of cells")
    return fitting[0]


def may_be_grid(shape: Sequence[int], change: SizeChange) -> bool:
    """Return whether a constant of this shape could hold a value per cell."""
    pairs = itertools.pairwise(shape)
    return any(size in change.counts for size in shape) or any(pair in change.grids for pair in pairs)


def grid_constant(values: NDArray[Any], change: SizeChange) -> NDArray[Any] | None:
    """Return a constant for the new size, or None if it does not depend on the size.

    Raises:
        FixedSizeError: it holds fractions of the frame.

    >>> grid_constant(np.array([[0.5, 1.5]], np.float32), SizeChange((32, 64), (32, 96)))
    array([[0.5, 1.5, 2.5]], dtype=float32)
    """
    for axis, (size, following) in enumerate(itertools.zip_longest(values.shape, values.shape[1:])):
        if (size, following) in change.grids and (changed := _grid(values, axis, change)) is not None:
            return changed
        if size in change.counts and (changed := _anchors(values, axis, change)) is not None:
            return changed
    return None


def _grid(values: NDArray[Any], axis: int, change: SizeChange) -> NDArray[Any] | None:
    """Return the new value of a constant whose dimensions `axis` and the next one are rows and columns."""
    planes = np.moveaxis(values, (axis, axis + 1), (-2, -1))
    extended = _extended(planes, change.grids[values.shape[axis], values.shape[axis + 1]])
    return None if extended is None else np.moveaxis(extended, (-2, -1), (axis, axis + 1)).astype(values.dtype)


def _anchors(values: NDArray[Any], axis: int, change: SizeChange) -> NDArray[Any] | None:
    """Return the new value of a constant whose dimension `axis` holds the cells of several grids in sequence."""
    rows = np.moveaxis(values, axis, -1)
    for strides, anchors in itertools.product(ANCHOR_GRIDS, CELL_ANCHORS):
        of_each = [stride for stride in strides for _ in range(anchors)]
        old_grids = [cells(change.old_hw, stride) for stride in of_each]
        if sum(map(math.prod, old_grids)) != rows.shape[-1]:
            continue
        ends = np.cumsum([math.prod(grid) for grid in old_grids])[:-1]
        parts = [
            _extended(part.reshape(*rows.shape[:-1], *grid), cells(change.new_hw, stride))
            for part, grid, stride in zip(np.split(rows, ends, axis=-1), old_grids, of_each, strict=True)
        ]
        if all(part is not None for part in parts):
            flat = [part.reshape(*rows.shape[:-1], -1) for part in parts if part is not None]
            return np.moveaxis(np.concatenate(flat, axis=-1), -1, axis).astype(values.dtype)
    return None


def _extended(planes: NDArray[Any], new_hw: tuple[int, int]) -> NDArray[Any] | None:
    """Extend (..., h, w) planes that are linear in row and column to another size; return None for others."""
    wide = planes.astype(np.float64)
    corner = wide[..., :1, :1]
    down = wide[..., 1:2, :1] - corner if wide.shape[-2] > 1 else np.zeros_like(corner)
    right = wide[..., :1, 1:2] - corner if wide.shape[-1] > 1 else np.zeros_like(corner)

    def linear(rows: int, columns: int) -> NDArray[Any]:
        y, x = np.mgrid[:rows, :columns]
        return np.asarray(corner + down * y + right * x)

    tolerance = 1e-4 * float(np.abs(wide).max(initial=0))
    if not np.allclose(linear(*planes.shape[-2:]), wide, rtol=1e-3, atol=tolerance):
        return None
    steps = np.abs(np.concatenate((down.ravel(), right.ravel())))
    if ((steps > 0) & (steps < LEAST_STEP)).any():
        raise FixedSizeError("it has a grid of coordinates as fractions of the frame")
    return linear(*new_hw)
