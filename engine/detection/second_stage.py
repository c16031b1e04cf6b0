"""Second stage: a classifier on the boxes of a detector, with results cached per track.

The classes of a track rarely change, so each track is classified once, and again only when its box has grown clearly
(the object is nearer and shows more detail) or after a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.boxes import clip
from engine.clock import NS_PER_S
from engine.data import Detections, Frame, Tracks
from engine.detection.classify import TOP, ImageClassifier
from engine.detection.load import known_class_ids
from engine.errors import ConfigError

MIN_SIDE = 8
GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class Answer:
    """The classifier's result for one track.

    Attributes:
        classes: (K, 2) float32, class id and probability, best first.
        area: of the box at that time, in square pixels.
        asked_ns: monotonic time of the classification.
    """

    classes: NDArray[np.float32]
    area: float
    asked_ns: int


class SecondStage:
    """Classifies the boxes of chosen classes. Use one per source, because it remembers that source's tracks.

    Args:
        classifier: runs on the crops, batched.
        class_ids: classes of the first stage to classify; None for all.
        classes: the same by name or number, looked up in each model that makes tracks.
        top: number of classes per result.
        refresh_s: time after which a track is classified again.
        margin: share of the box's size added on each side.

    Raises:
        ConfigError: `top`, `refresh_s` or `margin` is out of range.
    """

    def __init__(
        self,
        classifier: ImageClassifier,
        *,
        class_ids: frozenset[int] | None = None,
        classes: Sequence[str | int] | None = None,
        top: int = TOP,
        refresh_s: float = 10.0,
        margin: float = 0.0,
    ) -> None:
        if top < 1 or refresh_s < 0 or not 0 <= margin <= 1:
            raise ConfigError(f"top {top}, refresh_s {refresh_s}, margin {margin}: expected >= 1, >= 0, 0 to 1")
        self._classifier = classifier
        self._classes = classes
        self._class_ids = frozenset() if class_ids is None and classes is not None else class_ids
        self._top = top
        self._refresh_ns = int(refresh_s * NS_PER_S)
        self._margin = margin
        self._answers: dict[int, Answer] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name by class id, of the classifier."""
        return self._classifier.class_names

    def open(self) -> None:
        """Load the classifier. Raises `ModelError`; harmless when repeated."""
        self._classifier.open()

    def close(self) -> None:
        """Free the classifier; harmless when repeated."""
        self._classifier.close()

    def clone(self) -> SecondStage:
        """Return a second stage for another source that uses the same classifier."""
        return SecondStage(
            self._classifier,
            class_ids=None if self._classes is not None else self._class_ids,
            classes=self._classes,
            top=self._top,
            refresh_s=self._refresh_ns / NS_PER_S,
            margin=self._margin,
        )

    def read_classes(self, class_names: Sequence[str]) -> None:
        """Look up `classes` among the names of the model that produces the tracks; unknown ones are ignored."""
        if self._classes is not None:
            self._class_ids = frozenset(known_class_ids(self._classes, class_names))

    def classify(self, frame: Frame, detections: Detections) -> Detections:
        """Return the detections with a column `classes`, (N, K, 2) class id and probability, NaN if not classified."""
        rows = np.flatnonzero(self._wanted(detections.class_id))
        answers = self._ask(frame, detections.xyxy[rows])
        depth = min(self._top, len(self._classifier.class_names))
        column = np.full((len(detections), depth, 2), np.nan, np.float32)
        column[rows] = answers
        extra = {**detections.extra, "classes": column}
        return Detections(detections.xyxy, detections.score, detections.class_id, extra)

    def update(self, frame: Frame, tracks: Tracks) -> Mapping[int, NDArray[np.float32]]:
        """Return the classes of each track, (K, 2) by track id, after classifying those that are due.

        Tracks that are gone are forgotten.
        """
        area = (tracks.xyxy[:, 2] - tracks.xyxy[:, 0]) * (tracks.xyxy[:, 3] - tracks.xyxy[:, 1])
        wanted = self._wanted(tracks.class_id)
        due = [row for row in np.flatnonzero(wanted).tolist() if self._is_due(tracks, row, area[row], frame)]
        found = self._ask(frame, tracks.xyxy[due])
        for row, classes in zip(due, found, strict=True):
            self._answers[int(tracks.track_id[row])] = Answer(classes, float(area[row]), frame.scene_ns)
        present = set(tracks.track_id.tolist())
        self._answers = {track_id: answer for track_id, answer in self._answers.items() if track_id in present}
        return {track_id: answer.classes for track_id, answer in self._answers.items()}

    def _wanted(self, class_id: NDArray[np.int32]) -> NDArray[np.bool_]:
        return np.ones(len(class_id), bool) if self._class_ids is None else np.isin(class_id, list(self._class_ids))

    def _is_due(self, tracks: Tracks, row: int, area: float, frame: Frame) -> bool:
        answer = self._answers.get(int(tracks.track_id[row]))
        if answer is None:
            return True
        return area > GROWTH * answer.area or not 0 <= frame.scene_ns - answer.asked_ns <= self._refresh_ns

    def _ask(self, frame: Frame, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, K, 2) classes of the boxes; NaN for boxes too small to show anything."""
        depth = min(self._top, len(self._classifier.class_names))
        answers = np.full((len(xyxy), depth, 2), np.nan, np.float32)
        margin = (xyxy[:, 2:] - xyxy[:, :2]) * np.float32(self._margin)
        grown = np.concatenate((xyxy[:, :2] - margin, xyxy[:, 2:] + margin), axis=1)
        corners = np.round(clip(grown, frame.width, frame.height)).astype(int)
        large = np.flatnonzero((corners[:, 2:] - corners[:, :2] >= MIN_SIDE).all(axis=1))
        crops = [frame.image[y1:y2, x1:x2] for x1, y1, x2, y2 in corners[large].tolist()]
        probability = self._classifier.probabilities(crops, crop=False)
        best = np.argsort(-probability, axis=1, kind="stable")[:, :depth]
        answers[large] = np.stack((best, np.take_along_axis(probability, best, axis=1)), axis=2)
        return answers
