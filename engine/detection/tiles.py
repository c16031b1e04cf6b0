"""Tiling: cuts a frame into overlapping tiles, for objects that are too small in the scaled frame.

Detection runs on each tile, batched if the model allows, and on the whole frame for objects larger than a tile. Where
tiles overlap an object can be found twice, once whole and once cut at a border: the whole box wins over the cut one,
then the higher score over the lower.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.boxes import Boxes, area
from engine.data import Detections, Frame
from engine.errors import ConfigError
from engine.flow.defaults import describe, is_prepared
from engine.protocols import Detector, DetectorFacts, PendingDetections

Tile = tuple[int, int, int, int]
CONTAINED = 0.6
"""If another tile's box of the same class covers this share of a box, both are the same object."""
BORDER = 2.0
"""In pixels, and as a share of the tile's side: a box closer than that to an inner border of its tile is cut there."""
BORDER_SHARE = 0.01


def tiles(width: int, height: int, side_wh: tuple[int, int], overlap: float) -> list[Tile]:
    """Return x1, y1, x2, y2 of tiles that cover a frame, evenly spread, overlapping by at least `overlap`.

    >>> tiles(100, 50, (60, 60), 0.2)
    [(0, 0, 60, 50), (40, 0, 100, 50)]
    """
    columns = _starts(width, min(side_wh[0], width), overlap)
    rows = _starts(height, min(side_wh[1], height), overlap)
    size = min(side_wh[0], width), min(side_wh[1], height)
    return [(x, y, x + size[0], y + size[1]) for y, x in itertools.product(rows, columns)]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if side >= length:
        return [0]
    count = 1 + int(np.ceil((length - side) / max(1.0, side * (1 - overlap))))
    return [round(start) for start in np.linspace(0, length - side, count).tolist()]


class TiledDetector:
    """Detects on tiles of each frame and on the whole frame; everything else is delegated to the inner detector.

    Args:
        inner: detects on the tiles; its `max_batch` counts tiles if its model leaves the batch open.
        side_wh: size of a tile in pixels of the frame.
        overlap: minimum share of a tile that its neighbour also covers.
        whole: whether detection also runs on the whole frame.
        iou_threshold: overlap from which two boxes of one class are the same object.

    Raises:
        ConfigError: tiles are too small, or a share is out of range.
    """

    max_batch = 1
    depth = 1

    def __init__(
        self,
        inner: Detector,
        side_wh: tuple[int, int] = (640, 640),
        *,
        overlap: float = 0.2,
        whole: bool = True,
        iou_threshold: float = 0.5,
    ) -> None:
        if min(side_wh) < 32 or not 0 <= overlap <= 0.9 or not 0 <= iou_threshold <= 1:
            raise ConfigError(
                f"tiles of {side_wh}, overlap {overlap}, iou_threshold {iou_threshold}: "
                "expected sides from 32, an overlap from 0 to 0.9, and a threshold from 0 to 1"
            )
        self.inner = inner
        self._side_wh = side_wh
        self._overlap = overlap
        self._whole = whole
        self._iou_threshold = iou_threshold

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.inner.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name by class id."""
        return self.inner.class_names

    def describe(self) -> DetectorFacts:
        """Describe what runs the inner detector."""
        return describe(self.inner)

    def prepare(self) -> bool:
        """Return whether `open` can proceed without waiting for another process."""
        return is_prepared(self.inner)

    def open(self) -> None:
        """Load the model. Raises `ModelError`."""
        self.inner.open()

    def submit(self, frames: Sequence[Frame]) -> PendingTiles:
        """Start the detection of one frame.

        The inner detector's `depth` batches of tiles stay in flight; earlier ones are finished here. Raises
        `ConfigError` for more or fewer frames than one.
        """
        if len(frames) != 1:
            raise ConfigError(f"{len(frames)} frames submitted: expected 1")
        [frame] = frames
        places = tiles(frame.width, frame.height, self._side_wh, self._overlap)
        if self._whole and len(places) > 1:
            places.append((0, 0, frame.width, frame.height))
        cuts = [replace(frame, image=frame.image[y1:y2, x1:x2]) for x1, y1, x2, y2 in places]
        done: list[Detections] = []
        under_way: deque[PendingDetections] = deque()
        for start in range(0, len(cuts), self.inner.max_batch):
            if len(under_way) == self.inner.depth:
                done += under_way.popleft().result()
            under_way.append(self.inner.submit(cuts[start : start + self.inner.max_batch]))
        return PendingTiles(frame, places, done, list(under_way), self._iou_threshold)

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Detect on any number of frames and wait; opens the detector if necessary."""
        self.open()
        return [found for frame in frames for found in self.submit([frame]).result()]

    def close(self) -> None:
        """Free the model; harmless when repeated."""
        self.inner.close()


def untiled(detector: Detector) -> Detector:
    """Return the inner detector of a tiled one, or the detector itself."""
    return untiled(detector.inner) if isinstance(detector, TiledDetector) else detector


class PendingTiles:
    """The tiles of one frame in flight."""

    def __init__(
        self,
        frame: Frame,
        places: Sequence[Tile],
        done: list[Detections],
        under_way: Sequence[PendingDetections],
        iou_threshold: float,
    ) -> None:
        self._frame = frame
        self._places = places
        self._done = done
        self._under_way = under_way
        self._iou_threshold = iou_threshold
        self.stage_ms: dict[str, float] = {}

    def result(self) -> list[Detections]:
        """Wait, and return the merged detections of the frame. Call once."""
        for pending in self._under_way:
            self._done += pending.result()
            for step, spent_ms in pending.stage_ms.items():
                self.stage_ms[step] = self.stage_ms.get(step, 0.0) + spent_ms
        return [merge(self._frame, self._places, self._done, self._iou_threshold)]


def merge(frame: Frame, places: Sequence[Tile], found: Sequence[Detections], iou_threshold: float) -> Detections:
    """Merge the detections of all tiles into those of the frame, each object once.

    Keypoints, corners and masks are those of the tile whose box is kept.
    """
    tile = np.repeat(np.arange(len(found)), [len(one) for one in found])
    corner = np.array([place[:2] * 2 for place in places], np.float32).reshape(-1, 4)
    xyxy = np.concatenate([one.xyxy for one in found]) + corner[tile]
    score = np.concatenate([one.score for one in found])
    class_id = np.concatenate([one.class_id for one in found])
    cut = _is_cut(xyxy, np.array(places, np.float32)[tile], frame)
    order = np.lexsort((-score, cut))
    same = _same_object(xyxy[order], class_id[order], tile[order], iou_threshold)
    alive = np.ones(len(order), bool)
    for row in range(len(order)):
        if alive[row]:
            alive[row + 1 :] &= ~same[row, row + 1 :]
    kept = order[alive]
    kept = kept[np.argsort(-score[kept], kind="stable")]
    extra = {
        name: _points(column, kept, corner[tile[kept], :2])
        for name in ("keypoints", "xyxyxyxy")
        if (column := _column(found, name)) is not None
    }
    if all("mask" in one.extra for one in found):
        extra["mask"] = _masks(frame, places, found, kept)
    merged = Detections(xyxy[kept], score[kept], class_id[kept], extra)
    merged.unreported = _unreported(places, found)
    return merged


def _unreported(places: Sequence[Tile], found: Sequence[Detections]) -> Detections | None:
    """Return the further objects that privacy must see, from all tiles; an object may occur twice."""
    parts: list[Detections] = []
    for place, one in zip(places, found, strict=True):
        if one.unreported is not None:
            there = one.unreported
            corner = np.array(place[:2] * 2, np.float32)
            parts.append(Detections(there.xyxy + corner, there.score, there.class_id))
    return Detections.joined(*parts)


def _column(found: Sequence[Detections], name: str) -> NDArray[Any] | None:
    """Return one column of the detections of all tiles; None if a tile lacks it."""
    if not all(name in one.extra for one in found):
        return None
    return np.concatenate([one.extra[name] for one in found])


def _points(column: NDArray[Any], kept: NDArray[np.intp], corner: NDArray[np.float32]) -> NDArray[Any]:
    """Return the (K, points, 2 or more) kept rows in the frame's pixels; `corner` (K, 2) is that of each one's tile."""
    moved = column[kept]
    moved[..., :2] += corner[:, None]
    return moved


def _masks(
    frame: Frame, places: Sequence[Tile], found: Sequence[Detections], kept: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Return the kept masks of the tiles as (K, H, W) of the frame."""
    masks = np.zeros((len(kept), frame.height, frame.width), np.bool_)
    whose = [(place, mask) for place, one in zip(places, found, strict=True) for mask in one.extra["mask"]]
    for out, row in zip(masks, kept.tolist(), strict=True):
        (x1, y1, x2, y2), mask = whose[row]
        out[y1:y2, x1:x2] = mask
    return masks


def _is_cut(xyxy: Boxes, place: NDArray[np.float32], frame: Frame) -> NDArray[np.bool_]:
    """Return (N,) whether a box ends at a border of its tile that is not a border of the frame."""
    border = np.array([0, 0, frame.width, frame.height], np.float32)
    near = np.tile(np.maximum((place[:, 2:] - place[:, :2]) * BORDER_SHARE, BORDER), 2)
    cut: NDArray[np.bool_] = ((np.abs(xyxy - place) <= near) & (np.abs(place - border) > BORDER)).any(axis=1)
    return cut


def _same_object(
    xyxy: Boxes, class_id: NDArray[np.int32], tile: NDArray[np.intp], iou_threshold: float
) -> NDArray[np.bool_]:
    """Return (N, N) whether two boxes of one class and of different tiles are the same object."""
    size = np.minimum(xyxy[:, None, 2:], xyxy[None, :, 2:]) - np.maximum(xyxy[:, None, :2], xyxy[None, :, :2])
    inner = np.maximum(size, 0).prod(axis=2)
    areas = area(xyxy)
    smaller = np.minimum(areas[:, None], areas[None])
    union = areas[:, None] + areas[None] - inner
    close = (inner > iou_threshold * union) | (inner > CONTAINED * smaller)
    same: NDArray[np.bool_] = close & (class_id[:, None] == class_id[None]) & (tile[:, None] != tile[None])
    return same
