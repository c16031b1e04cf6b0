"""A pattern painted onto people, and a search for it in images and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from engine.data import Detections, Frame
from engine.protocols import DetectorBase

SIZE = 48
MARKER = np.kron(np.random.default_rng(7).integers(0, 2, (12, 12)), np.ones((4, 4)))[..., None].repeat(3, 2) * 200 + 20
MARKER = MARKER.astype(np.uint8)
READABLE = 0.7
"""Correlation above which a pattern counts as read; without privacy it is about 0.95, by chance below 0.5."""


def scene(number: int, *, width: int = 320, height: int = 240) -> np.ndarray:
    """Return an image of a meadow with two people who walk and carry the pattern, (H, W, 3) uint8 BGR."""
    grass = np.random.default_rng(3).normal(110, 6, (height, width, 3)).clip(0, 255).astype(np.uint8)
    for box in people(number):
        x1, y1, x2, y2 = box
        grass[y1:y2, x1:x2] = (40, 40, 160)
        grass[y1 + 10 : y1 + 10 + SIZE, x1 + 6 : x1 + 6 + SIZE] = MARKER
    return grass


def people(number: int) -> list[tuple[int, int, int, int]]:
    """Return the boxes of the people in an image; the second comes with image 4."""
    first = (20 + 4 * number, 60, 80 + 4 * number, 180)
    second = (240 - 3 * number, 80, 300 - 3 * number, 200)
    return [first] if number < 4 else [first, second]


class FindsPeople(DetectorBase):
    """Finds red coats; misses everything on the images whose numbers are in `blind`."""

    name = "coats"
    class_names = ("person", "car")

    def __init__(self, blind: Sequence[int] = ()) -> None:
        self.blind = set(blind)

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [Detections.empty() if frame.frame_id in self.blind else _coats(frame.image) for frame in frames]


def _coats(image: np.ndarray) -> Detections:
    mask = cv2.inRange(image, np.array((0, 0, 110)), np.array((95, 95, 255)))
    _, _, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(mask, np.ones((5, 5), np.uint8)))
    rows = stats[1:][stats[1:, 4] > 800]
    x, y, w, h = rows[:, :4].T
    return Detections(np.column_stack((x, y, x + w, y + h)), np.full(len(x), 0.9), np.zeros(len(x)))


def correlation(image: np.ndarray) -> float:
    """Return how well the pattern is found anywhere in an image, at its size or nearly; 1: exactly."""
    best, grey = 0.0, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    for scale in (1.0, 0.5, 2.0):
        sized = cv2.resize(MARKER[..., 0], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if sized.shape[0] <= image.shape[0] and sized.shape[1] <= image.shape[1]:
            best = max(best, float(cv2.matchTemplate(grey, sized, cv2.TM_CCOEFF_NORMED).max()))
    return best


def holds_pixels(path: Path) -> bool:
    """Return whether a file holds a row of the pattern as raw pixels, BGR or grey."""
    data = path.read_bytes()
    return any(row.tobytes() in data or row[:, 0].tobytes() in data for row in MARKER[::4])
