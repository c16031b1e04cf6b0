"""Certified classifications by randomised smoothing (Cohen et al.

2019): no perturbation within a radius can change them.

The most frequent answer under Gaussian noise is certified within sigma * Phi^-1(p) in the L2 norm of all pixels as
shares of their range, where p is a lower confidence bound of its probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.optional import require

FIRST_DRAWS = 20
DRAWS = 100
ALPHA = 0.001
MAX_PICTURES = 200
Image = NDArray[np.uint8]
Ask = Callable[[Sequence[Image]], NDArray[np.float32]]


def certify(
    ask: Ask,
    images: Sequence[Image],
    truth: NDArray[np.int64],
    class_count: int,
    sigma: float,
    seed: int = 0,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Return the shares of images whose correct class is certified within radii 0, sigma and 2 sigma.

    The noise is added to the stored images, before the classifier scales them.

    Args:
        ask: returns (N, classes) probabilities of images.
        images: (h, w, 3) uint8.
        truth: (N,) classes.
        class_count: number of classes.
        sigma: standard deviation of the noise, as a share of the range of a pixel.
        seed: of the noise, and of the choice of images if there are more than 200.
        draws: noisy copies per image.

    Raises:
        ConfigError: sigma is not between 0 and 2.
    """
    if not 0 < sigma <= 2:
        raise ConfigError(f"sigma {sigma}: expected above 0 to 2, as a share of the range of a pixel")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(images))[:MAX_PICTURES])
    radius = np.array([_radius(ask, images[row], int(truth[row]), class_count, sigma, rng, draws) for row in rows])
    shares = {f"{least:g}": round(float((radius >= least).mean()), 4) for least in (0, sigma, 2 * sigma)}
    return {"sigma": sigma, "pictures": len(rows), "draws": draws, "certified_at_l2": shares}


def _radius(
    ask: Ask, image: Image, truth: int, class_count: int, sigma: float, rng: np.random.Generator, draws: int
) -> float:
    """Return the certified radius of the correct class; -1 if the answer is wrong or uncertain."""
    if int(_votes(ask, image, class_count, sigma, rng, FIRST_DRAWS).argmax()) != truth:
        return -1.0
    votes = int(_votes(ask, image, class_count, sigma, rng, draws)[truth])
    stats = require("scipy.stats")
    least = float(stats.beta.ppf(ALPHA, votes, draws - votes + 1)) if votes else 0.0
    return sigma * float(stats.norm.ppf(least)) if least > 0.5 else -1.0


def _votes(
    ask: Ask, image: Image, class_count: int, sigma: float, rng: np.random.Generator, draws: int
) -> NDArray[np.int64]:
    noisy = image[None] + rng.normal(0, sigma * 255, (draws, *image.shape))
    answers = ask(list(np.clip(np.round(noisy), 0, 255).astype(np.uint8))).argmax(axis=1)
    return np.bincount(answers, minlength=class_count)
