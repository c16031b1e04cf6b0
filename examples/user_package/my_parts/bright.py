"""A detector without a model: finds areas brighter than their surroundings."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from engine import Detections, DetectorBase, Frame


class BrightDetector(DetectorBase):
    """Finds bright areas.

    Args:
        threshold: grey level from which a pixel is bright.
        min_area: square pixels of an area.
    """

    name = "bright"
    class_names = ("bright",)

    def __init__(self, threshold: int = 128, min_area: int = 40) -> None:
        self._threshold, self._min_area = threshold, min_area

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Return the bright areas of each frame."""
        return [self._found(frame) for frame in frames]

    def _found(self, frame: Frame) -> Detections:
        grey = cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)
        _, mask = cv2.threshold(grey, self._threshold, 255, cv2.THRESH_BINARY)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        x, y, width, height, area = stats[1:].T  # row 0 is the background
        boxes = np.stack((x, y, x + width, y + height), axis=1)[area >= self._min_area]
        return Detections(boxes, np.full(len(boxes), 0.9), np.zeros(len(boxes)))
