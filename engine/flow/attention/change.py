"""What has changed on a frame since each part of it was last examined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.flow.attention.geometry import Placement, Window
from engine.flow.attention.small import small_copy

CELL = 4
"""Pixels of the model's frame per cell of the small copy."""
NOISE_FACTOR, MAX_DIFFERENCE = 5.0, 24.0
"""A cell must change by more than this many deviations of the noise, but flicker must not make the camera blind."""
LIGHT_SHARE, LIGHT_RATIO = 0.3, (0.93, 1.08)
"""From this share of changed cells on, a median ratio of brightness outside this range is a change of the light."""
VIDEO_RANGE = 219 / 255


@dataclass(frozen=True, slots=True)
class Change:
    """What has changed.

    Attributes:
        cells: (rows, columns) uint8, 255 where a cell of `CELL` pixels has changed.
        count: number of changed cells.
        is_light: the light of the whole scene has changed.
    """

    cells: NDArray[np.uint8]
    count: int
    is_light: bool

    @property
    def share(self) -> float:
        """Share of the frame that has changed."""
        return self.count / self.cells.size


class ChangeMap:
    """Compares each frame with a small grey copy, in which every place is as it was when last examined.

    Slow changes therefore add up and are noticed. The threshold follows the noise of the camera.

    Args:
        placement: of the frames in the model's frame.
        min_difference: grey levels by which a cell must change at least.
        ignore: polygons in pixels of the frame where changes do not count.
    """

    def __init__(
        self, placement: Placement, min_difference: float, ignore: Sequence[Sequence[tuple[float, float]]] = ()
    ) -> None:
        self._placement = placement
        self._min_difference = min_difference
        width, height = placement.target_wh
        self._shape = -(-height // CELL), -(-width // CELL)
        self._ignored = _filled(ignore, placement, self._shape)
        self._now: NDArray[np.uint8] | None = None
        self._reference: NDArray[np.uint8] | None = None
        self._noise = 0.5
        self._is_luma = False

    def look(self, image: NDArray[np.uint8]) -> Change | None:
        """Return what has changed; None if there is nothing to compare with.

        Args:
            image: (H, W, 3) BGR, or (H, W) brightness of video, whose 219 levels are scaled to 255.
        """
        before, self._now = self._now, self._small(image)
        is_luma = image.ndim == 2
        if self._reference is None or before is None or is_luma != self._is_luma:
            self._is_luma, self._reference = is_luma, None
            return None
        steps = cv2.absdiff(self._now, before)[::4, ::4]
        self._noise += 0.1 * (max(float(np.median(steps)) / 0.67, 0.5) - self._noise)
        least = self._min_difference * (VIDEO_RANGE if is_luma else 1.0)
        limit = max(least, min(NOISE_FACTOR * self._noise, MAX_DIFFERENCE))
        cells = np.asarray(cv2.compare(cv2.absdiff(self._now, self._reference), limit, cv2.CMP_GE), np.uint8)
        if self._ignored is not None:
            cells[self._ignored] = 0
        count = cv2.countNonZero(cells)
        return Change(cells, count, count > LIGHT_SHARE * cells.size and self._is_other_light())

    def accept(self, window: Window | None = None) -> None:
        """Remember the last frame as examined, in a window or as a whole."""
        if self._now is None:
            return
        if window is None or self._reference is None:
            self._reference = self._now.copy()
            return
        left, top, right, bottom = (side // CELL for side in window)
        self._reference[top:bottom, left:right] = self._now[top:bottom, left:right]

    def _is_other_light(self) -> bool:
        assert self._now is not None
        assert self._reference is not None
        now, then = (copy[::4, ::4].astype(np.float32) + 1 for copy in (self._now, self._reference))
        return not LIGHT_RATIO[0] < float(np.median(now / then)) < LIGHT_RATIO[1]

    def _small(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a grey copy with one pixel per cell of the model's frame."""
        (width, height), (left, top) = self._placement.inner_wh, self._placement.pad_xy
        size_wh = max(width // CELL, 1), max(height // CELL, 1)
        copy = np.zeros(self._shape, np.uint8)
        top, left = top // CELL, left // CELL
        copy[top : top + size_wh[1], left : left + size_wh[0]] = small_copy(image, size_wh)
        return copy


def _filled(
    polygons: Sequence[Sequence[tuple[float, float]]], placement: Placement, shape: tuple[int, int]
) -> NDArray[np.bool_] | None:
    """Return (rows, columns) whether a cell lies in a polygon of the frame; None without polygons."""
    if not polygons:
        return None
    cells = np.zeros(shape, np.uint8)
    scale, pad = np.array(placement.scale_xy), np.array(placement.pad_xy)
    for polygon in polygons:
        points = (np.asarray(polygon, float) * scale + pad) / CELL
        cv2.fillPoly(cells, [points.round().astype(np.int32)], 1)
    return cells.astype(np.bool_)
