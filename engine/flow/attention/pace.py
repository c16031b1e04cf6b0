"""How often the detector must run on each source, judged by its tracks (`detect_hz: auto`).

There are three fixed rates: slow while everything stands still, medium while something moves, appears or vanishes, and
every frame while an object is so fast for its size that its boxes would hardly overlap from one detection to the next.
Measured on TUD-Stadtmitte and TUD-Campus (25 frames per second, people walking past at close range), HOTA averaged over
the choices of the first frame: every frame .54 and .56, 12.5 detections per second .52 and .56, 8 .50 and .49, 6 .51
and .51. Uneven intervals, such as a burst of detections for each new object, were no better than the lower rate alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S
from engine.data import NO_DETECTION, Detections, Tracks

STILL_HZ, MOVING_HZ = 7.5, 12.5
STILL, FAST = 0.3, 6.0
"""Up to the first speed an object stands still, above the second it is fast; in its shorter sides per second."""
EVERY_FRAME_HZ = 1000.0
MOVING_NS = 2 * NS_PER_S
"""How long the medium rate is held after its last cause, so that the rate does not oscillate."""
LOOK_BACK_NS = int(0.3 * NS_PER_S)
"""Motion is measured over at least this time, so that jittering boxes do not count as moving."""
NEW_SCORE = 0.25
"""Minimum score for a detection without a track to count as a new object."""


@dataclass(frozen=True, slots=True)
class _Places:
    at_ns: int
    track_id: NDArray[np.int64]
    centre: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Scene:
    """The state of a source; replaced as a whole, so that other threads read a consistent one."""

    last: _Places
    earlier: _Places
    moved_ns: int
    is_fast: bool


class Pace:
    """The rate of each source. Call `note` and `forget` on one thread; `hz` on any."""

    def __init__(self) -> None:
        self._scenes: dict[str, _Scene] = {}

    def note(self, source_id: str, tracks: Tracks, found: Detections, scene_ns: int) -> None:
        """Look at the tracks of a frame that the detector ran on.

        Args:
            source_id: its source.
            tracks: of the frame.
            found: its detections.
            scene_ns: its time.
        """
        centre = (tracks.xyxy[:, :2] + tracks.xyxy[:, 2:]) * np.float32(0.5)
        last = _Places(scene_ns, tracks.track_id, centre)
        before = self._scenes.get(source_id)
        if before is None or before.last.at_ns >= scene_ns:
            self._scenes[source_id] = _Scene(last, last, scene_ns, is_fast=False)
            return
        speed = _speed(tracks, last, before.earlier)
        is_moving = speed > STILL or _has_changed(tracks, found, before.last)
        is_old = scene_ns - before.earlier.at_ns >= LOOK_BACK_NS
        earlier = last if is_old else before.earlier
        is_fast = speed > FAST if is_old else before.is_fast
        self._scenes[source_id] = _Scene(last, earlier, scene_ns if is_moving else before.moved_ns, is_fast)

    def hz(self, source_id: str, scene_ns: int) -> float | None:
        """Return the detections per second that a source needs at this time; None: every frame."""
        scene = self._scenes.get(source_id)
        if scene is None or scene.is_fast:
            return None
        return MOVING_HZ if abs(scene_ns - scene.moved_ns) < MOVING_NS else STILL_HZ

    def forget(self, source_id: str) -> None:
        """Start over with every frame, because the source or its model has changed."""
        self._scenes.pop(source_id, None)


def _speed(tracks: Tracks, now: _Places, then: _Places) -> float:
    """Return the speed of the fastest track in its shorter sides per second; 0 if too little time has passed."""
    if now.at_ns - then.at_ns < LOOK_BACK_NS:
        return 0.0
    _, rows, earlier = np.intersect1d(now.track_id, then.track_id, assume_unique=True, return_indices=True)
    if not len(rows):
        return 0.0
    move = np.hypot(*(now.centre[rows] - then.centre[earlier]).T)
    sides = tracks.xyxy[rows, 2:] - tracks.xyxy[rows, :2]
    share: float = (move / np.maximum(sides.min(axis=1), 1.0)).max()
    return float(share) * NS_PER_S / (now.at_ns - then.at_ns)


def _has_changed(tracks: Tracks, found: Detections, before: _Places) -> bool:
    """Return whether a detection has no track, or a track has appeared or vanished."""
    if not np.array_equal(tracks.track_id, before.track_id):
        return True
    is_new = found.score >= NEW_SCORE
    is_new[tracks.detection_index[tracks.detection_index != NO_DETECTION]] = False
    return bool(is_new.any())
