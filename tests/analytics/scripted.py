"""Scripted scenes: boxes of known objects at known times, fed to analytics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from engine.analytics.analytics import Analytics
from engine.analytics.findings import Finding
from engine.analytics.view import View
from engine.data import Tracks

SIZE = (640, 480)
Box = tuple[float, float, float, float]
FrameBoxes = Mapping[int, Box]
NS = 1_000_000_000


def standing(x: float, y: float, height: float = 100.0, width: float = 40.0) -> Box:
    """Return the box of an object whose feet are at (x, y)."""
    return x - width / 2, y - height, x + width / 2, y


def tracks_of(boxes: FrameBoxes, *, class_id: int = 0, score: float = 0.9, predicted: Iterable[int] = ()) -> Tracks:
    """Return the rows of one frame; ids in `predicted` are not observed on it."""
    ids = sorted(boxes)
    unseen = set(predicted)
    index = [-1 if each in unseen else row for row, each in enumerate(ids)]
    count = len(ids)
    xyxy = np.array([boxes[each] for each in ids]).reshape(-1, 4)
    return Tracks(xyxy, np.full(count, score), np.full(count, class_id), ids, None, index)


def at(frame: int, fps: float) -> int:
    """Return the time of a frame in ns."""
    return round(frame * NS / fps)


def play(
    analytics: Analytics,
    frames: Iterable[FrameBoxes],
    fps: float = 10.0,
    *,
    ended: Mapping[int, list[int]] | None = None,
) -> list[View]:
    """Play frames to analytics and return the views."""
    return [
        analytics.update(tracks_of(boxes), at(number, fps), SIZE, ended=(ended or {}).get(number, ()))
        for number, boxes in enumerate(frames)
    ]


def found(views: Iterable[View], *events: str) -> list[Finding]:
    """Return the findings of some kinds."""
    return [finding for view in views for finding in view.findings if not events or finding.event in events]


def walk(start: tuple[float, float], end: tuple[float, float], frames: int, **box: float) -> Iterator[Box]:
    """Yield the boxes of an object that walks evenly from start to end."""
    for share in np.linspace(0, 1, frames):
        yield standing(start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]), **box)


def alone(boxes: Iterable[Box | None], track_id: int = 1) -> list[FrameBoxes]:
    """Return frames that hold one object; None: it is not there."""
    return [{} if box is None else {track_id: box} for box in boxes]
