"""Boxes of Ultralytics exports (8.0 to 8.4): YOLOv3u, v5u, v6, v8, v9, v10, 11, 12, 26.

Raw: (b, 4 + classes, anchors), rows cx, cy, w, h in pixels of the model's frame, then sigmoid scores, no objectness.
End-to-end (v10, 26, or any with `nms=True`): (b, rows, 6), columns x1, y1, x2, y2, score, class; rows of zeros pad.
Further rows or columns belong to other tasks and are passed on as the column `rest`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import ClassScores
from engine.boxes import xyxy_from_cxcywh
from engine.detection.heads.base import Candidates, Head, NmsFreeHead, Outputs, best_class, candidates, is_sound, split
from engine.detection.heads.family import MAX_QUERIES, Family, Layout
from engine.detection.heads.objectness import is_open


class RawHead(Head):
    """Output (b, 4 + classes + rest, anchors), see the module docstring.

    Args:
        classes: number of classes, None if there is no rest.
        is_merged: whether two rows, the best score and its class, replace the scores.
    """

    def __init__(self, classes: int | None = None, *, is_merged: bool = False) -> None:
        self._classes = classes
        self._is_merged = is_merged
        self._end = None if classes is None else 4 + (2 if is_merged else classes)

    @property
    def class_scores(self) -> ClassScores | None:
        """The class rows, if there are enough of them for merging to pay off."""
        return ClassScores(4, self._classes) if self._classes is not None and self._classes > 2 else None

    def merged(self) -> RawHead:
        """Return the head for merged scores."""
        return RawHead(self._classes, is_merged=True)

    def best(self, output: NDArray[Any], score_threshold: float) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[Any]]:
        """Return (K,) columns, scores and classes of the anchors whose best class is above the threshold.

        Args:
            output: (rows, anchors) of one image.
            score_threshold: from 0 to 1.
        """
        scores = output[4 : self._end]
        if not self._is_merged:
            return best_class(scores, score_threshold)
        columns = (scores[0] > score_threshold).nonzero()[0]
        return columns, scores[0].take(columns), scores[1].take(columns)

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs."""
        output = outputs[0][row]
        columns, score, class_id = self.best(output, score_threshold)
        xyxy = xyxy_from_cxcywh(output[:4].take(columns, axis=1).T.astype(np.float32, copy=False))
        if self._end is None or self._end == len(output):
            return candidates(xyxy, score, class_id)
        return candidates(xyxy, score, class_id, rest=output[self._end :].take(columns, axis=1).T.astype(np.float32))

    def find_all(self, outputs: Outputs, count: int, score_threshold: float) -> list[Candidates]:
        """Return the candidates of the first `count` images, computed in one pass over all of them."""
        if count == 1:
            return super().find_all(outputs, count, score_threshold)
        output = outputs[0][:count]
        with np.errstate(all="ignore"):
            scores = output[:, 4 : self._end]
            best = scores[:, 0] if self._is_merged else scores.max(axis=1)
            image, column = (best > score_threshold).nonzero()
            xyxy = xyxy_from_cxcywh(output[image, :4, column].astype(np.float32, copy=False))
            of_class = scores[image, :, column]
            class_id = of_class[:, 1] if self._is_merged else of_class.argmax(axis=1)
            extra = {}
            if self._end is not None and self._end < output.shape[1]:
                extra["rest"] = output[image, self._end :, column].astype(np.float32)
            found = candidates(xyxy, best[image, column], class_id, **extra)
            sound = is_sound(found.xyxy)
        if not sound.all():
            image, found = image[sound], found.rows(sound)
        return split(found, image, count)


class EndToEndHead(NmsFreeHead):
    """Output (b, rows, 6 + rest), see the module docstring."""

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs."""
        output = outputs[0][row]
        return self._candidates(output[output[:, 4] > score_threshold])

    def _candidates(self, output: NDArray[Any]) -> Candidates:
        return candidates(output[:, :4], output[:, 4], output[:, 5], rest=output[:, 6:].astype(np.float32))

    def find_all(self, outputs: Outputs, count: int, score_threshold: float) -> list[Candidates]:
        """Return the candidates of the first `count` images, computed in one pass over all of them."""
        if count == 1:
            return super().find_all(outputs, count, score_threshold)
        output = outputs[0][:count]
        with np.errstate(all="ignore"):
            image, row = (output[..., 4] > score_threshold).nonzero()
            found = self._candidates(output[image, row])
            sound = is_sound(found.xyxy)
        if not sound.all():
            image, found = image[sound], found.rows(sound)
        return split(found, image, count)


def is_raw(layout: Layout) -> bool:
    """Whether the only output is (b, 5 or more, anchors)."""
    shape = layout.single(3)
    if shape is None or shape[1] is None or shape[1] < 5:
        return False
    return shape[2] is None or shape[2] in layout.anchors()


def is_end_to_end(layout: Layout) -> bool:
    """Whether the only output is (b, rows, 6), and is neither an RT-DETR's nor a one-class YOLOv5's."""
    shape = layout.single(3)
    few = shape is not None and (shape[1] is None or shape[1] <= MAX_QUERIES)
    return few and shape is not None and shape[2] == 6 and not layout.says("rtdetr", "rt-detr") and not is_open(layout)


def _raw_classes(layout: Layout) -> int | None:
    rows = layout.shapes[0][1]
    return None if rows is None else rows - 4


END_TO_END = Family("end_to_end", "(b, rows, 6): x1, y1, x2, y2, score, class", is_end_to_end, lambda _: EndToEndHead())
RAW = Family("yolo", "(b, 4 + classes, anchors)", is_raw, lambda layout: RawHead(_raw_classes(layout)), _raw_classes)
