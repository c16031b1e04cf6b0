"""All tracks of one tracker as one structured array: a row per track, ordered by `track_id`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.data import Detections

Rows = NDArray[np.void]

TENTATIVE, CONFIRMED, LOST = 0, 1, 2
"""Track states: seen but not yet sure; on the frame; not on the frame, may come back."""

UNNAMED = np.iinfo(np.int64).max
"""`track_id` of a tentative track: it gets its number when it is confirmed, so that numbers have no gaps."""

_COLUMNS: list[tuple[Any, ...]] = [
    ("track_id", np.int64),
    ("camera", np.int32),
    ("mean", np.float64, (8,)),
    ("cov", np.float64, (12,)),
    ("observed", np.float64, (4,)),
    ("first_ns", np.int64),
    ("seen_ns", np.int64),
    ("score_sum", np.float64),
    ("hits", np.int64),
    ("score", np.float32),
    ("class_id", np.int32),
    ("age", np.int32),
    ("detection", np.int32),
    ("state", np.int8),
]


def row_dtype(more: list[tuple[Any, ...]] | None = None) -> np.dtype[np.void]:
    """Return the dtype of a row, with the columns that a tracker adds.

    Columns: `track_id`; `camera` its place among the trackers that are updated together, else 0; Kalman `mean` and
    `cov`; `observed` the last detected xyxy; `first_ns` and `seen_ns` of the first and last detection; `score_sum` and
    `hits` over all detections; `score` and `class_id` of the last one; `age` in updates; `detection` its row on this
    frame or -1; `state`.
    """
    return np.dtype(_COLUMNS + (more or []), align=True)


class Found(NamedTuple):
    """The usable detections of a frame, in an order that does not depend on their input order.

    Attributes:
        xyxy: (M, 4) float64, finite, with an area.
        score: (M,) float32, descending.
        class_id: (M,) int32.
        source_row: (M,) row in the `Detections`.
        camera: (M,) index of its tracker among those updated together, ascending; None: there is only one.
    """

    xyxy: NDArray[np.float64]
    score: NDArray[np.float32]
    class_id: NDArray[np.int32]
    source_row: NDArray[np.intp]
    camera: NDArray[np.intp] | None = None


_TIE_BREAK = np.array([1.0, np.sqrt(2.0), np.sqrt(3.0), np.sqrt(5.0)])
_LARGEST_PX = 1e9


def usable(detections: Detections, min_score: float, limit: int) -> Found:
    """Return the detections worth tracking: finite, with an area, of `min_score`, the best `limit` of them."""
    xyxy = detections.xyxy.astype(np.float64)
    index = _good(xyxy, detections.score, min_score)
    xyxy, score = xyxy.take(index, axis=0), detections.score.take(index)
    order = np.lexsort((_tie_break(xyxy), -score))[:limit]
    index = index.take(order)
    return Found(xyxy.take(order, axis=0), score.take(order), detections.class_id.take(index), index)


def usable_of_all(detections: Sequence[Detections], min_score: float, limit: int) -> Found:
    """Return the same for several cameras, one after the other; `limit` applies to each."""
    counts = np.array([len(one) for one in detections])
    xyxy = np.concatenate([one.xyxy for one in detections]).astype(np.float64)
    score = np.concatenate([one.score for one in detections])
    index = _good(xyxy, score, min_score)
    camera = np.arange(len(counts)).repeat(counts).take(index)
    xyxy, score = xyxy.take(index, axis=0), score.take(index)
    order = np.lexsort((_tie_break(xyxy), -score, camera))
    camera = camera.take(order)
    if counts.max(initial=0) > limit:
        best = (rank_in_groups(camera) < limit).nonzero()[0]
        order, camera = order.take(best), camera.take(best)
    index = index.take(order)
    class_id = np.concatenate([one.class_id for one in detections]).take(index)
    source_row = index - (counts.cumsum() - counts).take(camera)
    return Found(xyxy.take(order, axis=0), score.take(order), class_id, source_row, camera)


def rank_in_groups(group: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """Return the (N,) position of each entry within its run of equal values; values are ascending.

    >>> rank_in_groups(np.array([0, 0, 2, 2, 2]))
    array([0, 1, 0, 1, 2])
    """
    first = group.searchsorted(group, "left")
    rank: NDArray[np.intp] = np.arange(len(group)) - first
    return rank


def _good(xyxy: NDArray[np.float64], score: NDArray[np.float32], min_score: float) -> NDArray[np.intp]:
    good = (np.abs(xyxy) < _LARGEST_PX).all(axis=1)
    good &= (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1]) & (score >= min_score)
    return good.nonzero()[0]


def _tie_break(xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a number per box that orders boxes of equal score; bit-identical for any number of boxes."""
    left, top, right, bottom = (xyxy * _TIE_BREAK).T
    number: NDArray[np.float64] = left + top + right + bottom
    return number


def joined(rows: Rows, more: Rows) -> Rows:
    """Return (N,) `rows` followed by (M,) `more`."""
    both = np.empty(len(rows) + len(more), rows.dtype)
    both[: len(rows)] = rows
    both[len(rows) :] = more
    return both
