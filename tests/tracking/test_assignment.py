from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from engine.boxes import iou_matrix
from engine.tracking.assignment import assign, overlapping_pairs


def boxes(rng: np.random.Generator, count: int, extent: float) -> np.ndarray:
    corner = rng.uniform(0, extent, (count, 2))
    return np.hstack((corner, corner + rng.uniform(1, 60, (count, 2))))


@pytest.mark.parametrize("extent", [50.0, 300.0, 3000.0])
@pytest.mark.parametrize(("rows", "cols"), [(0, 5), (5, 0), (1, 1), (30, 40), (80, 60)])
def test_pairs_are_the_positive_entries_of_the_iou_matrix(rows: int, cols: int, extent: float) -> None:
    rng = np.random.default_rng(rows + cols)
    a, b = boxes(rng, rows, extent), boxes(rng, cols, extent)
    pairs = overlapping_pairs(a, b)
    matrix = np.zeros((rows, cols))
    matrix[pairs.row, pairs.col] = pairs.iou
    np.testing.assert_allclose(matrix, iou_matrix(a.astype(np.float32), b.astype(np.float32)), atol=1e-4)
    assert len(set(zip(pairs.row.tolist(), pairs.col.tolist(), strict=True))) == len(pairs.row)


def test_boxes_with_the_same_left_edge_are_one_pair() -> None:
    same = np.array([[1.0, 1.0, 3.0, 3.0]])
    assert overlapping_pairs(same, same).iou.tolist() == [1.0]


def test_touching_boxes_are_no_pair() -> None:
    assert not len(overlapping_pairs(np.array([[0.0, 0, 2, 2]]), np.array([[2.0, 0, 4, 2]])).row)


@pytest.mark.parametrize("seed", range(30))
def test_the_choice_is_the_optimal_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(1, 25, 2)
    gain = np.where(rng.random((rows, cols)) < rng.uniform(0.05, 1), rng.uniform(-0.2, 1, (rows, cols)), 0)
    if seed % 3 == 0:
        gain = np.round(gain, 1)
    row, col = np.nonzero(gain)
    chosen = assign(row, col, gain[row, col], rows, cols)
    best = linear_sum_assignment(-np.maximum(gain, 0))
    assert len(set(chosen[0].tolist())) == len(chosen[0])
    assert len(set(chosen[1].tolist())) == len(chosen[1])
    assert (gain[chosen] > 0).all()
    assert gain[chosen].sum() == pytest.approx(np.maximum(gain, 0)[best].sum())


def test_no_pairs_choose_nothing() -> None:
    nothing = np.zeros(0, np.intp)
    assert [len(side) for side in assign(nothing, nothing, np.zeros(0), 3, 4)] == [0, 0]
