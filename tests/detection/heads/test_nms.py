from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.detection.nms import BLOCK, MAX_KEPT, nms
from tests.detection.heads.reference import greedy_nms

Scene = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]


def scene(seed: int, count: int, spread: float = 200.0, size: float = 60.0, classes: int = 3) -> Scene:
    """Boxes with whole-number corners, so that IoUs are far from rounding."""
    random = np.random.default_rng(seed)
    corner = random.integers(0, int(spread), (count, 2))
    sizes = random.integers(1, int(size) + 1, (count, 2))
    boxes = np.concatenate((corner, corner + sizes), axis=1).astype(np.float32)
    return boxes, random.random(count).astype(np.float32), random.integers(0, classes, count).astype(np.int32)


@pytest.mark.parametrize("threshold", [0.3, 0.453, 0.703])
@pytest.mark.parametrize("count", [0, 1, 2, 50, BLOCK - 1, BLOCK, BLOCK + 1, 700])
def test_keeps_what_the_definition_keeps(count: int, threshold: float) -> None:
    boxes, scores, classes = scene(count, count)
    expected = greedy_nms(boxes.tolist(), scores.tolist(), classes.tolist(), threshold)[:MAX_KEPT]
    assert nms(boxes, scores, classes, threshold).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(0, 120), st.sampled_from([5, 40, 300]), st.sampled_from([0.203, 0.503, 0.907])
)
def test_any_scene_is_thinned_like_the_definition_says(seed: int, count: int, spread: int, threshold: float) -> None:
    boxes, scores, classes = scene(seed, count, spread)
    expected = greedy_nms(boxes.tolist(), scores.tolist(), classes.tolist(), threshold)
    assert nms(boxes, scores, classes, threshold).tolist() == expected


def test_agrees_with_opencv() -> None:
    boxes, scores, classes = scene(11, 250)
    tlwh = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
    theirs = cv2.dnn.NMSBoxesBatched(tlwh.tolist(), scores.tolist(), classes.tolist(), 0.0, 0.453)
    assert sorted(nms(boxes, scores, classes, 0.453).tolist()) == sorted(np.asarray(theirs).ravel().tolist())


def test_equal_scores_keep_the_earlier_row() -> None:
    boxes = np.float32([[0, 0, 10, 10]] * 3)
    assert nms(boxes, np.float32([0.5, 0.5, 0.5]), np.int32([0, 0, 0]), 0.5).tolist() == [0]


def test_classes_do_not_suppress_each_other() -> None:
    boxes = np.float32([[0, 0, 10, 10]] * 2)
    assert nms(boxes, np.float32([0.5, 0.6]), np.int32([0, 1]), 0.5).tolist() == [1, 0]


def test_an_overlap_equal_to_the_threshold_stays() -> None:
    boxes = np.float32([[0, 0, 2, 1], [0, 0, 1, 1]])  # IoU is exactly a half
    assert nms(boxes, np.float32([0.9, 0.8]), np.int32([0, 0]), 0.5).tolist() == [0, 1]


def test_three_hundred_boxes_come_out_at_most() -> None:
    boxes, scores, classes = scene(5, 8400, spread=5000, size=4, classes=1)
    kept = nms(boxes, scores, classes, 0.5)
    assert len(kept) == MAX_KEPT
    assert (np.diff(scores[kept]) <= 0).all()


def test_boxes_without_area_do_no_harm() -> None:
    boxes = np.float32([[5, 5, 5, 5], [5, 5, 5, 9], [0, 0, 10, 10]])
    assert nms(boxes, np.float32([0.9, 0.8, 0.7]), np.int32([0, 0, 0]), 0.5).tolist() == [0, 1, 2]


def worst_scene() -> Scene:
    """299 boxes apart from each other take the lead, 8,101 more each repeat one of them: no early end."""
    random = np.random.default_rng(3)
    column, row = np.meshgrid(np.arange(20), np.arange(15))
    corner = np.stack((column.ravel(), row.ravel()), axis=1)[:299] * 30.0
    leaders = np.concatenate((corner, corner + 20), axis=1)
    boxes = np.concatenate((leaders, leaders[random.integers(0, 299, 8101)])).astype(np.float32)
    scores = np.concatenate((np.linspace(1.0, 0.9, 299), random.random(8101) * 0.8)).astype(np.float32)
    return boxes, scores, np.zeros(8400, np.int32)


def test_the_worst_case_costs_a_small_multiple_of_the_common_one() -> None:
    worst, common = worst_scene(), scene(6, 8400, spread=640, size=100, classes=80)
    assert len(nms(*worst, 0.5)) == 299
    assert fastest_s(worst) < 40 * fastest_s(common)


def fastest_s(args: Scene) -> float:
    times = []
    for _ in range(5):
        started = time.process_time()
        nms(*args, 0.5)
        times.append(time.process_time() - started)
    return min(times)
