"""The results of the exporter's own postprocessing: Ultralytics' NMS, scaling and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ultralytics.utils import nms as their_nms
from ultralytics.utils import ops

IOU = 0.7


@dataclass
class Reference:
    """The result of the exporter's own postprocessing, in pixels of the image.

    Attributes:
        xyxy: (N, 4) float32.
        score: (N,) float32.
        class_id: (N,) int64.
        extra: further columns with N rows each: `keypoints` (N, K, 3), `mask` (N, H, W), `xyxyxyxy` (N, 4, 2).
    """

    xyxy: np.ndarray
    score: np.ndarray
    class_id: np.ndarray
    extra: dict[str, np.ndarray]


def reference(outputs: list[np.ndarray], model: Any, image: np.ndarray, size: int, score: float) -> Reference:
    """Return the result of Ultralytics' NMS and scaling.

    Args:
        outputs: of the model: (1, 4 + classes + rest, anchors) or (1, rows, 6 + rest), and prototypes (1, 32, h, w).
        model: Ultralytics' object.
        image: (H, W, 3) uint8 BGR.
        size: rows and columns of the input.
        score: the threshold.
    """
    task, classes = model.task, len(model.names)
    raw = torch.from_numpy(outputs[0].copy())
    end_to_end = raw.shape[2] < 100
    # in double precision: they separate classes by adding 7680 pixels each, where single precision rounds IoUs
    [rows] = their_nms.non_max_suppression(
        raw.double(), score, IOU, nc=classes, rotated=task == "obb", end2end=end_to_end, max_det=300
    )
    rows = rows.float()
    extra: dict[str, np.ndarray] = {}
    boxes, shape = rows[:, :4].clone(), image.shape
    if task == "obb":
        return _oriented(rows, size, shape)
    if task == "pose":
        points = rows[:, 6:].reshape(len(rows), *model.model.kpt_shape).clone()
        extra["keypoints"] = ops.scale_coords((size, size), points, shape).numpy()
    xyxy = ops.scale_boxes((size, size), boxes, shape)
    if task == "segment":
        extra["mask"] = ops.process_mask_native(torch.from_numpy(outputs[1][0]), rows[:, 6:], xyxy, shape[:2]).numpy()
    return Reference(xyxy.numpy(), rows[:, 4].numpy(), rows[:, 5].numpy().astype(int), extra)


def _oriented(rows: torch.Tensor, size: int, shape: tuple[int, ...]) -> Reference:
    """Return rows of oriented boxes, scaled to an image."""
    oriented = torch.cat([rows[:, :4], rows[:, -1:]], dim=-1)
    oriented[:, :4] = ops.scale_boxes((size, size), oriented[:, :4], shape, xywh=True)
    corners = ops.xywhr2xyxyxyxy(oriented).numpy()
    xyxy = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1).clip(0, [shape[1], shape[0]] * 2)
    return Reference(xyxy, rows[:, 4].numpy(), rows[:, 5].numpy().astype(int), {"xyxyxyxy": corners})


def rtdetr_reference(output: np.ndarray, image: np.ndarray, score: float) -> Reference:
    """Return RT-DETR's rows as its predictor scales them.

    Args:
        output: (1, queries, 6) or (1, queries, 4 + classes), cxcywh as fractions.
        image: (H, W, 3) uint8 BGR.
        score: the threshold.
    """
    rows = torch.from_numpy(output[0].copy())
    height, width = image.shape[:2]
    if rows.shape[1] > 6:
        best, label = rows[:, 4:].max(dim=1)
        rows = torch.cat((rows[:, :4], best[:, None], label[:, None].float()), dim=1)
    rows = rows[rows[:, 4] > score]
    xyxy = ops.xywh2xyxy(rows[:, :4]) * torch.tensor([width, height, width, height])
    xyxy = xyxy.numpy().clip(0, [width, height, width, height])
    return Reference(xyxy, rows[:, 4].numpy(), rows[:, 5].numpy().astype(int), {})
