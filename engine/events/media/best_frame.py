"""Chooses the frame that shows an event's objects best."""

from __future__ import annotations

from collections.abc import Sequence
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
LEAST_SIDE = 1e-6  # of a box, in pixels


class Observed:
    """The objects of one frame, rated once for all events that use it."""

    def __init__(self, packet: Packet) -> None:
        self._packet = packet
        self._most: dict[int, float] = {}
        self._worth: dict[int, float] = {}

    @cached_property
    def detail(self) -> NDArray[np.uint8]:
        """(H, W) uint8, the decoded brightness, or else green, which carries most of it; neither needs a conversion."""
        frame = self._packet.frame
        luma = frame.luma
        return frame.image[..., 1] if luma is None else luma

    @cached_property
    def _row_of(self) -> dict[int, int]:
        return {track_id: row for row, track_id in enumerate(self._packet.tracks.track_id.tolist())}

    @cached_property
    def _xyxy(self) -> NDArray[np.float64]:
        return self._packet.tracks.xyxy.astype(np.float64)

    def most(self, row: int) -> float:
        """Return the most that a row can be worth, 0 to 1: its worth if nothing covered or cut the object."""
        most = self._most.get(row)
        if most is None:
            tracks, height = self._packet.tracks, self._packet.frame.height
            seen = tracks.detection_index.item(row) != NO_DETECTION
            most = tall(self._xyxy[row].tolist(), height) * tracks.score.item(row) if seen else 0.0
            self._most[row] = most
        return most

    def worth(self, row: int) -> float:
        """Return the worth of a row, 0 to 1: score times visibility; 0 if it was not detected on this frame."""
        if row not in self._worth:
            tracks, frame = self._packet.tracks, self._packet.frame
            seen = tracks.detection_index[row] != NO_DETECTION
            share = visibility(self._xyxy, row, frame.width, frame.height) if seen else 0.0
            self._worth[row] = share * float(tracks.score[row])
        return self._worth[row]

    def rows_of(self, event: EventRow, least: float = 0.0) -> list[int]:
        """Return the rows of an event's objects that were detected on this frame, in the event's zone if it has one.

        Those that cannot be worth more than `least` are left out.
        """
        row_of = self._row_of
        rows = [row for track_id in event.facts.get("track_ids", ()) if (row := row_of.get(track_id)) is not None]
        rows = [row for row in rows if self.most(row) > least]
        view = self._packet.analytics
        if rows and view is not None and event.place in view.zones:
            zone = view.zones.index(event.place)
            rows = [row for row in rows if _is_inside(view, row, zone)]
        return [row for row in rows if self.worth(row) > 0]

    def box(self, row: int) -> NDArray[np.float32]:
        """Return (4,) the box of a row in pixels."""
        return np.asarray(self._packet.tracks.xyxy[row])


def _is_inside(view: View, row: int, zone: int) -> bool:
    """Return whether the object of a row of the tracks is in a zone, given by its column."""
    at = view.object_of_row.item(row)
    return at >= 0 and bool(view.objects.inside.item(at, zone))


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
        best = max(rows, key=seen.worth, default=None)
        if best is None or seen.worth(best) <= least:
            return 0.0
        return seen.worth(best) * self._sharp(seen.detail, seen.box(best))

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


def visibility(xyxy: NDArray[np.float64], row: int, width: int, height: int) -> float:
    """Return how large, complete and unobstructed one of (N, 4) boxes is on a frame of this size, 0 to 1."""
    x1, y1, x2, y2 = box = xyxy[row].tolist()
    x, y = width * BORDER, height * BORDER
    is_cut = x1 <= x or y1 <= y or x2 >= width - x or y2 >= height - y
    return tall(box, height) * (CUT_OFF if is_cut else 1.0) * (1.0 - covered(xyxy, row))


def tall(xyxy: Sequence[float], height: int) -> float:
    """Return the height of a box as a share of the height that is good enough, at most 1."""
    return min(1.0, max(xyxy[3] - xyxy[1], LEAST_SIDE) / (GOOD_HEIGHT * height))


def covered(xyxy: NDArray[np.float64], row: int) -> float:
    """Return the largest share of one of (N, 4) boxes that one other box covers."""
    x1, y1, x2, y2 = xyxy[row].tolist()
    size: float = max(x2 - x1, LEAST_SIDE) * max(y2 - y1, LEAST_SIDE)
    common = np.minimum(xyxy[:, 2:], (x2, y2)) - np.maximum(xyxy[:, :2], (x1, y1))
    np.maximum(common, 0.0, out=common)
    areas = common[:, 0] * common[:, 1]
    areas[row] = 0.0
    return float(areas.max()) / size
