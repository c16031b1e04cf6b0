"""Whole-frame classification through the detector protocol: one row per frame.

The row covers the frame. Its score and class are those of the best class; its column `classes` lists the top ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from engine.data import Detections, Frame
from engine.detection.classic import ReadyDetections
from engine.detection.classify import TOP, ImageClassifier
from engine.errors import ConfigError
from engine.protocols import DetectorFacts

MS_PER_S = 1e3


class FrameClassifier:
    """Classifies each frame.

    Args:
        classifier: runs on whole frames.
        name: of the model.
        top: number of classes reported per frame.
        score_threshold: a frame whose best class is less likely gets no row.
        classes: ids of the classes to report; a frame whose best class is not listed gets no row; None for all.

    Raises:
        ConfigError: `top` or `score_threshold` is out of range.
    """

    depth = 1

    def __init__(
        self,
        classifier: ImageClassifier,
        name: str,
        *,
        top: int = TOP,
        score_threshold: float = 0.0,
        classes: Sequence[int] | None = None,
    ) -> None:
        if top < 1 or not 0 <= score_threshold <= 1:
            raise ConfigError(f"top {top}, score_threshold {score_threshold}: expected 1 or more, and 0 to 1")
        self.name = name
        self.score_threshold = score_threshold
        self._classifier = classifier
        self._top = top
        self._wanted = None if classes is None else frozenset(classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name by class id."""
        return self._classifier.class_names

    @property
    def max_batch(self) -> int:
        """Maximum number of frames per inference."""
        return self._classifier.max_batch

    def describe(self) -> DetectorFacts:
        """Return the backend of the classifier."""
        return self._classifier.describe()

    def open(self) -> None:
        """Load the model. Raises `ModelError`."""
        self._classifier.open()

    def submit(self, frames: Sequence[Frame]) -> ReadyDetections:
        """Classify 1 to `max_batch` frames synchronously: a classifier is used on one thread."""
        started = time.perf_counter()
        return ReadyDetections(self.detect(frames), {"infer": (time.perf_counter() - started) * MS_PER_S})

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Return one row per frame: the whole frame, with `classes` (1, K, 2), class id and probability."""
        probability = self._classifier.probabilities([frame.image for frame in frames])
        best = np.argsort(-probability, axis=1, kind="stable")[:, : self._top]
        score = np.take_along_axis(probability, best, axis=1)
        return [self._row(frame, ids, scores) for frame, ids, scores in zip(frames, best, score, strict=True)]

    def close(self) -> None:
        """Free the model; harmless when repeated."""
        self._classifier.close()

    def _row(self, frame: Frame, class_id: object, score: object) -> Detections:
        classes = np.stack((np.asarray(class_id), np.asarray(score)), axis=1).astype(np.float32)
        is_wanted = self._wanted is None or int(classes[0, 0]) in self._wanted
        if classes[0, 1] < self.score_threshold or not is_wanted:
            return Detections.empty()
        whole = [[0, 0, frame.width, frame.height]]
        return Detections(whole, classes[:1, 1], classes[:1, 0].astype(np.int32), {"classes": classes[None]})
