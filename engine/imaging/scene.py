"""Draws zones and lines with their counts."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from engine.analytics.view import View

Image = NDArray[np.uint8]
Color = tuple[int, int, int]
REFERENCE_HEIGHT = 720
ZONE: Color = (80, 200, 80)
BUSY_ZONE: Color = (60, 170, 255)
LINE: Color = (255, 180, 60)
TEXT: Color = (255, 255, 255)
DARK: Color = (30, 30, 30)
FONT = cv2.FONT_HERSHEY_SIMPLEX
READABLE = 0.45
"""Size of the smallest text that is read without effort."""
NOWHERE: NDArray[np.float64] = np.zeros((0, 4))


def draw_scene(image: Image, view: View) -> None:
    """Draw the zones with their occupancy and visits, and the lines with arrow and counts, onto a BGR image."""
    draw_outlines(image, view)
    write_counts(image, view)


def draw_outlines(image: Image, view: View) -> None:
    """Draw the zones and the lines with their arrows, without text, onto a BGR image (H, W, 3) uint8."""
    scale = _scale(image)
    for name, corners in zip(view.zones, view.zone_corners, strict=True):
        color = BUSY_ZONE if view.occupancy[name] else ZONE
        cv2.polylines(image, [corners.round().astype(np.int32)], True, color, max(1, round(2 * scale)), cv2.LINE_AA)
    for vertices in view.line_vertices:
        _draw_line(image, vertices, scale)


def write_counts(image: Image, view: View, taken: NDArray[np.float64] = NOWHERE) -> None:
    """Write names and counts beside the zones and lines of a BGR image (H, W, 3) uint8.

    Args:
        image: to write into.
        view: what to write.
        taken: (N, 4) left, top, right, bottom of texts that are better not covered, in pixels.
    """
    scale = _scale(image)
    for name, corners in zip(view.zones, view.zone_corners, strict=True):
        now, visits = view.occupancy[name], view.visits[name]
        x, y = (int(value) for value in corners[corners[:, 1].argmin()].round())
        text = f"{name}: {now} now, {visits} visit{'' if visits == 1 else 's'}"
        _write_beside(image, text, (x, y), round(44 * scale), scale, BUSY_ZONE if now else ZONE, taken)
    for name, vertices in zip(view.lines, view.line_vertices, strict=True):
        text = f"{name}: " + ", ".join(f"{direction} {n}" for direction, n in view.totals[name].items())
        before, after = _middle(vertices)
        x, y = ((before + after) / 2).astype(int).tolist()
        above = y - round(18 * scale)  # the head of the arrow
        _write_beside(image, text, (x, above), round(60 * scale), scale, LINE, taken)


def _write_beside(
    image: Image, text: str, at: tuple[int, int], lower: int, scale: float, color: Color, taken: NDArray[np.float64]
) -> None:
    """Write at a point or, if that covers what is taken and it helps, a little below it."""
    first = _Line.placed(image, text, at, scale)
    if first.covers(taken):
        second = _Line.placed(image, text, (at[0], at[1] + lower), scale)
        first = first if second.covers(taken) else second
    first.draw(image, text, color)


def _scale(image: Image) -> float:
    return float(max(min(image.shape[:2]) / REFERENCE_HEIGHT, 0.4))


def _middle(vertices: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the two ends of the middle segment of a line."""
    middle = len(vertices) // 2
    return vertices[middle - 1], vertices[middle]


def _draw_line(image: Image, vertices: NDArray[np.float64], scale: float) -> None:
    points = vertices.round().astype(np.int32)
    cv2.polylines(image, [points], False, LINE, max(2, round(3 * scale)), cv2.LINE_AA)
    before, after = _middle(vertices)
    along = (after - before) / max(float(np.hypot(*(after - before))), 1e-6)
    right = np.array((-along[1], along[0]))  # y downwards
    centre = (before + after) / 2
    tip = centre + right * 40 * scale
    start, end = (tuple(int(value) for value in point.round()) for point in (centre, tip))
    cv2.arrowedLine(image, start, end, LINE, max(2, round(3 * scale)), cv2.LINE_AA, tipLength=0.4)


class _Line(NamedTuple):
    """One line of text: font size, thickness, lower left corner of its letters, and the area with its background."""

    size: float
    thickness: int
    pad: int
    at: tuple[int, int]
    area: tuple[int, int, int, int]

    @classmethod
    def placed(cls, image: Image, text: str, at: tuple[int, int], scale: float) -> _Line:
        """Return the text near a point, moved so that it stays inside the image."""
        size, thickness, pad = max(0.55 * scale, READABLE), max(1, round(1.2 * scale)), max(2, round(4 * scale))
        width, height, below = _extent(text, size, thickness)
        room = image.shape[1] - 2 * pad
        if width > room:
            size *= max(room / width, 0.5)
            width, height, below = _extent(text, size, thickness)
        x = min(max(at[0], pad), max(image.shape[1] - width - pad, pad))
        y = min(max(at[1] - pad, height + pad), image.shape[0] - below - pad)
        area = (x - pad, y - height - pad, x + width + pad, y + below + pad)
        return cls(size, thickness, pad, (x + pad // 2, y), area)

    def covers(self, taken: NDArray[np.float64]) -> bool:
        """Return whether it overlaps any of (N, 4) areas."""
        left, top, right, bottom = self.area
        beside = (taken[:, 0] >= right) | (taken[:, 2] <= left) | (taken[:, 1] >= bottom) | (taken[:, 3] <= top)
        return not beside.all()

    def draw(self, image: Image, text: str, color: Color) -> None:
        """Draw it."""
        left, top, right, bottom = self.area
        cv2.rectangle(image, (left, top), (right, bottom), DARK, cv2.FILLED)
        cv2.rectangle(image, (left, top), (left + max(2, self.pad // 2), bottom), color, cv2.FILLED)
        cv2.putText(image, text, self.at, FONT, self.size, TEXT, self.thickness, cv2.LINE_AA)


@lru_cache(1024)
def _extent(text: str, size: float, thickness: int) -> tuple[int, int, int]:
    """Return width, height, and depth below the base line of a text in pixels."""
    (width, height), below = cv2.getTextSize(text, FONT, size, thickness)
    return width, height, below


def write(image: Image, text: str, at: tuple[int, int], scale: float, color: Color) -> None:
    """Write one line of text on a dark background into an image, (H, W, 3) uint8 BGR, moved so that it stays inside.

    It is no smaller than can be read, unless it does not fit otherwise.
    """
    _Line.placed(image, text, at, scale).draw(image, text, color)
