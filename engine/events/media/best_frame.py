"""Chooses the frame that shows an event's objects best."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.data import NO_DETECTION, Packet
from engine.events.store.rows import EventRow

GOOD_HEIGHT = 0.4  # of the frame: larger objects are not shown better
CUT_OFF = 0.3  # worth of an object that the border cuts
BORDER = 0.005
LEAST_SHARP = 0.3
SHARP_SIDE = 96


class Quality:
    """Rates how well frames show the objects of one event; remembers the sharpest one as the scale."""

    def __init__(self) -> None:
        self._sharpest = 0.0

    def of(self, packet: Packet, event: EventRow) -> float:
        """Return the quality of the best visible object, 0 to 1: score, height, completeness and sharpness.

        Only objects that were detected on this frame count, and only those in the event's zone, if it has one.
        """
        rows = rows_of(packet, event)
        if not len(rows):
            return 0.0
        worth = visibility(packet.tracks.xyxy, packet.frame.width, packet.frame.height)[rows]
        worth = worth * packet.tracks.score[rows]
        best = int(worth.argmax())
        return float(worth[best]) * self._sharp(packet.frame.image, packet.tracks.xyxy[rows[best]])

    def _sharp(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> float:
        """Return the sharpness of a crop relative to the sharpest so far, `LEAST_SHARP` to 1."""
        x1, y1, x2, y2 = (max(round(float(value)), 0) for value in box)
        crop = image[y1:y2, x1:x2]
        if not crop.size:
            return LEAST_SHARP
        scale = SHARP_SIDE / max(crop.shape[:2])
        size = (max(round(crop.shape[1] * scale), 1), max(round(crop.shape[0] * scale), 1))
        small = cv2.resize(crop[..., 1], size, interpolation=cv2.INTER_AREA)  # green carries most of the detail
        found = float(cv2.meanStdDev(cv2.Laplacian(small, cv2.CV_16S))[1][0, 0]) ** 2
        self._sharpest = max(self._sharpest, found)
        return min(max(found / self._sharpest, LEAST_SHARP), 1.0) if self._sharpest else LEAST_SHARP


def rows_of(packet: Packet, event: EventRow) -> NDArray[np.intp]:
    """Return the rows of the packet's tracks that belong to an event, were detected, and are in its zone."""
    tracks, wanted = packet.tracks, event.track_ids
    if not wanted or not len(tracks):
        return np.zeros(0, np.intp)
    rows = np.flatnonzero(np.isin(tracks.track_id, wanted) & (tracks.detection_index != NO_DETECTION))
    view = packet.analytics
    if view is None or event.place not in view.zones:
        return rows
    return np.array([row for row in rows if event.place in view.zones_of(int(row))], np.intp)


def visibility(boxes: NDArray[np.float32], width: int, height: int) -> NDArray[np.float64]:
    """Return (N,) float64, 0 to 1: how large, complete and unobstructed each box (N, 4) is on a frame of this size."""
    xyxy = boxes.astype(np.float64)
    size = np.maximum(xyxy[:, 2:] - xyxy[:, :2], 1e-6)
    tall = np.minimum(1.0, size[:, 1] / (GOOD_HEIGHT * height))
    margin = np.array([width, height]) * BORDER
    is_cut = (xyxy[:, :2] <= margin).any(axis=1) | (xyxy[:, 2:] >= np.array([width, height]) - margin).any(axis=1)
    return tall * np.where(is_cut, CUT_OFF, 1.0) * (1.0 - covered(xyxy, size))


def covered(xyxy: NDArray[np.float64], size: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N,) the largest share of each box that one other box covers."""
    low = np.maximum(xyxy[:, None, :2], xyxy[None, :, :2])
    high = np.minimum(xyxy[:, None, 2:], xyxy[None, :, 2:])
    common = np.maximum(high - low, 0.0).prod(axis=2)
    np.fill_diagonal(common, 0.0)
    return np.asarray(common.max(axis=1, initial=0.0) / size.prod(axis=1))


def is_of_interest(packet: Packet, events: Collection[EventRow]) -> bool:
    """Return whether the packet shows an object of one of the events."""
    wanted = {track_id for event in events for track_id in event.track_ids}
    return bool(wanted) and bool(np.isin(packet.tracks.track_id, list(wanted)).any())
