"""All tracks of one tracker as one structured array: a row per track, ordered by `track_id`."""

from __future__ import annotations

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
    """Return the dtype of a row, with columns that a tracker adds.

    Columns: `track_id`; Kalman `mean` and `cov`; `observed` the last detected xyxy; `first_ns` and `seen_ns` of the
    first and last detection; `score_sum` and `hits` over all detections; `score` and `class_id` of the last one; `age`
    in updates; `detection` its row on this frame or -1; `state`.
    """
    return np.dtype(_COLUMNS + (more or []), align=True)


class Found(NamedTuple):
    """The usable detections of a frame, in an order that does not depend on how they were handed in.

    Attributes:
        xyxy: (M, 4) float64, finite, with an area.
        score: (M,) float32, descending.
        class_id: (M,) int32.
        source_row: (M,) row in the `Detections`.
    """

    xyxy: NDArray[np.float64]
    score: NDArray[np.float32]
    class_id: NDArray[np.int32]
    source_row: NDArray[np.intp]


_TIE_BREAK = np.array([1.0, np.sqrt(2.0), np.sqrt(3.0), np.sqrt(5.0)])
_LARGEST_PX = 1e9


def usable(detections: Detections, min_score: float, limit: int) -> Found:
    """Return the detections worth tracking: finite, with an area, of `min_score`, the best `limit` of them."""
    xyxy = detections.xyxy.astype(np.float64)
    good = (np.abs(xyxy) < _LARGEST_PX).all(axis=1)
    good &= (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1]) & (detections.score >= min_score)
    index = good.nonzero()[0]
    xyxy, score = xyxy.take(index, axis=0), detections.score.take(index)
    order = np.lexsort((xyxy @ _TIE_BREAK, -score))[:limit]
    index = index.take(order)
    return Found(xyxy.take(order, axis=0), score.take(order), detections.class_id.take(index), index)


def joined(rows: Rows, more: Rows) -> Rows:
    """Return `rows` followed by `more`."""
    both = np.empty(len(rows) + len(more), rows.dtype)
    both[: len(rows)] = rows
    both[len(rows) :] = more
    return both
