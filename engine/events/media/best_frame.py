"""Chooses the frame that shows an event's objects best."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.data import NO_DETECTION, Packet
from engine.events.store.rows import EventRow

if TYPE_CHECKING:
    from engine.analytics.view import View

GOOD_HEIGHT = 0.4  # share of the frame's height above which larger objects gain nothing
CUT_OFF = 0.3  # value of an object that the border cuts off
BORDER = 0.005
LEAST_SHARP = 0.3
SHARP_SIDE = 96
_ALMOST = 1 - 1e-6  # tolerance for the rounding of float32


class Observed:
    """The objects of one frame, rated once for all events that use it."""

    def __init__(self, packet: Packet) -> None:
        self._packet = packet
        self._inside: dict[str, NDArray[np.bool_]] = {}

    @cached_property
    def detail(self) -> NDArray[np.uint8]:
        """(H, W) uint8, the decoded brightness, or else green, which carries most of it; neither needs a conversion."""
        frame = self._packet.frame
        luma = frame.luma
        return frame.image[..., 1] if luma is None else luma

    @cached_property
    def most(self) -> list[float]:
        """The most that each row can be worth, 0 to 1: its worth if nothing covered or cut the object."""
        tracks, frame = self._packet.tracks, self._packet.frame
        tall = tracks.xyxy[:, 3] - tracks.xyxy[:, 1]
        seen = tracks.detection_index != NO_DETECTION
        most: list[float] = (np.minimum(1.0, tall / (GOOD_HEIGHT * frame.height)) * tracks.score * seen).tolist()
        return most

    @cached_property
    def worth(self) -> NDArray[np.float64]:
        """(N,) float64, 0 to 1: score times visibility; 0 for objects that were not detected on this frame."""
        tracks, frame = self._packet.tracks, self._packet.frame
        seen = tracks.detection_index != NO_DETECTION
        return np.asarray(visibility(tracks.xyxy, frame.width, frame.height) * tracks.score * seen)

    @cached_property
    def _row_of(self) -> dict[int, int]:
        return {track_id: row for row, track_id in enumerate(self._packet.tracks.track_id.tolist())}

    def rows_of(self, event: EventRow, least: float = 0.0) -> list[int]:
        """Return the rows of an event's objects that were detected on this frame, in the event's zone if it has one.

        Those that cannot be worth more than `least` are left out.
        """
        rows = [self._row_of[track_id] for track_id in event.track_ids if track_id in self._row_of]
        rows = [row for row in rows if self.most[row] > least * _ALMOST]
        view = self._packet.analytics
        if rows and view is not None and event.place in view.zones:
            inside = self._in_zone(view, event.place)
            rows = [row for row in rows if inside[row]]
        return [row for row in rows if self.worth[row] > 0]

    def _in_zone(self, view: View, place: str) -> NDArray[np.bool_]:
        """Return (N,) bool, which rows are in a zone."""
        if place not in self._inside:
            at = view.object_of_row
            told = view.objects.inside[:, view.zones.index(place)]
            self._inside[place] = (at >= 0) & told[np.maximum(at, 0)] if len(told) else np.zeros(len(at), np.bool_)
        return self._inside[place]

    def box(self, row: int) -> NDArray[np.float32]:
        """Return (4,) the box of a row in pixels."""
        return np.asarray(self._packet.tracks.xyxy[row])


class Quality:
    """Rates how well frames show the objects of one event; remembers the sharpest one as the scale."""

    def __init__(self) -> None:
        self._sharpest = 0.0

    def of(self, seen: Observed, event: EventRow, least: float = 0.0) -> float:
        """Return the quality of the best visible object, 0 to 1: score, height, completeness and sharpness.

        Args:
            seen: the frame.
            event: the event whose objects count.
            least: an object that cannot be better than this is not examined closely and gets 0.
        """
        rows = seen.rows_of(event, least)
        best = max(rows, key=seen.worth.__getitem__, default=None)
        if best is None or seen.worth[best] <= least:
            return 0.0
        return float(seen.worth[best]) * self._sharp(seen.detail, seen.box(best))

    def _sharp(self, detail: NDArray[np.uint8], box: NDArray[np.float32]) -> float:
        """Return the sharpness of a crop relative to the sharpest so far, `LEAST_SHARP` to 1."""
        x1, y1, x2, y2 = (max(round(value), 0) for value in box.tolist())
        crop = detail[y1:y2, x1:x2]
        if not crop.size:
            return LEAST_SHARP
        scale = SHARP_SIDE / max(crop.shape[:2])
        size = (max(round(crop.shape[1] * scale), 1), max(round(crop.shape[0] * scale), 1))
        small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        found = float(cv2.meanStdDev(cv2.Laplacian(small, cv2.CV_16S))[1][0, 0]) ** 2
        self._sharpest = max(self._sharpest, found)
        return min(max(found / self._sharpest, LEAST_SHARP), 1.0) if self._sharpest else LEAST_SHARP


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
