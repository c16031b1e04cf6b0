"""Matches detections with objects image by image: average precision, its curve, confusion, and resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.boxes import iou_matrix
from engine.data import Detections

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
CONFUSION_SCORE = 0.25
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Matches:
    """All detections of a test and the objects they hit; rows are sorted by descending score.

    Attributes:
        image: (N,) index of the image.
        class_id: (N,) class found.
        score: (N,).
        hit: (N, 10) bool, whether it hits an object of its class at each of `IOUS`.
        ignored: (N, 10) bool, whether it lies in a crowd region instead.
        objects: (images, classes) number of objects.
    """

    image: NDArray[np.int64]
    class_id: NDArray[np.int64]
    score: Floats
    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    objects: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of one image: boxes in pixels (M, 4), classes (M,), whether each is a crowd region (M,)."""

    xyxy: NDArray[np.float32]
    class_id: NDArray[np.int32]
    crowd: NDArray[np.bool_]


def match(found: Sequence[Detections], truth: Sequence[Objects], class_count: int) -> Matches:
    """Match the detections of each image with its objects, best score first, as COCO does."""
    hits, ignored, images = [], [], []
    objects = np.zeros((len(truth), class_count), np.int64)
    ordered = [one[np.argsort(-one.score, kind="stable")] for one in found]
    for index, (one, wanted) in enumerate(zip(ordered, truth, strict=True)):
        hit, skipped = _match_image(one, wanted)
        hits.append(hit)
        ignored.append(skipped)
        images.append(np.full(len(one), index))
        np.add.at(objects[index], wanted.class_id[~wanted.crowd], 1)
    score = np.concatenate([one.score for one in ordered]).astype(np.float64)
    order = np.argsort(-score, kind="stable")
    class_id = np.concatenate([one.class_id for one in ordered]).astype(np.int64)
    return Matches(
        np.concatenate(images)[order],
        class_id[order],
        score[order],
        np.concatenate(hits)[order],
        np.concatenate(ignored)[order],
        objects,
    )


def _match_image(found: Detections, wanted: Objects) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for each detection and IoU whether it hits an object, and whether it is in a crowd region."""
    hit, ignored = (np.zeros((len(found), len(IOUS)), bool) for _ in range(2))
    if not len(found) or not len(wanted.class_id):
        return hit, ignored
    iou = iou_matrix(found.xyxy, wanted.xyxy) * (found.class_id[:, None] == wanted.class_id[None])
    inside = _share_inside(found.xyxy, wanted.xyxy) * (found.class_id[:, None] == wanted.class_id[None])
    for column, least in enumerate(IOUS):
        free = ~wanted.crowd
        for row in range(len(found)):
            left = np.where(free, iou[row], 0)
            best = int(left.argmax())
            if left[best] >= least:
                hit[row, column], free[best] = True, False
            elif wanted.crowd.any() and inside[row, wanted.crowd].max() >= least:
                ignored[row, column] = True
    return hit, ignored


def _share_inside(boxes: NDArray[np.float32], regions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N, M): the share of each box that lies in each region."""
    corner = np.minimum(boxes[:, None, 2:], regions[None, :, 2:]) - np.maximum(boxes[:, None, :2], regions[None, :, :2])
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-9)
    share: NDArray[np.float32] = np.maximum(corner, 0).prod(axis=2) / area[:, None]
    return share


def average_precision(matches: Matches, class_id: int, weight: NDArray[np.int64] | None = None) -> Floats:
    """Return the (10,) 101-point average precision of a class by IoU; NaN if it has no objects.

    Args:
        matches: of a test.
        class_id: the class.
        weight: (images,) how often each image counts; None: once.
    """
    precision, _, total = _curve(matches, class_id, weight)
    if total == 0:
        return np.full(len(IOUS), np.nan)
    mean: Floats = precision.mean(axis=0)
    return mean


def precision_curve(matches: Matches, class_id: int) -> tuple[Floats, Floats]:
    """Return precision and score by recall (101,) at IoU .5."""
    precision, score, _ = _curve(matches, class_id, None)
    return precision[:, 0], score


def _curve(matches: Matches, class_id: int, weight: NDArray[np.int64] | None) -> tuple[Floats, Floats, int]:
    """Return the highest precision at each recall or above (101, 10), the score there at IoU .5, and the objects."""
    rows = np.flatnonzero(matches.class_id == class_id)
    times = np.ones(len(rows), np.int64) if weight is None else weight[matches.image[rows]]
    total = int(matches.objects[:, class_id].sum() if weight is None else (matches.objects[:, class_id] * weight).sum())
    precision, score = np.zeros((len(RECALLS), len(IOUS))), np.zeros(len(RECALLS))
    if total == 0 or not len(rows):
        return precision, score, total
    right = np.cumsum(matches.hit[rows] * times[:, None], axis=0)
    counted = np.cumsum(~matches.ignored[rows] * times[:, None], axis=0)
    exact = right / np.maximum(counted, 1)
    best = np.maximum.accumulate(exact[::-1], axis=0)[::-1]
    for column in range(len(IOUS)):
        at = np.searchsorted(right[:, column] / total, RECALLS - 1e-12)
        reached = at < len(rows)
        precision[reached, column] = best[at[reached], column]
        if column == 0:
            score[reached] = matches.score[rows][at[reached]]
    return precision, score, total


def mean_average_precision(matches: Matches, weight: NDArray[np.int64] | None = None) -> tuple[float, float]:
    """Return mAP at IoU .5 and over .5 to .95, over the classes that have objects; NaN if there are none.

    Args:
        matches: of a detector.
        weight: (images,) how often each image counts; None: once.
    """
    present = np.flatnonzero(matches.objects.sum(axis=0)).tolist()
    table = np.stack([average_precision(matches, class_id, weight) for class_id in present])
    table = table[~np.isnan(table[:, 0])]
    return (float(table[:, 0].mean()), float(table.mean())) if len(table) else (float("nan"), float("nan"))


def confusion(
    found: Sequence[Detections], truth: Sequence[Objects], class_count: int, least: float = CONFUSION_SCORE
) -> NDArray[np.int64]:
    """Return (classes + 1, classes + 1) counts of true against found class at IoU .5; the last is background.

    The last column counts missed objects, the last row false detections.
    """
    table = np.zeros((class_count + 1, class_count + 1), np.int64)
    for one, wanted in zip(found, truth, strict=True):
        one = one[one.score >= least]
        keep = ~wanted.crowd
        boxes, names = wanted.xyxy[keep], wanted.class_id[keep]
        iou = iou_matrix(boxes, one.xyxy)
        taken_rows, taken_columns = set(), set()
        for flat in np.argsort(-iou, axis=None, kind="stable").tolist():
            row, column = divmod(flat, max(len(one), 1))
            if iou[row, column] < 0.5:
                break
            if row not in taken_rows and column not in taken_columns:
                taken_rows.add(row)
                taken_columns.add(column)
                table[names[row], one.class_id[column]] += 1
        for row in set(range(len(names))) - taken_rows:
            table[names[row], class_count] += 1
        for column in set(range(len(one))) - taken_columns:
            table[class_count, one.class_id[column]] += 1
    return table
