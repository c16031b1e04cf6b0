"""Rescoring by context: an object's position and neighbours indicate how likely it is.

A logistic regression on a detection's score, position and size, and the classes found near it. It is trained on one
half of the images and kept only if it improves the score on the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data import Detections
from engine.optional import require
from pipelines.learning.testing.compare import compare
from pipelines.learning.testing.matching import Objects, match, mean_average_precision

MIN_ROWS = 40
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ContextResult:
    """Whether context helps.

    Attributes:
        map50: of the held-out half, as detected.
        with_context: of the same half, rescored.
        kept: whether it is better on the held-out half, with 95 % confidence.
        learnt: number of training images.
        scored: number of held-out images.
    """

    map50: float
    with_context: float
    kept: bool
    learnt: int
    scored: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}


def try_context(
    found: Sequence[Detections],
    truth: Sequence[Objects],
    sizes: Sequence[tuple[int, int]],
    class_count: int,
    *,
    seed: int = 0,
) -> ContextResult | None:
    """Train on a random half of the images and score the other; None if there are too few detections.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    order = np.random.default_rng(seed).permutation(len(found)).tolist()
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    held = [found[row] for row in halves[1]]
    rows, hits = [], []
    for row in halves[0]:
        matched = match([found[row]], [truth[row]], class_count)
        ordered = found[row][np.argsort(-found[row].score, kind="stable")]
        rows.append(features(ordered, sizes[row], class_count))
        hits.append(matched.hit[:, 0])
    target = np.concatenate(hits) if hits else np.zeros(0, bool)
    if len(target) < MIN_ROWS or target.all() or not target.any():
        return None
    linear = require("sklearn.linear_model", extra="classic")
    model = linear.LogisticRegression(C=0.1, max_iter=1000).fit(np.concatenate(rows), target)
    again = [_rescored(model, found[row], sizes[row], class_count) for row in halves[1]]
    wanted = [truth[row] for row in halves[1]]
    before, after = (match(part, wanted, class_count) for part in (held, again))
    gain = compare(
        "map50",
        lambda weight: mean_average_precision(after, weight)[0],
        lambda weight: mean_average_precision(before, weight)[0],
        len(held),
    )
    return ContextResult(gain.other, gain.this, gain.low > 0, len(halves[0]), len(held))


def _rescored(model: Any, found: Detections, size_wh: tuple[int, int], class_count: int) -> Detections:
    if not len(found):
        return found
    score = model.predict_proba(features(found, size_wh, class_count))[:, 1]
    return Detections(found.xyxy, score, found.class_id)


def features(found: Detections, size_wh: tuple[int, int], class_count: int) -> Floats:
    """Return (N, 8 + 2 * classes): score, place, size, own class, and the best score of each class near it."""
    count = len(found)
    scale = np.array([*size_wh, *size_wh], np.float64)
    box = found.xyxy / scale
    middle, size = (box[:, :2] + box[:, 2:]) / 2, np.maximum(box[:, 2:] - box[:, :2], 1e-4)
    likely = np.clip(found.score.astype(np.float64), 1e-3, 1 - 1e-3)
    own = np.eye(class_count)[found.class_id] if count else np.zeros((0, class_count))
    beside = np.zeros((count, class_count))
    for row in range(count):
        others = np.arange(count) != row
        np.maximum.at(beside[row], found.class_id[others], likely[others])
    columns = [np.log(likely / (1 - likely)), *middle.T, *np.log(size).T, np.log(size).sum(axis=1)]
    columns += [size[:, 1] * middle[:, 1], np.full(count, np.log1p(count))]
    return np.concatenate((np.stack(columns, axis=1), own, beside), axis=1)
