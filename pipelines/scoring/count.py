"""Counts zones and lines on the tracks of a MOTChallenge file, without any video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.analytics.analytics import Analytics
from engine.clock import NS_PER_S
from engine.data import Tracks
from engine.errors import ConfigError, SourceError
from pipelines.scoring.mot import MotRows, read_mot


def count_mot(path: str | Path, fps: float, size_wh: tuple[int, int], analytics: Analytics) -> dict[str, Any]:
    """Return the totals of lines and zones over the tracks of a file: ground truth, or the output of a tracker.

    Rows with confidence 0 are ignored, because ground truth uses it for rows that do not count. A negative confidence,
    which trackers write if they have none, is read as 1. An object ends with its last row.

    Args:
        path: MOTChallenge file with identities.
        fps: frames per second of the video.
        size_wh: width and height of the video.
        analytics: new, without any state.

    Raises:
        ConfigError: `fps` or the size is not positive.
        SourceError: the file cannot be read, or has no identities.
    """
    if not 0 < fps <= 10_000:
        raise ConfigError(f"fps is {fps}: give the frames per second of the video, above 0")
    if min(size_wh) < 1:
        raise ConfigError(f"size is {size_wh[0]}x{size_wh[1]}: give width and height of the video in pixels")
    rows = _usable(read_mot(path), path)
    last = {int(track_id): int(frame) for track_id, frame in zip(rows.track_id, rows.frame, strict=True)}
    ends: dict[int, list[int]] = {}
    for track_id, frame in last.items():
        ends.setdefault(frame, []).append(track_id)
    ended: list[int] = []
    for frame in np.unique(rows.frame).tolist():
        analytics.update(_tracks_at(rows, frame), round((frame - 1) * NS_PER_S / fps), size_wh, ended=ended)
        ended = ends.get(frame, [])
    analytics.settle()
    summary = analytics.summary()
    return {"lines": summary["lines"], "zones": summary["zones"]}


def _usable(rows: MotRows, path: str | Path) -> MotRows:
    """Return the rows that count. Reject a file without identities, or with the same one twice on a frame."""
    keep: NDArray[np.bool_] = rows.score != 0
    rows = MotRows(rows.frame[keep], rows.track_id[keep], rows.tlwh[keep], rows.score[keep], rows.class_id[keep])
    if (rows.track_id < 0).any():
        raise SourceError(f'{path} has rows without identity: run "framewire track" over these detections first')
    pairs = np.stack((rows.frame, rows.track_id), axis=1)
    unique, times = np.unique(pairs, axis=0, return_counts=True)
    if (times > 1).any():
        frame, track_id = unique[times > 1][0].tolist()
        raise SourceError(f"{path}: identity {track_id} occurs twice on frame {frame}: remove one of the rows")
    return rows


def _tracks_at(rows: MotRows, frame: int) -> Tracks:
    at = rows.at(frame)
    order = np.argsort(rows.track_id[at], kind="stable")
    score = np.where(rows.score[at] < 0, 1.0, np.clip(rows.score[at], 0.0, 1.0))
    class_id = np.maximum(rows.class_id[at], 0)
    seen = np.arange(len(order))
    return Tracks(rows.xyxy[at][order], score[order], class_id[order], rows.track_id[at][order], None, seen)
