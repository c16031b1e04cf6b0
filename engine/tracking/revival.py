"""Revives lost tracks by appearance where motion alone would begin new ones. The cost per frame is bounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S
from engine.tracking.appearance import Embedder
from engine.tracking.assignment import assign
from engine.tracking.base import Matches
from engine.tracking.table import CONFIRMED, LOST, Found, Rows

_REACH_PER_S = 2.0
"""Maximum speed of an object in heights per second: matches further away are not considered."""

_REFRESH_S, _KEEP = 1.0, 0.8
"""A track is examined again after this time; its vector keeps this share of the old one."""

NEVER = -(1 << 62)
"""In `looked_ns`: this track was never examined."""


class Revival:
    """Keeps the appearance of tracks, with at most `max_crops` runs of the network per frame.

    Args:
        embedder: the network.
        min_likeness: cosine from which two crops show the same object.
        max_crops: maximum crops per frame; detections that would begin tracks come first.
    """

    def __init__(self, embedder: Embedder, min_likeness: float, max_crops: int) -> None:
        self.embedder = embedder
        self._min_likeness = min_likeness
        self._max_crops = max_crops

    @property
    def columns(self) -> list[tuple[str, type, tuple[int, ...]]]:
        """The columns that revival needs in the table: the vector and the time of its last update, or `NEVER`."""
        return [("feature", np.float32, (self.embedder.length,)), ("looked_ns", np.int64, ())]

    def revive(
        self, rows: Rows, found: Found, matches: Matches, image: NDArray[np.uint8], now_ns: int, class_aware: bool
    ) -> Matches:
        """Return the matches, with births replaced by matches to lost tracks of the same appearance.

        `image` is (H, W, 3) uint8 BGR; at most `max_crops` of its boxes are embedded.
        """
        lost = np.flatnonzero((rows["state"] == LOST) & (rows["looked_ns"] != NEVER))
        lost = lost[~np.isin(lost, matches.rows)]
        left = self._max_crops
        if len(lost) and len(matches.births):
            candidates = matches.births[:left]
            left -= len(candidates)
            likeness = self.embedder.embed(image, found.xyxy[candidates]) @ rows["feature"][lost].T
            likely = (likeness >= self._min_likeness) & _within_reach(rows[lost], found.xyxy[candidates], now_ns)
            if class_aware:
                likely &= found.class_id[candidates][:, None] == rows["class_id"][lost][None, :]
            new, old = np.nonzero(likely)
            chosen, who = assign(new, old, likeness[new, old].astype(np.float64), *likely.shape)
            births = np.delete(matches.births, chosen)
            matches = Matches(np.append(matches.rows, lost[who]), np.append(matches.cols, candidates[chosen]), births)
        self._learn(rows, found, matches, image, now_ns, left)
        return matches

    def _learn(
        self, rows: Rows, found: Found, matches: Matches, image: NDArray[np.uint8], now_ns: int, left: int
    ) -> None:
        """Update the vectors of matched tracks, those never or least recently updated first."""
        looked = rows["looked_ns"][matches.rows]
        due = (looked == NEVER) | (now_ns - looked >= _REFRESH_S * NS_PER_S)
        due = np.flatnonzero(due & (rows["state"][matches.rows] == CONFIRMED))
        due = due[np.argsort(looked[due], kind="stable")][:left]
        if not len(due):
            return
        at, seen = matches.rows[due], self.embedder.embed(image, found.xyxy[matches.cols[due]])
        known = (looked[due] != NEVER)[:, None]
        mixed = np.where(known, _KEEP * rows["feature"][at] + (1 - _KEEP) * seen, seen)
        rows["feature"][at] = mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)
        rows["looked_ns"][at] = now_ns


def _within_reach(lost: Rows, xyxy: NDArray[np.float64], now_ns: int) -> NDArray[np.bool_]:
    """Return (M, N): whether the object of a lost track can have moved to a detection."""
    last = lost["observed"]
    centre, was = (xyxy[:, :2] + xyxy[:, 2:]) * 0.5, (last[:, :2] + last[:, 2:]) * 0.5
    way = np.linalg.norm(centre[:, None] - was[None], axis=2)
    unseen_s = (now_ns - lost["seen_ns"]) / NS_PER_S
    near: NDArray[np.bool_] = way <= (last[:, 3] - last[:, 1]) * (1.0 + _REACH_PER_S * unseen_s)
    return near
