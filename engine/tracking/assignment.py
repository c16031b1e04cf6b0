"""Assigns boxes to tracks: finds overlapping pairs without the full matrix, and the optimal one-to-one choice.

The only user of `lap`. A scene has far fewer overlapping pairs than the N x M entries of an IoU matrix. Most of
them are unambiguous, so the solver gets only the small rest. The choice is still optimal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_ROUNDS_BEFORE_SOLVER = 2
_SMALL_MATRIX = 512
"""Maximum number of entries for which all pairs are examined, which takes fewer steps."""


class Pairs(NamedTuple):
    """Pairs of boxes that overlap: row in the first set, row in the second, IoU in (0, 1]; (P,) each."""

    row: Index
    col: Index
    iou: Array

    def kept(self, which: Index) -> Pairs:
        """Return the pairs at the (K,) positions `which`."""
        return Pairs(self.row.take(which), self.col.take(which), self.iou.take(which))


def _expand(low: Index, high: Index) -> tuple[Index, Index]:
    """Return owner and value of every integer in the ranges low[i] <= value < high[i]."""
    count = np.maximum(high - low, 0)
    ends = count.cumsum()
    owner = np.arange(len(low)).repeat(count)
    value = np.arange(ends[-1]) + (low - ends + count).repeat(count)
    return owner, value


def _sharing_columns(a: Array, b: Array) -> tuple[Index, Index]:
    """Return the pairs of boxes that overlap in x, that is, where one interval begins within the other."""
    order_a, order_b = a[:, 0].argsort(), b[:, 0].argsort()
    left_a, left_b = a[:, 0].take(order_a), b[:, 0].take(order_b)
    begin_b, end_b = left_b.searchsorted(a[:, 0], "left"), left_b.searchsorted(a[:, 2], "left")
    begin_a, end_a = left_a.searchsorted(b[:, 0], "right"), left_a.searchsorted(b[:, 2], "left")
    row_1, rank_1 = _expand(begin_b, end_b)
    col_2, rank_2 = _expand(begin_a, end_a)
    return np.concatenate((row_1, order_a.take(rank_2))), np.concatenate((order_b.take(rank_1), col_2))


def _among_all(a: Array, b: Array) -> tuple[Index, Index, Array]:
    """Return the pairs of boxes that overlap, and their common areas, from the full matrix."""
    of_a, of_b = a.T[:, :, None], b.T[:, None, :]
    size = np.minimum(of_a[2:], of_b[2:])
    size -= np.maximum(of_a[:2], of_b[:2])
    row, col = (size.min(axis=0) > 0).nonzero()
    at = row * len(b) + col
    width, height = size.reshape(2, -1)
    return row, col, width.take(at) * height.take(at)


def _among_many(a: Array, b: Array) -> tuple[Index, Index, Array]:
    """Return the same without the full matrix, in time proportional to the number of pairs."""
    return _sharing_rows(a, b, *_sharing_columns(a, b))


def _sharing_rows(a: Array, b: Array, row: Index, col: Index) -> tuple[Index, Index, Array]:
    """Return which of the pairs, which all overlap in x, also overlap in y, and their common areas."""
    height = _common(a, b, row, col, axis=1)
    keep = (height > 0).nonzero()[0]
    row, col = row.take(keep), col.take(keep)
    return row, col, height.take(keep) * _common(a, b, row, col, axis=0)


def _common(a: Array, b: Array, row: Index, col: Index, *, axis: int) -> Array:
    """Return how far the boxes of each pair overlap in x (0) or y (1); zero or negative if they do not."""
    extent: Array = np.minimum(a[:, axis + 2].take(row), b[:, axis + 2].take(col))
    extent -= np.maximum(a[:, axis].take(row), b[:, axis].take(col))
    return extent


Blocks = tuple[Index, Index]
"""Of two sets of boxes, the camera of each box, ascending; only boxes of one camera are pairs."""


def _in_blocks(a: Array, b: Array, blocks: Blocks) -> tuple[Index, Index, Array]:
    """Return the overlapping pairs within each camera, ordered as if that camera were processed alone."""
    cameras = int(max(blocks[0][-1], blocks[1][-1])) + 1
    count_a, count_b = (np.bincount(of, minlength=cameras) for of in blocks)
    to_a, to_b = count_a.cumsum(), count_b.cumsum()
    is_small = count_a * count_b <= _SMALL_MATRIX
    low = (to_b - count_b).take(blocks[0])
    row, col = _expand(low, low + (count_b * is_small).take(blocks[0]))
    keep = (_common(a, b, row, col, axis=0) > 0).nonzero()[0]
    parts = [_sharing_rows(a, b, row.take(keep), col.take(keep))]
    for camera in (~is_small).nonzero()[0].tolist():
        at_a, at_b = to_a[camera] - count_a[camera], to_b[camera] - count_b[camera]
        row, col, common = _among_many(a[at_a : to_a[camera]], b[at_b : to_b[camera]])
        parts.append((row + at_a, col + at_b, common))
    if len(parts) == 1:
        return parts[0]
    row, col, common = (np.concatenate(column) for column in zip(*parts, strict=True))
    return row, col, common


def overlapping_pairs(a: Array, b: Array, blocks: Blocks | None = None) -> Pairs:
    """Return all pairs of boxes that share an area, and their IoU.

    Args:
        a: (N, 4) xyxy boxes with an area, finite.
        b: (M, 4) likewise.
        blocks: the cameras of both; None: all belong to one.

    >>> overlapping_pairs(np.array([[0.0, 0, 2, 2], [9, 9, 10, 10]]), np.array([[1.0, 0, 3, 2]]))
    Pairs(row=array([0]), col=array([0]), iou=array([0.33333333]))
    """
    if not len(a) or not len(b):
        return Pairs(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0))
    if blocks is not None:
        row, col, common = _in_blocks(a, b, blocks)
    else:
        find = _among_all if len(a) * len(b) <= _SMALL_MATRIX else _among_many
        row, col, common = find(a, b)
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return Pairs(row, col, common / (area_a.take(row) + area_b.take(col) - common))


def _beyond_doubt(row: Index, col: Index, benefit: Array, rows: int, cols: int) -> NDArray[np.bool_]:
    """Return the pairs that some optimal choice certainly contains; `benefit` is ascending.

    A pair can be fixed when its benefit is at least that of the best other pair of its row plus that of the best other
        pair of its column: replacing those two with this pair then loses nothing.
    """
    rank = np.arange(len(row))
    best_of_row, best_of_col = np.zeros(rows, np.intp), np.zeros(cols, np.intp)
    best_of_row[row], best_of_col[col] = rank, rank
    is_best_of_row, is_best_of_col = best_of_row.take(row) == rank, best_of_col.take(col) == rank
    second_of_row, second_of_col = np.zeros(rows), np.zeros(cols)
    second_of_row[row[~is_best_of_row]] = benefit[~is_best_of_row]
    second_of_col[col[~is_best_of_col]] = benefit[~is_best_of_col]
    sure: NDArray[np.bool_] = is_best_of_row & is_best_of_col
    sure &= benefit >= second_of_row.take(row) + second_of_col.take(col)
    return sure


def _solve(row: Index, col: Index, benefit: Array) -> tuple[Index, Index]:
    import lap

    rows, row_at = np.unique(row, return_inverse=True)
    cols, col_at = np.unique(col, return_inverse=True)
    gain = np.zeros((len(rows), len(cols)))
    gain[row_at, col_at] = benefit
    _, chosen, _ = lap.lapjv(gain.max() - gain, extend_cost=True)
    taken = ((chosen >= 0) & (gain[np.arange(len(rows)), chosen] > 0)).nonzero()[0]
    return rows[taken], cols[chosen[taken]]


def assign(
    row: Index, col: Index, benefit: Array, rows: int, cols: int, camera: Index | None = None
) -> tuple[Index, Index]:
    """Return the one-to-one choice of pairs with the greatest total benefit.

    Args:
        row: (P,) first partner of each candidate pair, in [0, rows).
        col: (P,) second partner, in [0, cols); a pair occurs once.
        benefit: (P,) value of choosing the pair; pairs without a positive benefit are never chosen.
        rows: number of first partners.
        cols: number of second partners.
        camera: (rows,) of each first partner, if pairs of several cameras are chosen at once; ties break as they would
            for each camera alone.

    Returns:
        The chosen rows and columns, in no particular order.

    >>> assign(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.9, 0.8, 0.8]), 2, 2)
    (array([0, 1]), array([1, 0]))
    """
    worth = (benefit > 0).nonzero()[0]
    row, col, benefit = row.take(worth), col.take(worth), benefit.take(worth)
    if _all_different(row) and _all_different(col):
        return row, col
    order = benefit.argsort(kind="stable")
    row, col, benefit = row.take(order), col.take(order), benefit.take(order)
    chosen_rows, chosen_cols = [], []
    for _ in range(_ROUNDS_BEFORE_SOLVER):
        if not len(row):
            break
        sure = _beyond_doubt(row, col, benefit, rows, cols)
        chosen_rows.append(row[sure])
        chosen_cols.append(col[sure])
        free_row, free_col = np.ones(rows, np.bool_), np.ones(cols, np.bool_)
        free_row[row[sure]], free_col[col[sure]] = False, False
        rest = (free_row.take(row) & free_col.take(col)).nonzero()[0]
        row, col, benefit = row.take(rest), col.take(rest), benefit.take(rest)
    owner = np.zeros(len(row), np.intp) if camera is None else camera.take(row)
    for one in sorted(set(owner.tolist())):
        of_it = (owner == one).nonzero()[0]
        solved = _solve(row.take(of_it), col.take(of_it), benefit.take(of_it))
        chosen_rows.append(solved[0])
        chosen_cols.append(solved[1])
    return np.concatenate(chosen_rows), np.concatenate(chosen_cols)


def _all_different(index: Index) -> bool:
    return len(set(index.tolist())) == len(index)


class Rounds:
    """Successive rounds of matching among the same candidate pairs, each limited to what earlier rounds left free.

    Attributes:
        free_rows: (rows,) bool, no partner yet.
        free_cols: (cols,) bool, no partner yet.
    """

    def __init__(self, pairs: Pairs, rows: int, cols: int, camera: Index | None = None) -> None:
        self.pairs = pairs
        self._camera = camera
        self.free_rows = np.ones(rows, np.bool_)
        self.free_cols = np.ones(cols, np.bool_)
        self._rows: list[Index] = []
        self._cols: list[Index] = []

    def choose(
        self, benefit: Array, rows: NDArray[np.bool_], cols: NDArray[np.bool_], pairs: Pairs | None = None
    ) -> None:
        """Match among the `rows` and `cols` that are still free.

        Args:
            benefit: (P,) value of each pair; only positive ones count.
            rows: mask of the rows that take part.
            cols: mask of the columns that take part.
            pairs: candidates that replace those given at the start.
        """
        pairs = self.pairs if pairs is None else pairs
        open_rows, open_cols = rows & self.free_rows, cols & self.free_cols
        if not (open_rows.any() and open_cols.any()):
            return
        keep = (open_rows.take(pairs.row) & open_cols.take(pairs.col) & (benefit > 0)).nonzero()[0]
        if not len(keep):
            return
        row, col = pairs.row.take(keep), pairs.col.take(keep)
        chosen_rows, chosen_cols = assign(row, col, benefit.take(keep), len(rows), len(cols), self._camera)
        self.free_rows[chosen_rows] = False
        self.free_cols[chosen_cols] = False
        self._rows.append(chosen_rows)
        self._cols.append(chosen_cols)

    def chosen(self) -> tuple[Index, Index]:
        """Return all rows and columns matched so far, (K,) each."""
        if not self._rows:
            return np.zeros(0, np.intp), np.zeros(0, np.intp)
        return np.concatenate(self._rows), np.concatenate(self._cols)
