"""Where a frame lies in the model's frame, and the windows that are cut from it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.boxes import Boxes

Window = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the model's frame, right and bottom exclusive."""


class Placement(Protocol):
    """A frame scaled into the model's frame; `engine.detection.letterbox.Letterbox` is one."""

    @property
    def source_wh(self) -> tuple[int, int]:
        """Size of the frame."""

    @property
    def target_wh(self) -> tuple[int, int]:
        """Size of the model's frame."""

    @property
    def inner_wh(self) -> tuple[int, int]:
        """Size of the scaled frame in it."""

    @property
    def pad_xy(self) -> tuple[int, int]:
        """Top left corner of the scaled frame in it."""

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Pixels of the model's frame per pixel of the frame."""


def in_model(xyxy: Boxes, placement: Placement) -> Boxes:
    """Return (N, 4) boxes of a frame in pixels of the model's frame."""
    scaled: Boxes = xyxy * np.array(placement.scale_xy * 2, np.float32) + np.array(placement.pad_xy * 2, np.float32)
    return scaled


def is_inside(xyxy: Boxes, window: Window, frame_wh: tuple[int, int], by: float) -> NDArray[np.bool_]:
    """Return (N,) whether boxes lie in a window, `by` pixels inside each border that is not the frame's own."""
    left, top, right, bottom = window
    lower = [left + by if left > 0 else -np.inf, top + by if top > 0 else -np.inf]
    upper = [right - by if right < frame_wh[0] else np.inf, bottom - by if bottom < frame_wh[1] else np.inf]
    sides: NDArray[np.bool_] = (xyxy[:, :2] >= np.array(lower)) & (xyxy[:, 2:] <= np.array(upper))
    inside: NDArray[np.bool_] = np.logical_and.reduce(sides, axis=1)
    return inside
