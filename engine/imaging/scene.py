"""Draws zones and lines with their counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def draw_scene(image: Image, view: View) -> None:
    """Draw the zones with their occupancy and visits, and the lines with arrow and counts, onto a BGR image."""
    scale = max(min(image.shape[:2]) / REFERENCE_HEIGHT, 0.4)
    for name, corners in zip(view.zones, view.zone_corners, strict=True):
        _draw_zone(
            image,
            corners,
            f"{name}: {view.occupancy[name]} now, {view.visits[name]} visit{'' if view.visits[name] == 1 else 's'}",
            scale,
            BUSY_ZONE if view.occupancy[name] else ZONE,
        )
    for name, vertices in zip(view.lines, view.line_vertices, strict=True):
        _draw_line(image, vertices, name, dict(view.totals[name]), scale)


def _draw_zone(image: Image, corners: NDArray[np.float64], text: str, scale: float, color: Color) -> None:
    points = corners.round().astype(np.int32)
    cv2.polylines(image, [points], True, color, max(1, round(2 * scale)), cv2.LINE_AA)
    top = points[points[:, 1].argmin()]
    write(image, text, (int(top[0]), int(top[1])), scale, color)


def _draw_line(image: Image, vertices: NDArray[np.float64], name: str, counts: dict[str, int], scale: float) -> None:
    points = vertices.round().astype(np.int32)
    cv2.polylines(image, [points], False, LINE, max(2, round(3 * scale)), cv2.LINE_AA)
    middle = len(vertices) // 2
    before, after = vertices[middle - 1], vertices[middle]
    along = (after - before) / max(float(np.hypot(*(after - before))), 1e-6)
    right = np.array((-along[1], along[0]))  # y downwards
    centre = (before + after) / 2
    tip = centre + right * 40 * scale
    start, end = (tuple(int(value) for value in point.round()) for point in (centre, tip))
    cv2.arrowedLine(image, start, end, LINE, max(2, round(3 * scale)), cv2.LINE_AA, tipLength=0.4)
    text = f"{name}: " + ", ".join(f"{direction} {n}" for direction, n in counts.items())
    write(image, text, (int(centre[0]), int(centre[1] - 18 * scale)), scale, LINE)  # above the head of the arrow


def write(image: Image, text: str, at: tuple[int, int], scale: float, color: Color) -> None:
    """Write one line of text on a dark background into an image, (H, W, 3) uint8 BGR, moved so that it stays inside.

    It is no smaller than can be read, unless it does not fit otherwise.
    """
    size, thickness, pad = max(0.55 * scale, READABLE), max(1, round(1.2 * scale)), max(2, round(4 * scale))
    (width, height), below = cv2.getTextSize(text, FONT, size, thickness)
    room = image.shape[1] - 2 * pad
    if width > room:
        size *= max(room / width, 0.5)
        (width, height), below = cv2.getTextSize(text, FONT, size, thickness)
    x = min(max(at[0], pad), max(image.shape[1] - width - pad, pad))
    y = min(max(at[1] - pad, height + pad), image.shape[0] - below - pad)
    cv2.rectangle(image, (x - pad, y - height - pad), (x + width + pad, y + below + pad), DARK, cv2.FILLED)
    cv2.rectangle(image, (x - pad, y - height - pad), (x - pad + max(2, pad // 2), y + below + pad), color, cv2.FILLED)
    cv2.putText(image, text, (x + pad // 2, y), FONT, size, TEXT, thickness, cv2.LINE_AA)
