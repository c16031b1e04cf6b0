"""Classifies images by their SIFT words (Csurka et al. 2004), with OpenCV and numpy only.

SIFT has been free to use since 2020. SURF is not offered: OpenCV has it only in its non-free modules, which no wheel
contains.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.detection.words.file import DESCRIPTOR, Floats, read_words
from engine.protocols import DetectorFacts

Image = NDArray[np.uint8]
MAX_KEYPOINTS = 200


@lru_cache(maxsize=1)
def _sift() -> Any:
    return getattr(cv2, "SIFT_create")(MAX_KEYPOINTS)  # noqa: B009


def descriptors(image: Image, longest_side: int) -> Floats:
    """Return (N, 128) float32 SIFT descriptors of a BGR image scaled to this side; N is 0 for a uniform one."""
    scale = longest_side / max(image.shape[:2])
    size_wh = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    area = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    grey = cv2.cvtColor(cv2.resize(image, size_wh, interpolation=area), cv2.COLOR_BGR2GRAY)
    found = _sift().detectAndCompute(grey, None)[1]
    return np.zeros((0, DESCRIPTOR), np.float32) if found is None else np.asarray(found, np.float32)


def histogram(found: Floats, words: Floats) -> Floats:
    """Return the (K,) square roots of the shares of each word among the descriptors; zeros if there are none."""
    if not len(found):
        return np.zeros(len(words), np.float32)
    nearest = ((words**2).sum(1)[None] - 2 * found @ words.T).argmin(axis=1)
    counts = np.bincount(nearest, minlength=len(words)).astype(np.float32)
    shares: Floats = np.sqrt(counts / counts.sum())
    return shares


class WordsClassifier:
    """A bag-of-words model with the methods of `engine.detection.classify.Classifier`.

    Args:
        path: an `.npz` file written by `framewire classify train --with sift-words`.

    Raises:
        ModelError: the file cannot be used.
    """

    max_batch = 8

    def __init__(self, path: Path) -> None:
        self.model = read_words(path)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name by class id."""
        return self.model.class_names

    def describe(self) -> DetectorFacts:
        """Return OpenCV as the backend."""
        return DetectorFacts("opencv", reason="SIFT words need no network")

    def open(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to free."""

    def __enter__(self) -> WordsClassifier:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def probabilities(self, images: Sequence[Image], *, crop: bool = True) -> Floats:
        """Return (N, classes) probabilities of BGR images of any size; words need no crop at the centre."""
        if not images:
            return np.zeros((0, len(self.class_names)), np.float32)
        side, words = self.model.longest_side, self.model.words
        return self.model.probabilities(np.stack([histogram(descriptors(image, side), words) for image in images]))
