"""YOLOv3 and YOLOv3-tiny (Redmon & Farhadi 2018) with the raw convolution outputs of Darknet.

There is one output (b, anchors x (5 + classes), h, w) per scale, before any activation. Each anchor has tx, ty, tw, th,
objectness and class scores. The centre is (sigmoid(t) + cell) x stride, the size is anchor x exp(t), the score is
sigmoid(objectness) x sigmoid(class), as in Darknet's `yolo_layer.c`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.boxes import xyxy_from_cxcywh
from engine.detection.heads.base import Candidates, Head, Outputs, candidates
from engine.detection.heads.family import Family, Layout
from engine.errors import ModelError

Anchors = Sequence[Sequence[Sequence[float]]]


class DarknetHead(Head):
    """One output per scale, see the module docstring.

    Args:
        size_hw: rows and columns of the model's frame.
        anchors: for each output, the width and height of each anchor in pixels of the model's frame.

    Raises:
        ModelError: the anchors are not a list of pairs per output.
    """

    def __init__(self, size_hw: tuple[int, int], anchors: Anchors) -> None:
        self._size_hw = size_hw
        self._anchors = [np.asarray(scale, np.float32) for scale in anchors]
        if any(scale.ndim != 2 or scale.shape[1] != 2 for scale in self._anchors):
            raise ModelError("anchors: expected a list of [width, height] per output")

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs."""
        scales = zip(outputs, self._anchors, strict=True)
        parts = [self._scale(output[row], anchors, score_threshold) for output, anchors in scales]
        xyxy, score, class_id = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return candidates(xyxy, score, class_id)

    def _scale(
        self, output: NDArray[np.float32], anchors: NDArray[np.float32], score_threshold: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
        rows, columns = output.shape[1:]
        cells = output.reshape(len(anchors), -1, rows * columns)
        anchor, cell = np.nonzero(cells[:, 4] > _logit(score_threshold))
        near = cells[anchor, :, cell].astype(np.float32, copy=False)  # (N, 5 + classes)
        class_id = near[:, 5:].argmax(axis=1)
        score = _sigmoid(near[:, 4]) * _sigmoid(near[np.arange(len(near)), 5 + class_id])
        passed = score > score_threshold
        near, anchor, cell = near[passed], anchor[passed], cell[passed]
        step = np.array((self._size_hw[1] / columns, self._size_hw[0] / rows), np.float32)
        corner = np.stack((cell % columns, cell // columns), axis=1).astype(np.float32)
        size = np.exp(near[:, 2:4]) * anchors[anchor]
        cxcywh = np.concatenate(((_sigmoid(near[:, :2]) + corner) * step, size), axis=1)
        return xyxy_from_cxcywh(cxcywh), score[passed], class_id[passed]


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = np.float32(1) / (np.float32(1) + np.exp(-values))
    return result


def _logit(probability: float) -> float:
    """Return the logit of `probability`: minus or plus infinity at the ends."""
    if probability <= 0:
        return -np.inf
    return float(np.log(probability / (1 - probability))) if probability < 1 else np.inf


def _fits(layout: Layout) -> bool:
    anchors = layout.metadata.get("anchors")
    if not isinstance(anchors, (list, tuple)) or len(anchors) != len(layout.outputs) or not anchors:
        return False
    return all(
        isinstance(scale, (list, tuple)) and scale and len(shape) == 4 and shape[1] and shape[1] % len(scale) == 0
        for scale, shape in zip(anchors, layout.shapes, strict=True)
    )


def _build(layout: Layout) -> Head:
    try:
        return DarknetHead(layout.size_hw, layout.metadata["anchors"])
    except (TypeError, ValueError) as error:
        raise ModelError('metadata "anchors": expected a list of [width, height] in pixels per output') from error


def _classes(layout: Layout) -> int | None:
    channels = layout.shapes[0][1]
    return None if channels is None else channels // len(layout.metadata["anchors"][0]) - 5


DARKNET = Family(
    "darknet_yolov3",
    "(b, anchors x (5 + classes), h, w) per scale without activation, and `anchors` in the file's metadata: "
    "a list of [width, height] in pixels per scale",
    _fits, _build, _classes, iou_threshold=0.45,
)  # fmt: skip
