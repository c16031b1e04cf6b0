"""Letterbox: scales an image into the model's frame, keeping its aspect, and maps coordinates back exactly.

The scale is `min(H / h, W / w)`, the size is converted to whole pixels, and the rest is filled with grey. Boxes are
mapped back by the scale actually applied, after that conversion; the scaled size can differ between the axes by less
than a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.boxes import Boxes, clip
from engine.errors import ConfigError

Anchor = Literal["center", "top_left", "stretch"]
PAD_VALUE = 114
"""Grey of the border in the Ultralytics and YOLOX training code."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where an image of one size lands in the model's frame.

    Attributes:
        source_wh: size of the image.
        target_wh: size of the model's frame.
        inner_wh: size of the scaled image in it.
        pad_xy: top left corner of the scaled image in it.
    """

    source_wh: tuple[int, int]
    target_wh: tuple[int, int]
    inner_wh: tuple[int, int]
    pad_xy: tuple[int, int]

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Pixels of the model's frame per pixel of the image."""
        return self.inner_wh[0] / self.source_wh[0], self.inner_wh[1] / self.source_wh[1]


@lru_cache(maxsize=64)
def fit(source_wh: tuple[int, int], target_wh: tuple[int, int], anchor: Anchor = "center") -> Letterbox:
    """Return the letterbox of an image in a frame.

    Args:
        source_wh: size of the image.
        target_wh: size of the model's frame.
        anchor: `center` (sizes are rounded, odd padding leaves the smaller half left and top, as Ultralytics does),
            `top_left` (sizes are cut as YOLOX does, even where floating point leaves 720 * (416 / 720) below 416), or
            `stretch` without padding (RT-DETR, NanoDet-Plus).

    Raises:
        ConfigError: the image has no area.

    >>> fit((768, 576), (640, 640))
    Letterbox(source_wh=(768, 576), target_wh=(640, 640), inner_wh=(640, 480), pad_xy=(0, 80))
    """
    width, height = source_wh
    if width < 1 or height < 1:
        raise ConfigError(f"image of {width} x {height} pixels: expected at least one")
    if anchor == "stretch":
        return Letterbox(source_wh, target_wh, target_wh, (0, 0))
    scale = min(target_wh[0] / width, target_wh[1] / height)
    whole = int if anchor == "top_left" else round
    inner = max(1, min(target_wh[0], whole(width * scale))), max(1, min(target_wh[1], whole(height * scale)))
    free = target_wh[0] - inner[0], target_wh[1] - inner[1]
    return Letterbox(source_wh, target_wh, inner, (free[0] // 2, free[1] // 2) if anchor == "center" else (0, 0))


def draw(image: NDArray[np.uint8], box: Letterbox, out: NDArray[np.uint8], *, pad: bool = True) -> None:
    """Scale `image` into its place in `out`, with bilinear interpolation.

    Args:
        image: (h, w, 3) uint8 of `box.source_wh`.
        box: where to place it.
        out: (H, W, 3) uint8 of `box.target_wh`, for example one row of a batch; written in place.
        pad: fill the border; not needed if `out` already has the border of the same letterbox.
    """
    (left, top), (width, height) = box.pad_xy, box.inner_wh
    if pad:
        out[:top] = PAD_VALUE
        out[top + height :] = PAD_VALUE
        out[top : top + height, :left] = PAD_VALUE
        out[top : top + height, left + width :] = PAD_VALUE
    inner = out[top : top + height, left : left + width]
    if box.inner_wh == box.source_wh:
        inner[:] = image
        return
    cv2.resize(image, box.inner_wh, dst=inner, interpolation=cv2.INTER_LINEAR)


def source_from_target(xyxy: Boxes, box: Letterbox) -> Boxes:
    """Return (N, 4) boxes of the model's frame as boxes of the image, cut at its borders."""
    return clip(_unmap(xyxy, box, 2), *box.source_wh)


def target_from_source(xyxy: Boxes, box: Letterbox) -> Boxes:
    """Return (N, 4) boxes of the image as boxes of the model's frame."""
    scale = np.asarray(box.scale_xy * 2, np.float32)
    moved: Boxes = xyxy * scale + np.asarray(box.pad_xy * 2, np.float32)
    return moved


def points_from_target(points: NDArray[Any], box: Letterbox) -> NDArray[np.float32]:
    """Return (..., 2) points of the model's frame as points of the image, cut at its borders."""
    limit = np.asarray(box.source_wh, np.float32)
    moved: NDArray[np.float32] = np.minimum(np.maximum(_unmap(points, box, 1), np.float32(0)), limit)
    return moved


def unclipped_from_target(points: NDArray[Any], box: Letterbox) -> NDArray[np.float32]:
    """Return (..., 2) points of the model's frame as points of the image, also beyond its borders."""
    return _unmap(points, box, 1)


def _unmap(values: NDArray[Any], box: Letterbox, repeat: int) -> NDArray[np.float32]:
    shift, factor = _way_back(box, repeat)
    moved: NDArray[np.float32] = (values - shift) * factor
    return moved


@lru_cache(maxsize=64)
def _way_back(box: Letterbox, repeat: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    factor = np.asarray([1.0 / scale for scale in box.scale_xy] * repeat, np.float32)
    return np.asarray(box.pad_xy * repeat, np.float32), factor


class Canvas:
    """A reused uint8 batch into which images are letterboxed directly; borders are filled when they change."""

    def __init__(self, batch: NDArray[np.uint8], anchor: Anchor) -> None:
        self.batch = batch
        self._anchor = anchor
        self._drawn: list[Letterbox | None] = [None] * len(batch)

    def place(self, row: int, image: NDArray[np.uint8]) -> Letterbox:
        """Letterbox `image`, (H, W, 3) uint8, into one row of the batch and return its placement."""
        height, width = self.batch.shape[1:3]
        box = fit((image.shape[1], image.shape[0]), (width, height), self._anchor)
        draw(image, box, self.batch[row], pad=self._drawn[row] != box)
        self._drawn[row] = box
        return box
