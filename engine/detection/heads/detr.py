"""Query-based detectors: RT-DETR, D-FINE, RF-DETR. One row per query, no NMS; frames are stretched, not padded.

    rtdetr       Ultralytics 8.4: (b, queries, 6), cx, cy, w, h as fractions, score, class
    rtdetr_raw   earlier Ultralytics: (b, queries, 4 + classes), scores after the sigmoid
    detr_logits  Hugging Face RT-DETR and D-FINE: `logits` (b, queries, classes), `pred_boxes` (b, queries, 4);
                 LibreYOLO calls the first `pred_logits`
    detr_softmax Hugging Face DETR and YOLOS: the same, but softmax, last class "no object", ImageNet normalisation
    rfdetr       RF-DETR: `dets` (b, queries, 4), `labels` (b, queries, classes), ImageNet normalisation

The authors' own RT-DETR and D-FINE exports return labels, boxes and scores: see `listed.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.boxes import xyxy_from_cxcywh
from engine.detection.heads.base import Candidates, NmsFreeHead, Outputs, best_class, candidates, frame_box, softmax
from engine.detection.heads.family import IMAGENET_MEAN, IMAGENET_STD, MAX_QUERIES, Family, Layout, is_same
from engine.detection.nms import MAX_KEPT


class RtDetrHead(NmsFreeHead):
    """Output (b, queries, 6) or (b, queries, 4 + classes), see the module docstring.

    Args:
        size_hw: rows and columns of the model's frame.
        scored: whether the columns are score and class rather than one score per class.
    """

    def __init__(self, size_hw: tuple[int, int], scored: bool) -> None:
        self._scale = frame_box(size_hw)
        self._scored = scored

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs."""
        output = outputs[0][row].astype(np.float32, copy=False)
        if self._scored:
            output = output[output[:, 4] > score_threshold]
            return candidates(xyxy_from_cxcywh(output[:, :4] * self._scale), output[:, 4], output[:, 5])
        rows, score, class_id = best_class(output[:, 4:].T, score_threshold)
        return candidates(xyxy_from_cxcywh(output[rows, :4] * self._scale), score, class_id)


class PairHead(NmsFreeHead):
    """Base of heads with boxes, as fractions of the frame, and logits; subclasses turn the logits into scores.

    Args:
        size_hw: rows and columns of the model's frame.
        boxes: position of the boxes among the outputs.
        logits: position of the logits.
    """

    def __init__(self, size_hw: tuple[int, int], boxes: int, logits: int) -> None:
        self._scale = frame_box(size_hw)
        self._boxes, self._logits = boxes, logits

    def _xyxy(self, outputs: Outputs, row: int, query: NDArray[np.intp]) -> NDArray[np.float32]:
        return xyxy_from_cxcywh(outputs[self._boxes][row][query].astype(np.float32) * self._scale)


class LogitsHead(PairHead):
    """Takes the best pairs of query and class, 300 at most, as the authors' code does."""

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs."""
        score = 1 / (1 + np.exp(-outputs[self._logits][row].astype(np.float32)))
        best = np.argsort(-score.ravel(), kind="stable")[:MAX_KEPT]
        best = best[score.ravel()[best] > score_threshold]
        query, class_id = np.divmod(best, score.shape[1])
        return candidates(self._xyxy(outputs, row, query), score.ravel()[best], class_id)


class SoftmaxHead(PairHead):
    """Applies a softmax that ends with "no object", and takes the best other class of each query, as DETR does."""

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs."""
        logits = outputs[self._logits][row].astype(np.float32)
        query, score, class_id = best_class(softmax(logits)[:, :-1].T, score_threshold)
        return candidates(self._xyxy(outputs, row, query), score, class_id)


def _queries(layout: Layout) -> tuple[int | None, ...] | None:
    shape = layout.single(3)
    return shape if shape and shape[2] is not None and (shape[1] is None or shape[1] <= MAX_QUERIES) else None


def _is_scored(layout: Layout) -> bool:
    shape = _queries(layout)
    return shape is not None and shape[2] == 6 and layout.says("rtdetr", "rt-detr")


def _is_raw(layout: Layout) -> bool:
    shape = _queries(layout)
    if shape is None or shape[2] is None or shape[2] < 5 or shape[1] in layout.anchors():
        return False
    if layout.says("rtdetr", "rt-detr"):
        return True
    return shape[2] not in layout.anchors() and shape[2] - 4 == (layout.class_count or 80)


def _raw_classes(layout: Layout) -> int | None:
    columns = layout.shapes[0][2]
    return None if columns is None else columns - 4


def _pair_fits(layout: Layout, boxes: str, logits: str) -> bool:
    shapes = dict(zip(layout.names, layout.shapes, strict=True))
    if not set(shapes) >= {boxes, logits} or not all(len(shapes[name]) == 3 for name in (boxes, logits)):
        return False
    return is_same(shapes[boxes][1], shapes[logits][1])


def _pair_head(layout: Layout, boxes: str, logits: str) -> LogitsHead:
    return LogitsHead(layout.size_hw, layout.names.index(boxes), layout.names.index(logits))


def _logits(layout: Layout) -> str:
    return "pred_logits" if "pred_logits" in layout.names else "logits"


def _is_detr(layout: Layout) -> bool:
    return _pair_fits(layout, "pred_boxes", _logits(layout))


def _is_coco_softmax(layout: Layout) -> bool:
    """Whether the classes are COCO's 91 ids and "no object"; a model with another class count must name the head."""
    return _is_detr(layout) and _pair_classes(layout, _logits(layout)) == 92 and layout.class_count in (None, 91)


def _softmax_head(layout: Layout) -> SoftmaxHead:
    return SoftmaxHead(layout.size_hw, layout.names.index("pred_boxes"), layout.names.index(_logits(layout)))


def _softmax_classes(layout: Layout) -> int | None:
    columns = _pair_classes(layout, _logits(layout))
    return None if columns is None else columns - 1


def _pair_classes(layout: Layout, logits: str) -> int | None:
    return layout.shapes[layout.names.index(logits)][2]


RTDETR = Family(
    "rtdetr", "(b, queries, 6): cx, cy, w, h as fractions, score, class",
    _is_scored, lambda layout: RtDetrHead(layout.size_hw, scored=True), anchor="stretch",
)  # fmt: skip
RTDETR_RAW = Family(
    "rtdetr_raw", "(b, queries, 4 + classes): cx, cy, w, h as fractions, scores",
    _is_raw, lambda layout: RtDetrHead(layout.size_hw, scored=False), _raw_classes, anchor="stretch",
)  # fmt: skip
DETR_LOGITS = Family(
    "detr_logits", "logits or pred_logits (b, queries, classes) and pred_boxes (b, queries, 4)",
    _is_detr,
    lambda layout: _pair_head(layout, "pred_boxes", _logits(layout)),
    lambda layout: _pair_classes(layout, _logits(layout)), anchor="stretch",
)  # fmt: skip
DETR_SOFTMAX = Family(
    "detr_softmax", "logits (b, queries, classes + 1), the last for no object, and pred_boxes (b, queries, 4)",
    _is_coco_softmax, _softmax_head, _softmax_classes,
    mean=IMAGENET_MEAN, std=IMAGENET_STD, anchor="stretch", coco_91=True, fits_named=_is_detr,
)  # fmt: skip
RFDETR = Family(
    "rfdetr", "dets (b, queries, 4) and labels (b, queries, classes)",
    lambda layout: _pair_fits(layout, "dets", "labels"),
    lambda layout: _pair_head(layout, "dets", "labels"),
    lambda layout: _pair_classes(layout, "labels"),
    mean=IMAGENET_MEAN, std=IMAGENET_STD, anchor="stretch", coco_91=True,
)  # fmt: skip
