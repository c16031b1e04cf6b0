"""NanoDet, NanoDet-Plus (RangiLyu 2020-2022) and PicoDet (PaddleDetection 2021): scores, and distances per side.

There is either one output (b, anchors, classes + 4 x bins) or, in OpenCV's model collection, one output of scores
(cells, classes) and one of distances (cells, 4 x bins) per stride, in any order and with or without a batch axis. There
are 8 bins, and 11 in NanoDet-g.
Scores are after the sigmoid. A side lies `stride x expectation of its bins` from the cell's centre (Generalized Focal
Loss, Li et al. 2020). The authors' code and configurations differ: NanoDet measures from the middle of the cell and
keeps the aspect of a frame; NanoDet-Plus (four strides) measures from the cell's corner and stretches the frame;
PicoDet (also four strides) measures from the middle and stretches. PicoDet is recognised by Paddle's output names
(`transpose_0.tmp_0`), or because all its scores come before all its distances, in the order of the strides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.detection.heads.base import Candidates, Head, Outputs, best_class, candidates, softmax
from engine.detection.heads.family import IMAGENET_MEAN, IMAGENET_STD, Family, Layout
from engine.detection.heads.grid import STRIDES, STRIDES_P6, anchor_count, grid
from engine.errors import ModelError

REACHES = (4 * 8, 4 * 11)
MEAN = (103.53, 116.28, 123.675)
STD = (57.375, 57.12, 58.395)
SIDES = np.array([-1, -1, 1, 1], np.float32)


class NanoDetHead(Head):
    """Outputs of scores and distances, see the module docstring.

    Args:
        size_hw: rows and columns of the model's frame.
        classes: number of classes.
        strides: three for NanoDet, four for NanoDet-Plus and PicoDet.
        from_middle: whether sides are measured from the middle of the cell rather than its top left corner.
        parts: per stride, the positions of the scores and of the distances among the outputs; None if one output
            holds both.
    """

    def __init__(
        self,
        size_hw: tuple[int, int],
        classes: int,
        strides: tuple[int, ...] = STRIDES,
        parts: Sequence[tuple[int, int]] | None = None,
        *,
        from_middle: bool = True,
    ) -> None:
        cells, self._steps = grid(size_hw, strides)
        self._centres = (cells + np.float32(0.5 if from_middle else 0)) * self._steps
        self._classes = classes
        self._parts = parts

    def decode(self, outputs: Outputs, row: int, score_threshold: float) -> Candidates:
        """Return the candidates of one image of the (b, ...) outputs."""
        scores, distances = self._split(outputs, row)
        rows, score, class_id = best_class(scores.T, score_threshold)
        bins = distances[rows].reshape(len(rows), 4, distances.shape[1] // 4).astype(np.float32)
        reach = softmax(bins, axis=2) @ np.arange(bins.shape[2], dtype=np.float32) * self._steps[rows]
        centre = np.concatenate((self._centres[rows], self._centres[rows]), axis=1)
        return candidates(centre + reach * SIDES, score, class_id)

    def _split(self, outputs: Outputs, row: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (A, classes) scores and (A, 4 x bins) distances of one image."""
        if self._parts is None:
            output = outputs[0][row]
            return output[:, : self._classes], output[:, self._classes :]
        rows = [(_image(outputs[score], row), _image(outputs[reach], row)) for score, reach in self._parts]
        return np.concatenate([score for score, _ in rows]), np.concatenate([reach for _, reach in rows])


def _image(output: NDArray[np.float32], row: int) -> NDArray[np.float32]:
    return output if output.ndim == 2 else output[row]


def find_parts(shapes: Sequence[Sequence[int | None]], cells: Sequence[int]) -> list[tuple[int, int]] | None:
    """Return, per stride, the positions of its scores and distances among the outputs, or None if they are missing.

    Args:
        shapes: of the outputs.
        cells: number of cells of each stride.
    """
    if len(shapes) != 2 * len(cells) or any(len(shape) not in (2, 3) for shape in shapes):
        return None
    parts = []
    for count in cells:
        found = [index for index, shape in enumerate(shapes) if shape[-2] == count]
        reach = [index for index in found if shapes[index][-1] in REACHES]
        score = [index for index in found if index not in reach]
        if len(found) != 2 or len(reach) != 1:
            return None
        parts.append((score[0], reach[0]))
    return parts if len({shapes[reach][-1] for _, reach in parts}) == 1 else None


def _parts(layout: Layout) -> list[tuple[int, int]] | None:
    strides = STRIDES if len(layout.outputs) == 2 * len(STRIDES) else STRIDES_P6
    return find_parts(layout.shapes, [anchor_count(layout.size_hw, (stride,)) for stride in strides])


def _is_listed(layout: Layout) -> bool:
    if _parts(layout) is not None:
        return True
    shape = layout.single(3)
    if shape is None or shape[1] not in layout.anchors() or shape[2] is None:
        return False
    return _reach(layout, shape[2]) is not None or layout.says("nanodet")


def _reach(layout: Layout, columns: int) -> int | None:
    """Return how many columns of the only output hold distances, by the number of classes; None if it fits none."""
    return next((reach for reach in REACHES if columns - reach == (layout.class_count or 80)), None)


def _is_plus(layout: Layout) -> bool:
    """Whether the cells are those of four strides."""
    if len(layout.outputs) > 1:
        return len(layout.outputs) == 2 * len(STRIDES_P6)
    return layout.shapes[0][1] == anchor_count(layout.size_hw, STRIDES_P6)


def _is_paddle(layout: Layout) -> bool:
    """Whether the outputs of four strides are listed or named as PaddleDetection does it."""
    parts = _parts(layout)
    if parts is None or not _is_plus(layout):
        return False
    return parts == list(zip(range(4), range(4, 8), strict=True)) or any(".tmp_" in name for name in layout.names)


def _classes(layout: Layout) -> int | None:
    parts = _parts(layout)
    size = layout.shapes[parts[0][0] if parts else 0][-1]
    if size is None:
        return None
    return size if parts else size - (_reach(layout, size) or REACHES[0])


def _from_middle(layout: Layout) -> Head:
    return _head(layout, from_middle=True)


def _from_corner(layout: Layout) -> Head:
    return _head(layout, from_middle=False)


def _head(layout: Layout, *, from_middle: bool) -> Head:
    classes = _classes(layout)
    if classes is None:
        raise ModelError("nanodet: the outputs do not fix the number of classes")
    strides = STRIDES_P6 if _is_plus(layout) else STRIDES
    return NanoDetHead(layout.size_hw, classes, strides, _parts(layout), from_middle=from_middle)


NANODET = Family(
    "nanodet", "three strides, each scores (cells, classes) and distances (cells, 32 or 44), or all in one",
    lambda layout: _is_listed(layout) and not _is_plus(layout), _from_middle, _classes,
    color="bgr", mean=MEAN, std=STD, iou_threshold=0.6,
)  # fmt: skip
NANODET_PLUS = Family(
    "nanodet_plus", "the same with four strides",
    lambda layout: _is_listed(layout) and _is_plus(layout), _from_corner, _classes,
    color="bgr", mean=MEAN, std=STD, anchor="stretch", iou_threshold=0.6,
)  # fmt: skip
PICODET = Family(
    "picodet", "four strides, scores (cells, classes) of all, then distances (cells, 32) of all",
    _is_paddle, _from_middle, _classes,
    mean=IMAGENET_MEAN, std=IMAGENET_STD, anchor="stretch", iou_threshold=0.6, fits_named=NANODET_PLUS.fits,
)  # fmt: skip
