"""Decides whether one model is better than another, by a confidence interval from resampling the test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from pipelines.learning.testing.matching import Matches, mean_average_precision

RESAMPLES = 400
LEVEL = 0.95
Weights = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference of a score between two models on the same images.

    Attributes:
        score: name of the score.
        this: of the first model.
        other: of the second.
        difference: this - other.
        low: lower end of its 95 % confidence interval.
        high: upper end.
        verdict: `better`, `worse` or `no clear difference`.
    """

    score: str
    this: float
    other: float
    difference: float
    low: float
    high: float
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {key: round(v, 4) if isinstance(v, float) else v for key, v in asdict(self).items()}


def compare(
    score: str, this: Callable[[Weights], float], other: Callable[[Weights], float], images: int, *, seed: int = 0
) -> Comparison:
    """Resample the images and return the difference of two models with its interval.

    Args:
        score: name of the score.
        this: returns the first model's score for (images,) weights, how often each image counts.
        other: the second model's.
        images: number of images.
        seed: of the resampling.

    Raises:
        ConfigError: fewer than two images.
    """
    if images < 2:
        raise ConfigError(f"{images} image: a comparison needs at least two")
    rng, once = np.random.default_rng(seed), np.ones(images, np.int64)
    differences = []
    for _ in range(RESAMPLES):
        weight = np.bincount(rng.integers(0, images, images), minlength=images)
        differences.append(this(weight) - other(weight))
    tail = (1 - LEVEL) / 2 * 100
    low, high = np.nanpercentile(differences, (tail, 100 - tail)).tolist()
    verdict = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
    first, second = this(once), other(once)
    return Comparison(score, first, second, first - second, low, high, verdict)


def compare_detectors(this: Matches, other: Matches) -> Comparison:
    """Compare the mAP50-95 of two detectors on the same images."""
    return compare(
        "map50_95",
        lambda weight: mean_average_precision(this, weight)[1],
        lambda weight: mean_average_precision(other, weight)[1],
        len(this.objects),
    )


def compare_answers(this: NDArray[np.bool_], other: NDArray[np.bool_]) -> Comparison:
    """Compare the accuracy of two classifiers, given (images,) bool: which each got right."""
    return compare(
        "accuracy",
        lambda weight: float((this * weight).sum() / weight.sum()),
        lambda weight: float((other * weight).sum() / weight.sum()),
        len(this),
    )
