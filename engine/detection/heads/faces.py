"""Face detectors: boxes with five landmarks (eyes, nose, corners of the mouth).

yunet       YuNet (Wu et al. 2023; face_detection_yunet of OpenCV): per stride `cls_8` (b, cells, 1), `obj_8`
            (b, cells, 1), `bbox_8` (b, cells, 4), `kps_8` (b, cells, 10), and so for 16 and 32. The score is
            sqrt(cls x obj). Centre and landmarks are cell + offset, the size is exp, all times the stride.
centerface  CenterFace (Xu et al. 2019): maps of stride 4 for the score (b, 1, h, w), the logarithm of height and
            width (b, 2, h, w), the offset of the centre (b, 2, h, w) and the landmarks as fractions of the box
            (b, 10, h, w); in pairs y comes before x.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.boxes import xyxy_from_cxcywh
from engine.detection.heads.base import Candidates, Head, Outputs, candidates
from engine.detection.heads.family import ONE, Family, Layout
from engine.detection.heads.grid import STRIDES, grid
from engine.detection.heads.tasks import PoseHead

LANDMARKS = 5
KINDS = ("cls", "obj", "bbox", "kps")
STEP = 4
"""Pixels per cell of CenterFace's maps."""
CENTERFACE_CHANNELS = (1, 2, 2, 2 * LANDMARKS)


class YuNetHead(Head):
    """Outputs per kind and stride, see the module docstring.

    Args:
        size_hw: rows and columns of the model's frame.
        parts: positions among the outputs of each kind, per stride.
    """

    def __init__(self, size_hw: tuple[int, int], parts: dict[str, list[int]]) -> None:
        self._cells, self._strides = grid(size_hw, STRIDES)
        self._parts = parts

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs, the landmarks as the column `rest`."""
        score = np.sqrt(self._of("cls", outputs, row)[:, 0].clip(0, 1) * self._of("obj", outputs, row)[:, 0].clip(0, 1))
        rows = np.flatnonzero(score > score_threshold)
        cell, stride = self._cells[rows], self._strides[rows]
        box, landmarks = self._of("bbox", outputs, row)[rows], self._of("kps", outputs, row)[rows]
        cxcywh = np.concatenate((box[:, :2] + cell, np.exp(box[:, 2:])), axis=1) * stride
        points = (landmarks.reshape(-1, LANDMARKS, 2) + cell[:, None]) * stride[:, None]
        nothing = np.zeros(len(rows), np.int32)
        return candidates(xyxy_from_cxcywh(cxcywh), score[rows], nothing, rest=points.reshape(-1, 2 * LANDMARKS))

    def _of(self, kind: str, outputs: Outputs, row: int) -> NDArray[np.float32]:
        return np.concatenate([outputs[index][row] for index in self._parts[kind]]).astype(np.float32, copy=False)


class CenterFaceHead(Head):
    """Maps of score, size, offset and landmarks, see the module docstring."""

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs, the landmarks as the column `rest`."""
        score, size, offset, landmarks = (output[row].astype(np.float32, copy=False) for output in outputs)
        y, x = np.nonzero(score[0] > score_threshold)
        size_hw = np.exp(size[:, y, x]).T * STEP
        centre_yx = (np.stack((y, x), axis=1) + offset[:, y, x].T + np.float32(0.5)) * STEP
        corner_yx = centre_yx - size_hw / 2
        xyxy = np.concatenate((corner_yx[:, ::-1], (corner_yx + size_hw)[:, ::-1]), axis=1)
        points = landmarks[:, y, x].T.reshape(-1, LANDMARKS, 2) * size_hw[:, None] + corner_yx[:, None]
        rest = np.ascontiguousarray(points[..., ::-1]).reshape(-1, 2 * LANDMARKS)
        return candidates(xyxy, score[0, y, x], np.zeros(len(y), np.int32), rest=rest)


def _is_yunet(layout: Layout) -> bool:
    return set(layout.names) == {f"{kind}_{stride}" for kind in KINDS for stride in STRIDES}


def _yunet(layout: Layout) -> Head:
    parts = {kind: [layout.names.index(f"{kind}_{stride}") for stride in STRIDES] for kind in KINDS}
    return PoseHead(YuNetHead(layout.size_hw, parts), LANDMARKS, 2)


def _is_centerface(layout: Layout) -> bool:
    shapes, (rows, columns) = layout.shapes, layout.size_hw
    return [shape[1:] for shape in shapes if len(shape) == 4] == [
        (count, rows // STEP, columns // STEP) for count in CENTERFACE_CHANNELS
    ]


def _centerface(layout: Layout) -> Head:
    return PoseHead(CenterFaceHead(), LANDMARKS, 2)


_faces = partial(Family, classes=lambda _: 1, mean=(0.0, 0.0, 0.0), std=ONE, iou_threshold=0.3, names=("face",))
YUNET = _faces(
    "yunet", "cls, obj, bbox and kps (b, cells, 1 + 1 + 4 + 10) for each of the strides 8, 16 and 32",
    _is_yunet, _yunet, color="bgr", anchor="top_left", tasks=("detect", "pose", ""),
)  # fmt: skip
CENTERFACE = _faces(
    "centerface", "maps of stride 4: score (b, 1, h, w), size and offset (b, 2, h, w), landmarks (b, 10, h, w)",
    _is_centerface, _centerface, tasks=("detect", "pose", ""),
)  # fmt: skip
