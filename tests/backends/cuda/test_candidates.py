"""The candidates kernel: its real source compiled for the processor, and its numpy twin, against decoding the head."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backends.base import ClassScores
from engine.backends.cuda.candidates import CandidateLayout
from engine.detection.heads.base import best_class
from engine.testing.cuda_kernels import Kernel, keep_candidates
from tests.backends.cuda.processor_kernels import memory_at, run_candidates


@pytest.fixture(params=[pytest.param(run_candidates, id="source"), pytest.param(keep_candidates, id="numpy")])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    run: Kernel = request.param
    return run


def head(images: int, classes: int, anchors: int, rest: int = 0, density: float = 0.004) -> NDArray[np.float32]:
    """Return a raw head with few levels of score, so that classes tie, and some NaN among the scores."""
    rng = np.random.default_rng(rest)
    boxes = rng.uniform(0, 640, (images, 4, anchors))
    scores = rng.integers(0, 9, (images, classes, anchors)) / 8 * (rng.random((images, classes, anchors)) < density)
    scores[:, classes // 2, ::97] = np.nan
    return np.concatenate((boxes, scores, rng.normal(size=(images, rest, anchors))), axis=1).astype(np.float32)


def kept(kernel: Kernel, numbers: NDArray[np.float32], layout: CandidateLayout, above: float) -> NDArray[np.int32]:
    """Return the words that the kernel leaves behind."""
    words = np.full(layout.words(layout.images), -1, np.int32)
    words[: layout.images] = 0
    values = layout.parameters(numbers.ctypes.data, words.ctypes.data, above)
    kernel(memory_at, len(numbers), values)
    return words


@pytest.mark.parametrize("rest", [0, 1, 51])
@pytest.mark.parametrize("above", [0.25, 0.375, 0.3, 0.0, 0.99])
def test_what_is_kept_is_what_the_head_would_find(kernel: Kernel, rest: int, above: float):
    numbers = head(3, 20, 4000, rest)
    layout = CandidateLayout(ClassScores(4, 20), 24 + rest, 4000, images=5)
    found = layout.ordered(kept(kernel, numbers, layout, above), len(numbers))
    assert found is not None
    np.testing.assert_array_equal(found, layout.merged(numbers, above))
    for image, columns in zip(numbers, found, strict=True):
        anchors, score, class_id = best_class(image[4:24], above)
        assert len(anchors) > 0
        np.testing.assert_array_equal(columns[:4, : len(anchors)], image[:4, anchors])
        np.testing.assert_array_equal(columns[4, : len(anchors)], score)
        np.testing.assert_array_equal(columns[5, : len(anchors)], class_id)
        np.testing.assert_array_equal(columns[6:, : len(anchors)], image[24:, anchors])
        assert (columns[:, len(anchors) :] == 0).all()


def test_more_than_fit_are_counted_and_the_host_is_told(kernel: Kernel):
    numbers = head(2, 20, 4000, density=0.2)
    numbers[1, 4:] = 0
    layout = CandidateLayout(ClassScores(4, 20), 24, 4000, images=2)
    words = kept(kernel, numbers, layout, 0.25)
    assert words[0] == len(best_class(numbers[0, 4:], 0.25)[0]) > layout.limit == 500
    assert words[1] == 0
    assert layout.ordered(words, 2) is None


def test_no_candidate_is_an_empty_result(kernel: Kernel):
    numbers = head(2, 20, 4000)
    layout = CandidateLayout(ClassScores(4, 20), 24, 4000, images=2)
    found = layout.ordered(kept(kernel, numbers, layout, 1.0), 2)
    assert found is not None
    assert found.shape == (2, 6, 0)


@pytest.mark.parametrize(("anchors", "limit"), [(21, 21), (300, 64), (8400, 1050)])
def test_room_is_an_eighth_of_the_anchors(anchors: int, limit: int):
    assert CandidateLayout(ClassScores(4, 80), 84, anchors, 1).limit == limit
