"""Decides whether tensor requests may share an inference, joins their inputs and separates their outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Backend, TensorSpec

Feeds = Mapping[str, NDArray[Any]]
MAX_PROBE_SIDE = 64
SAME = 1e-2
"""Relative difference that rounding at a different batch size may cause."""


def rows_of(feeds: Feeds) -> int:
    """Return how many rows of a batch a request of (b, ...) inputs has; 0: its inputs differ."""
    sizes = {len(array) for array in feeds.values()}
    return sizes.pop() if len(sizes) == 1 else 0


def kind_of(feeds: Feeds) -> tuple[Any, ...]:
    """Return the key that requests of one inference share: the shapes of their inputs apart from the batch."""
    return tuple((name, array.shape[1:]) for name, array in sorted(feeds.items()))


def merged(requests: Sequence[Feeds]) -> Feeds:
    """Return the (sum of b, ...) inputs of one inference for several requests of one kind."""
    if len(requests) == 1:
        return requests[0]
    return {name: np.concatenate([feeds[name] for feeds in requests]) for name in requests[0]}


def is_batch(backend: Backend) -> bool:
    """Return whether a model computes each row of its inputs independently, determined by trial.

    The file does not show it: for a model that selects boxes itself, the first size of the output is their number. So
        three rows of noise are run one by one, two together, and three together; each row must give the same result.

    Args:
        backend: open.
    """
    if not all(spec.shape[:1] == (None,) for spec in (*backend.inputs, *backend.outputs)):
        return False
    noise = np.random.default_rng(1)
    rows = [{spec.name: _noise(spec, noise) for spec in backend.inputs} for _ in range(3)]
    try:
        alone = [_outputs(backend, feeds) for feeds in rows]
        together = [_outputs(backend, merged(rows[:count])) for count in (2, 3)]
    except Exception:  # noqa: BLE001 - a model that cannot take it is run request by request
        return False
    if any(len(array) != 1 for outputs in alone for array in outputs):
        return False
    return all(
        len(array) == count and all(_is_same(array[row], alone[row][at][0]) for row in range(count))
        for count, outputs in zip((2, 3), together, strict=True)
        for at, array in enumerate(outputs)
    )


def _noise(spec: TensorSpec, noise: np.random.Generator) -> NDArray[Any]:
    shape = [1, *(MAX_PROBE_SIDE if size is None else size for size in spec.shape[1:])]
    return noise.random(shape, np.float32).astype(spec.dtype)


def _outputs(backend: Backend, feeds: Feeds) -> list[NDArray[Any]]:
    pending = backend.submit(feeds)
    try:
        return [np.array(array) for array in pending.result()]
    finally:
        pending.release()


def _is_same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    scale = float(np.abs(other).max(initial=1.0))
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=SAME, atol=SAME * scale))
