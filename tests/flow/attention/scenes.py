"""Synthetic scenes for windows: bright squares on noise, and a detector that sees what a window shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.boxes import Boxes
from engine.data import Detections, Frame
from engine.detection.letterbox import Letterbox, fit
from engine.flow.attention.cover import Grid
from engine.flow.attention.geometry import Placement, Window
from engine.flow.attention.known import Found
from engine.protocols import DetectorBase

WIDTH, HEIGHT, FPS = 640, 384, 10
SIZES_WH = ((192, 192), (320, 192), (192, 320), (256, 256), (320, 320), (384, 256), (448, 384), (640, 256))
PLACEMENT: Letterbox = fit((WIDTH, HEIGHT), (WIDTH, HEIGHT))
GRID = Grid.of((WIDTH, HEIGHT), 32, SIZES_WH)
NOTHING: Boxes = np.zeros((0, 4), np.float32)
BRIGHT = 200
_NOISE = np.random.default_rng(1).integers(0, 3, (4, HEIGHT, WIDTH, 1)).astype(np.uint8)


def picture(boxes: Sequence[Sequence[float]], number: int = 0, light: float = 1.0) -> NDArray[np.uint8]:
    """Return a (H, W, 3) image of bright boxes on a dark, slightly noisy background."""
    image = np.repeat(60 + _NOISE[number % len(_NOISE)], 3, axis=2)
    for x1, y1, x2, y2 in boxes:
        image[max(int(y1), 0) : max(int(y2), 0), max(int(x1), 0) : max(int(x2), 0)] = BRIGHT
    return image if light == 1 else np.clip(image * light, 0, 255).astype(np.uint8)


def seen(image: NDArray[np.uint8], window: Window | None) -> Boxes:
    """Return the (N, 4) bright boxes that a window of an image shows, cut at its borders."""
    left, top, right, bottom = window or (0, 0, WIDTH, HEIGHT)
    bright = (image[top:bottom, left:right, 0] > BRIGHT // 2 + 20).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    rows = [(x + left, y + top, x + w + left, y + h + top) for x, y, w, h, n in stats[1:].tolist() if n >= 16]
    return np.array(rows, np.float32).reshape(-1, 4)


def found(image: NDArray[np.uint8], window: Window | None, weak: Boxes = NOTHING) -> Found:
    """Return what the detector finds in a window."""
    boxes = seen(image, window)
    return Found(window, Detections(boxes, np.full(len(boxes), 0.9), np.zeros(len(boxes))), weak)


@dataclass
class SeenParts:
    """The looks at one frame."""

    parts: list[Found]
    stage_ms: dict[str, float] = field(default_factory=dict)

    def result(self) -> list[Found]:
        return self.parts


class SeeingDetector(DetectorBase):
    """Finds bright boxes, on whole frames and in windows, and records where it looked."""

    name = "seeing"
    class_names = ("person",)
    depth = 3

    def __init__(self) -> None:
        self.looks: list[tuple[int, Sequence[Window] | None]] = []

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        self.looks += [(frame.frame_id, None) for frame in frames]
        return [found(frame.image, None).detections for frame in frames]

    def window_grid(self, frame: Frame, *, wait: bool) -> tuple[Placement, Grid] | None:
        return PLACEMENT, GRID

    def submit_windows(self, frame: Frame, windows: Sequence[Window] | None) -> SeenParts:
        self.looks.append((frame.frame_id, windows))
        return SeenParts([found(frame.image, window) for window in windows or [None]])
