"""Scores of tracker output against ground truth: HOTA, CLEAR MOT and identity, computed by `trackers.eval`.

`trackers` (Apache-2.0, needs only numpy and scipy) reproduces TrackEval's numbers. We pass arrays rather than files,
because its reader takes the world coordinates of MOT15 ground truth for classes and drops the rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.boxes import iou_matrix
from engine.errors import ConfigError
from engine.optional import require
from pipelines.scoring.mot import MotRows, read_mot

_PEDESTRIAN = 1
_DISTRACTORS = (2, 7, 8, 12)
"""MOT16/17: person on vehicle, static person, distractor, reflection; a track on one is neither right nor wrong."""


@dataclass(frozen=True, slots=True)
class TrackScores:
    """Scores of a tracker; fractions of 1 except for counts.

    Attributes:
        hota: geometric mean of detection and association accuracy over IoU thresholds .05 to .95 (Luiten et al. 2020).
        deta: detection accuracy.
        assa: association accuracy.
        loca: localisation accuracy.
        mota: 1 - (misses + false tracks + switches) / objects; may be negative (Bernardin and Stiefelhagen 2008).
        idf1: F1 of boxes that carry the right identity (Ristani et al. 2016).
        id_switches: number of times that an object changed its track.
        fragments: number of times that an object's track was interrupted.
        recall: share of the objects that were found.
        precision: share of the boxes that are objects.
        frames: frames scored.
        objects: boxes of the ground truth.
        true_ids: identities of the ground truth.
        ids: identities of the output.
    """

    hota: float
    deta: float
    assa: float
    loca: float
    mota: float
    idf1: float
    id_switches: int
    fragments: int
    recall: float
    precision: float
    frames: int
    objects: int
    true_ids: int
    ids: int

    def as_dict(self) -> dict[str, Any]:
        """Return the scores by name."""
        return asdict(self)


def _without_distracted(gt: MotRows, pred_xyxy: NDArray[np.float32], frame: int) -> NDArray[np.bool_]:
    """Return the predictions to keep: those that do not match (IoU at least .5) a box that is not scored."""
    from engine.tracking.assignment import assign

    at = gt.at(frame)
    iou = iou_matrix(gt.xyxy[at].astype(np.float32), pred_xyxy)
    row, col = np.nonzero(iou >= 0.5)
    rows, cols = assign(row, col, iou[row, col].astype(np.float64), *iou.shape)
    stays = np.ones(len(pred_xyxy), np.bool_)
    stays[cols[np.isin(gt.class_id[at][rows], _DISTRACTORS)]] = False
    return stays


def _scored(gt: MotRows) -> NDArray[np.bool_]:
    has_classes = bool((gt.class_id != -1).any())
    scored: NDArray[np.bool_] = gt.score != 0
    return scored & (gt.class_id == _PEDESTRIAN) if has_classes else scored


def _check(gt: MotRows, gt_path: str | Path, pred: MotRows, pred_path: str | Path) -> None:
    if not _scored(gt).any():
        raise ConfigError(f"{gt_path} has no rows to score against: give a ground-truth file (gt.txt)")
    for rows, path in ((gt, gt_path), (pred, pred_path)):
        named = rows.track_id >= 0
        keys = np.stack((rows.frame, rows.track_id), axis=1)[named]
        if len(np.unique(keys, axis=0)) != len(keys):
            raise ConfigError(f"{path} has the same id twice on one frame: give a file with one row per id and frame")
    if len(pred) and (pred.track_id < 0).all():
        raise ConfigError(f"{pred_path} has no ids: these are detections, run `framewire track --mot` on them first")


def evaluate_rows(gt: MotRows, pred: MotRows, *, iou_threshold: float = 0.5) -> TrackScores:
    """Return the scores of tracker output against ground truth.

    Args:
        gt: ground truth; rows of score 0 are not scored, nor, if there are classes, anything but pedestrians.
        pred: tracker output; rows with a negative id are left out.
        iou_threshold: overlap that makes a match, for MOTA and IDF1.

    Raises:
        MissingDependencyError: `trackers` is not installed.
    """
    evaluation = require("trackers.eval", extra="eval")
    scored, named = _scored(gt), pred.track_id >= 0
    gt_names, gt_index = np.unique(gt.track_id[scored], return_inverse=True)
    pred_names, pred_index = np.unique(pred.track_id[named], return_inverse=True)
    gt_ids, pred_ids = np.full(len(gt), -1), np.full(len(pred), -1)
    gt_ids[scored], pred_ids[named] = gt_index, pred_index
    gt_xyxy, pred_xyxy = gt.xyxy.astype(np.float32), pred.xyxy.astype(np.float32)
    frames = max(gt.last_frame, pred.last_frame)
    truth, guess, similarity = [], [], []
    for frame in range(1, frames + 1):
        gt_at, pred_at = gt.at(frame), pred.at(frame)
        gt_keep = scored[gt_at]
        pred_keep = named[pred_at] & _without_distracted(gt, pred_xyxy[pred_at], frame)
        truth.append(gt_ids[gt_at][gt_keep])
        guess.append(pred_ids[pred_at][pred_keep])
        iou = iou_matrix(gt_xyxy[gt_at][gt_keep], pred_xyxy[pred_at][pred_keep])
        similarity.append(iou.astype(np.float64))
    sequence = (truth, guess, similarity)
    clear = evaluation.compute_clear_metrics(*sequence, threshold=iou_threshold)
    hota = evaluation.compute_hota_metrics(*sequence)
    identity = evaluation.compute_identity_metrics(*sequence, threshold=iou_threshold)
    return TrackScores(
        hota=float(hota["HOTA"]),
        deta=float(hota["DetA"]),
        assa=float(hota["AssA"]),
        loca=float(hota["LocA"]),
        mota=float(clear["MOTA"]),
        idf1=float(identity["IDF1"]),
        id_switches=int(clear["IDSW"]),
        fragments=int(clear["Frag"]),
        recall=float(clear["CLR_Re"]),
        precision=float(clear["CLR_Pr"]),
        frames=frames,
        objects=int(scored.sum()),
        true_ids=len(gt_names),
        ids=len(pred_names),
    )


def evaluate_mot(gt_path: str | Path, pred_path: str | Path, *, iou_threshold: float = 0.5) -> TrackScores:
    """Return the scores of a MOTChallenge file of tracks against one of ground truth.

    Args:
        gt_path: ground truth.
        pred_path: tracker output with the same frame numbers.
        iou_threshold: overlap that makes a match, for MOTA and IDF1.

    Raises:
        ConfigError: the files do not contain ground truth and tracks.
        SourceError: a file cannot be read.
        MissingDependencyError: `trackers` is not installed.
    """
    gt, pred = read_mot(gt_path), read_mot(pred_path)
    _check(gt, gt_path, pred, pred_path)
    return evaluate_rows(gt, pred, iou_threshold=iou_threshold)
