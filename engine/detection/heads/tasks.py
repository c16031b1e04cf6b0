"""Ultralytics heads of the tasks other than boxes: instance masks, keypoints and oriented boxes.

Each is the box head, raw or end-to-end, with further columns after the scores: 32 mask coefficients (multiplied with
the prototypes of a second output they give the masks), keypoints x, y and visibility, or an angle in radians.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.backends.base import ClassScores
from engine.detection.heads.base import Candidates, Head, Outputs, candidates
from engine.detection.heads.family import MAX_QUERIES, Family, Layout, is_same
from engine.detection.heads.obb import corners_from_cxcywhr, fast_nms
from engine.detection.heads.ultralytics import EndToEndHead, RawHead
from engine.detection.letterbox import Letterbox, points_from_target, source_from_target, unclipped_from_target
from engine.detection.nms import MAX_KEPT
from engine.errors import ModelError

MASK_COEFFICIENTS = 32


class BoxTaskHead(Head):
    """Adds columns to each box that a box head finds.

    Args:
        boxes: the box head.
    """

    def __init__(self, boxes: Head) -> None:
        self._boxes = boxes

    @property
    def class_scores(self) -> ClassScores | None:
        """The box head's class scores."""
        return self._boxes.class_scores

    def merged(self) -> BoxTaskHead:
        """Return the head for merged scores."""
        head = copy(self)
        head._boxes = self._boxes.merged()
        return head

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the boxes of one image of the (b, ...) outputs, with the column `rest`."""
        return self._boxes.decode(outputs, row, score_threshold)

    def suppress(self, candidates: Candidates, iou_threshold: float) -> NDArray[np.intp]:
        """Return the (K,) rows that the box head keeps."""
        return self._boxes.suppress(candidates, iou_threshold)


class PoseHead(BoxTaskHead):
    """Boxes with keypoints.

    Args:
        boxes: the box head.
        keypoints: number of them.
        values: 3 for x, y, visibility; 2 for x, y.
    """

    def __init__(self, boxes: Head, keypoints: int, values: int) -> None:
        super().__init__(boxes)
        self._shape = (keypoints, values)

    def extra(self, kept: Candidates, outputs: Outputs, row: int, box: Letterbox) -> dict[str, NDArray[Any]]:
        """Return `keypoints`, (N, K, 3) float32: x, y in pixels of the source image, visibility 0 to 1."""
        points = kept.extra["rest"].reshape(len(kept), *self._shape)
        found = np.ones((len(kept), self._shape[0], 3), np.float32)
        found[..., :2] = points_from_target(points[..., :2], box)
        if self._shape[1] == 3:
            found[..., 2] = points[..., 2]
        return {"keypoints": found}


class SegmentHead(BoxTaskHead):
    """Boxes with masks.

    Args:
        boxes: the box head.
        size_hw: rows and columns of the model's frame.
    """

    def __init__(self, boxes: Head, size_hw: tuple[int, int]) -> None:
        super().__init__(boxes)
        self._size_hw = size_hw

    def extra(self, kept: Candidates, outputs: Outputs, row: int, box: Letterbox) -> dict[str, NDArray[Any]]:
        """Return `mask`, (N, H, W) bool in the size of the source image.

        Each mask is computed only inside its box; the rest of its memory is never touched.
        """
        prototypes = outputs[1][row].astype(np.float32, copy=False)
        width, height = box.source_wh
        masks = np.zeros((len(kept), height, width), bool)
        xyxy = source_from_target(kept.xyxy, box)
        with np.errstate(all="ignore"):
            logits = kept.extra["rest"] @ prototypes.reshape(len(prototypes), -1)
        step = np.array(prototypes.shape[:0:-1]) / np.array(self._size_hw[::-1])  # prototype cells per frame pixel, x y
        for mask, cells, (x1, y1, x2, y2) in zip(masks, logits, np.ceil(xyxy).astype(int).tolist(), strict=True):
            if x2 > x1 and y2 > y1:
                patch = cells.reshape(prototypes.shape[1:])
                mask[y1:y2, x1:x2] = _sample(patch, box, step, (x1, y1), (x2 - x1, y2 - y1)) > 0
        return {"mask": masks}


def _sample(
    cells: NDArray[np.float32],
    box: Letterbox,
    step: NDArray[np.float64],
    origin: tuple[int, int],
    size: tuple[int, int],
) -> NDArray[np.float32]:
    """Return the prototype plane, sampled bilinearly at each pixel centre of a rectangle of the source image."""
    scale = np.array(box.scale_xy) * step
    offset = ((np.array(origin) + 0.5) * box.scale_xy + box.pad_xy) * step - 0.5
    matrix = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    sampled: NDArray[np.float32] = cv2.warpAffine(cells, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return sampled


class ObbHead(Head):
    """Oriented boxes, raw (b, 4 + classes + 1, anchors).

    Args:
        classes: number of classes.
        is_merged: whether two rows, the best score and its class, replace the scores.
    """

    def __init__(self, classes: int, *, is_merged: bool = False) -> None:
        self._boxes = RawHead(classes, is_merged=is_merged)
        self._classes = classes

    @property
    def class_scores(self) -> ClassScores | None:
        """The upright boxes' class scores."""
        return self._boxes.class_scores

    def merged(self) -> ObbHead:
        """Return the head for merged scores."""
        return ObbHead(self._classes, is_merged=True)

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return upright boxes around the oriented ones, which are in the column `cxcywhr`."""
        output = outputs[0][row]
        columns, score, class_id = self._boxes.best(output, score_threshold)
        return _oriented(output[[0, 1, 2, 3, -1]][:, columns].T.astype(np.float32), score, class_id)

    def suppress(self, candidates: Candidates, iou_threshold: float) -> NDArray[np.intp]:
        """Return the (K,) rows to keep: Fast NMS with the probabilistic IoU, as in the exporter."""
        kept = fast_nms(candidates.extra["cxcywhr"], candidates.score, candidates.class_id, iou_threshold)
        return kept[:MAX_KEPT]

    def extra(self, kept: Candidates, outputs: Outputs, row: int, box: Letterbox) -> dict[str, NDArray[Any]]:
        """Return `xyxyxyxy`, (N, 4, 2) float32 corners in pixels of the source image, not clipped to it."""
        return {"xyxyxyxy": unclipped_from_target(corners_from_cxcywhr(kept.extra["cxcywhr"]), box)}


class EndToEndObbHead(ObbHead):
    """Oriented boxes, end-to-end (b, rows, 7): cx, cy, w, h, score, class, angle."""

    def __init__(self) -> None:
        super().__init__(0)

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return upright boxes around the oriented ones, which are in the column `cxcywhr`."""
        output = outputs[0][row]
        output = output[output[:, 4] > score_threshold]
        return _oriented(output[:, [0, 1, 2, 3, 6]].astype(np.float32), output[:, 4], output[:, 5])

    def suppress(self, candidates: Candidates, iou_threshold: float) -> NDArray[np.intp]:
        """Return all rows, (K,), the best score first, 300 at most."""
        return np.argsort(-candidates.score, kind="stable")[:MAX_KEPT]


def _oriented(cxcywhr: NDArray[np.float32], score: NDArray[Any], class_id: NDArray[Any]) -> Candidates:
    corners = corners_from_cxcywhr(cxcywhr)
    xyxy = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
    return candidates(xyxy, score, class_id, cxcywhr=cxcywhr)


def _is_end_to_end(layout: Layout, rest: int) -> bool:
    shape = layout.shapes[0]
    return len(shape) == 3 and shape[2] == 6 + rest and (shape[1] is None or shape[1] <= MAX_QUERIES)


def _is_raw(layout: Layout, rest: int) -> bool:
    shape = layout.shapes[0]
    if len(shape) != 3 or shape[1] is None or shape[1] < 5 + rest:
        return False
    return shape[2] is None or shape[2] in layout.anchors()


def _fits(layout: Layout, outputs: int, rest: int) -> bool:
    return len(layout.outputs) == outputs and (_is_end_to_end(layout, rest) or _is_raw(layout, rest))


def _is_prototypes(shape: tuple[int | None, ...]) -> bool:
    return len(shape) == 4 and is_same(shape[1], MASK_COEFFICIENTS)


def _classes(layout: Layout, rest: int) -> int | None:
    if _is_end_to_end(layout, rest):
        return layout.class_count
    rows = layout.shapes[0][1]
    return None if rows is None else rows - 4 - rest


def _box_head(layout: Layout, rest: int) -> Head:
    return EndToEndHead() if _is_end_to_end(layout, rest) else RawHead(_classes(layout, rest))


def _keypoints(layout: Layout) -> tuple[int, int]:
    shape = layout.metadata.get("kpt_shape", (17, 3))
    sound = isinstance(shape, (list, tuple)) and len(shape) == 2 and all(type(size) is int for size in shape)
    if not sound or not 1 <= shape[0] <= 1000 or shape[1] not in (2, 3):
        raise ModelError(f'metadata "kpt_shape" is {str(shape)[:60]}: expected [keypoints, 2 or 3]')
    return shape[0], shape[1]


def keypoint_values(layout: Layout) -> int:
    """Return how many numbers describe the keypoints of one object. Raises `ModelError`."""
    keypoints, values = _keypoints(layout)
    return keypoints * values


def _pose(layout: Layout) -> Head:
    return PoseHead(_box_head(layout, keypoint_values(layout)), *_keypoints(layout))


def _obb(layout: Layout) -> Head:
    return EndToEndObbHead() if _is_end_to_end(layout, 1) else ObbHead(_classes(layout, 1) or 0)


POSE = Family(
    "yolo_pose", "(b, 4 + classes + keypoints, anchors) or (b, rows, 6 + keypoints)",
    lambda layout: _fits(layout, 1, keypoint_values(layout)), _pose,
    lambda layout: _classes(layout, keypoint_values(layout)), tasks=("pose",),
)  # fmt: skip
SEGMENT = Family(
    "yolo_segment", "(b, 4 + classes + 32, anchors) or (b, rows, 38), and prototypes (b, 32, h, w)",
    lambda layout: _fits(layout, 2, MASK_COEFFICIENTS) and _is_prototypes(layout.shapes[1]),
    lambda layout: SegmentHead(_box_head(layout, MASK_COEFFICIENTS), layout.size_hw),
    lambda layout: _classes(layout, MASK_COEFFICIENTS), tasks=("segment", ""),
)  # fmt: skip
OBB = Family(
    "yolo_obb", "(b, 4 + classes + 1, anchors) or (b, rows, 7)",
    lambda layout: _fits(layout, 1, 1), _obb, lambda layout: _classes(layout, 1), tasks=("obb",),
)  # fmt: skip
