"""The base class of all heads, and the candidates that they share."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import ClassScores
from engine.boxes import Boxes
from engine.detection.letterbox import Letterbox
from engine.detection.nms import MAX_KEPT, nms

Outputs = Sequence[NDArray[Any]]
FARTHEST = np.float32(1e6)
"""Pixels from the corner of the model's frame beyond which a box is rejected."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes of one image above the score threshold, in pixels of the model's frame.

    Attributes:
        xyxy: (N, 4) float32.
        score: (N,) float32.
        class_id: (N,) int32.
        extra: further columns with N rows each, for the head's own `extra`.
    """

    xyxy: Boxes
    score: NDArray[np.float32]
    class_id: NDArray[np.int32]
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.score)

    def rows(self, chosen: Any) -> Candidates:
        """Return the rows that a mask, slice or index array chooses."""
        extra = {name: column[chosen] for name, column in self.extra.items()}
        return Candidates(self.xyxy[chosen], self.score[chosen], self.class_id[chosen], extra)


def is_sound(xyxy: Boxes) -> NDArray[np.bool_]:
    """Return (N,) whether boxes are finite, not inside out, and not absurdly far away."""
    near: NDArray[np.bool_] = np.logical_and.reduce(np.abs(xyxy) < FARTHEST, axis=1)
    return near & (xyxy[:, 2] >= xyxy[:, 0]) & (xyxy[:, 3] >= xyxy[:, 1])


class Head:
    """Decodes one output layout. Subclasses define `decode`; the defaults of the other methods suit plain boxes."""

    @property
    def class_scores(self) -> ClassScores | None:
        """The class scores, of which a backend may compute just the best per box; None if there are none."""
        return None

    def merged(self) -> Head:
        """Return the head for outputs in which a backend has replaced `class_scores` with the best class."""
        raise NotImplementedError

    def find(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of image `row` of the batch whose score is above the threshold.

        Drops boxes that are not finite, inside out or absurdly far away, whatever the model computed.

        Args:
            outputs: of the model, (b, ...) each, in the order that the layout defines.
            row: of the batch.
            score_threshold: from 0 to 1.
        """
        with np.errstate(all="ignore"):
            found = self.decode(outputs, row, score_threshold)
            sound = is_sound(found.xyxy)
        return found if sound.all() else found.rows(sound)

    def find_all(self, outputs: Outputs, count: int, score_threshold: float) -> list[Candidates]:
        """Return the candidates of the first `count` images of the (b, ...) outputs, each as `find` does."""
        return [self.find(outputs, row, score_threshold) for row in range(count)]

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates as the (b, ...) outputs encode them; `find` calls this with numpy's warnings off."""
        raise NotImplementedError

    def suppress(self, candidates: Candidates, iou_threshold: float) -> NDArray[np.intp]:
        """Return the (K,) rows to keep, the best score first: exact NMS per class."""
        return nms(candidates.xyxy, candidates.score, candidates.class_id, iou_threshold)

    def extra(self, kept: Candidates, outputs: Outputs, row: int, box: Letterbox) -> dict[str, NDArray[Any]]:
        """Return the (K, ...) columns of a task other than boxes, in pixels of the source image."""
        return {}


class NmsFreeHead(Head):
    """A head whose outputs already hold one box per object."""

    def suppress(self, candidates: Candidates, iou_threshold: float) -> NDArray[np.intp]:
        """Return all rows, (K,), the best score first, 300 at most."""
        return np.argsort(-candidates.score, kind="stable")[:MAX_KEPT]


def frame_box(size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Return (4,) width, height, width, height of the model's frame, which turns fractions into xyxy pixels."""
    return np.array([size_hw[1], size_hw[0], size_hw[1], size_hw[0]], np.float32)


def softmax(logits: NDArray[np.float32], axis: int = 1) -> NDArray[np.float32]:
    """Return the probabilities along an axis.

    >>> softmax(np.float32([[0, 0], [0, 1e9]])).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    weight = np.exp(logits - logits.max(axis=axis, keepdims=True))
    probability: NDArray[np.float32] = weight / weight.sum(axis=axis, keepdims=True)
    return probability


def best_class(scores: NDArray[Any], score_threshold: float) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[np.intp]]:
    """Return the columns whose best class is above the threshold, with that score and class.

    The maximum over the classes is computed first and eliminates nearly all columns; `argmax` runs on the few that
    remain. This takes an eighth of the time of `argmax` over all columns.

    Args:
        scores: (classes, N) scores.
        score_threshold: a NaN score never passes.

    Returns:
        Columns (K,), scores (K,), classes (K,).
    """
    best = scores.max(axis=0)
    columns = (best > score_threshold).nonzero()[0]
    return columns, best.take(columns), scores.take(columns, axis=1).argmax(axis=0)


def split(found: Candidates, image: NDArray[np.intp], count: int) -> list[Candidates]:
    """Return the candidates of each of `count` images; `image` (N,) is ascending."""
    ends = np.searchsorted(image, np.arange(count + 1)).tolist()
    return [found.rows(slice(start, end)) for start, end in itertools.pairwise(ends)]


def candidates(xyxy: NDArray[Any], score: NDArray[Any], class_id: NDArray[Any], **extra: NDArray[Any]) -> Candidates:
    """Return (N, 4) boxes, (N,) scores and classes and (N, ...) columns as `Candidates`, converted to its dtypes."""
    return Candidates(
        np.ascontiguousarray(xyxy, np.float32),
        score.astype(np.float32, copy=False),
        class_id.astype(np.int32, copy=False),
        extra,
    )
