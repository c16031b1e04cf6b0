"""Models that do their own NMS and return a list of objects.

torchvision          Faster R-CNN, RetinaNet, SSD as TorchVision exports them: boxes (N, 4) xyxy in pixels, labels
                     (N) that count from 1 (0 is the background), scores (N), in any order; batch 1
labels_boxes_scores  RT-DETR's and D-FINE's own export: labels, boxes (xyxy) and scores with a batch axis, and a
                     second input for the size (w, h) that the boxes are scaled to; labels count from 0. Without
                     that input pixels and fractions cannot be told apart, and the head must be named
ssd                  SSD of MLPerf and of the ONNX model zoo (`ssd-12`): the same outputs, boxes as fractions,
                     labels that count from 1; must be named
detection_output     SSD in Caffe and OpenVINO: (1, 1, N, 7), image, label, score, x1, y1, x2, y2 as fractions
tf_detection         TensorFlow's detection API: detection_boxes (b, N, 4) y1, x1, y2, x2 as fractions,
                     detection_classes (from 1), detection_scores
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.detection.heads.base import Candidates, NmsFreeHead, Outputs, candidates, frame_box
from engine.detection.heads.family import IMAGENET_MEAN, IMAGENET_STD, ONE, Family, Layout, is_same, never

YXYX = (1, 0, 3, 2)


class ListedHead(NmsFreeHead):
    """Outputs of boxes, labels and scores, see the module docstring.

    Args:
        positions: of boxes, labels and scores among the outputs.
        first_label: label of the first class.
        scale: factor from the boxes to pixels of the model's frame.
        columns: positions of x1, y1, x2, y2.
    """

    def __init__(
        self,
        positions: tuple[int, int, int],
        first_label: int,
        scale: NDArray[np.float32] | None = None,
        columns: tuple[int, ...] = (0, 1, 2, 3),
    ) -> None:
        self._positions = positions
        self._first_label = first_label
        self._scale = np.ones(4, np.float32) if scale is None else scale
        self._columns = list(columns)

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs."""
        boxes, labels, scores = (outputs[position] for position in self._positions)
        if boxes.ndim == 3:
            boxes, labels, scores = boxes[row], labels[row], scores[row]
        passed = scores > score_threshold
        xyxy = boxes[passed][:, self._columns].astype(np.float32) * self._scale
        return candidates(xyxy, scores[passed], labels[passed].astype(np.int64) - self._first_label)


class DetectionOutputHead(NmsFreeHead):
    """Output (1, 1, N, 7), see the module docstring.

    Args:
        size_hw: rows and columns of the model's frame.
    """

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self._scale = frame_box(size_hw)

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs."""
        output = outputs[0].reshape(-1, 7)
        output = output[(output[:, 0] == row) & (output[:, 2] > score_threshold)]
        return candidates(output[:, 3:].astype(np.float32) * self._scale, output[:, 2], output[:, 1] - 1)


def _positions(layout: Layout, rank: int) -> tuple[int, int, int] | None:
    """Return the positions of boxes (rank `rank`), labels and scores, found by shape, element type and name."""
    if len(layout.outputs) != 3:
        return None
    boxes = [i for i, spec in enumerate(layout.outputs) if len(spec.shape) == rank and spec.shape[-1] in (4, None)]
    flat = [i for i, spec in enumerate(layout.outputs) if len(spec.shape) == rank - 1]
    labels = [i for i in flat if layout.outputs[i].dtype.startswith("int")]
    if len(boxes) != 1 or len(flat) != 2 or len(labels) != 1:
        return None
    if not is_same(*(layout.shapes[i][rank - 2] for i in (*boxes, *flat))):
        return None
    return boxes[0], labels[0], next(i for i in flat if i != labels[0])


def _torchvision(layout: Layout) -> ListedHead:
    return ListedHead(_positions(layout, 2) or (0, 1, 2), 0 if layout.class_count is None else 1)


def _labels_boxes_scores(layout: Layout) -> ListedHead:
    return ListedHead(_positions(layout, 3) or (1, 0, 2), 0)


def _ssd(layout: Layout) -> ListedHead:
    return ListedHead(_positions(layout, 3) or (0, 1, 2), 1, frame_box(layout.size_hw))


def _has_lists(layout: Layout) -> bool:
    return _positions(layout, 3) is not None


def _is_detection_output(layout: Layout) -> bool:
    shape = layout.single(4)
    return shape is not None and shape[3] == 7 and shape[1] in (1, None)


TF_NAMES = ("detection_boxes", "detection_classes", "detection_scores")


def _tf_positions(layout: Layout) -> list[int]:
    plain = [name.split(":")[0] for name in layout.names]
    return [plain.index(name) for name in TF_NAMES if name in plain]


def _tf_detection(layout: Layout) -> ListedHead:
    boxes, labels, scores = _tf_positions(layout)
    first_label = 0 if layout.class_count is None else 1
    return ListedHead((boxes, labels, scores), first_label, frame_box(layout.size_hw)[list(YXYX)], YXYX)


TORCHVISION = Family(
    "torchvision", "boxes (N, 4) in pixels, labels (N), scores (N)",
    lambda layout: _positions(layout, 2) is not None, _torchvision, anchor="top_left", is_single=True,
    coco_91=True,
)  # fmt: skip
LABELS_BOXES_SCORES = Family(
    "labels_boxes_scores", "labels (b, N), boxes (b, N, 4) in pixels, scores (b, N)",
    lambda layout: layout.takes_size and _has_lists(layout), _labels_boxes_scores, anchor="stretch",
    fits_named=_has_lists,
)  # fmt: skip
SSD = Family(
    "ssd", "the same with boxes as fractions and labels from 1", never, _ssd,
    mean=IMAGENET_MEAN, std=IMAGENET_STD, anchor="stretch", fits_named=_has_lists,
)  # fmt: skip
DETECTION_OUTPUT = Family(
    "detection_output", "(1, 1, N, 7): image, label, score, x1, y1, x2, y2 as fractions",
    _is_detection_output, lambda layout: DetectionOutputHead(layout.size_hw),
    color="bgr", std=ONE, anchor="stretch",
)  # fmt: skip
TF_DETECTION = Family(
    "tf_detection", "detection_boxes (b, N, 4), detection_classes, detection_scores",
    lambda layout: len(_tf_positions(layout)) == 3, _tf_detection, std=ONE, anchor="stretch", coco_91=True,
)  # fmt: skip
