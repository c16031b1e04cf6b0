"""Converts BGR frames of FFmpeg to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.video.orientation import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE, UPRIGHT
from engine.video.to_bgr import BgrConverter


def image_from_frame(frame: Any, convert: BgrConverter) -> NDArray[np.uint8]:
    """Return an `av.VideoFrame` as a new (H, W, 3) BGR array, made upright by its display matrix."""
    return upright(image_from_packed(convert.packed(frame)), convert.orientation(frame))


def image_from_packed(frame: Any) -> NDArray[np.uint8]:
    """Return the (H, W, 3) array of a bgr24 `av.VideoFrame`, without a copy if its rows are not padded."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width * 3]
    return np.ascontiguousarray(rows).reshape(frame.height, frame.width, 3)


def upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return the image turned and mirrored according to an orientation (`engine.video.orientation`).

    >>> upright(np.zeros((4, 6, 3), np.uint8), TRANSPOSE).shape
    (6, 4, 3)
    """
    if orientation == UPRIGHT:
        return image
    turned = image.swapaxes(0, 1) if orientation & TRANSPOSE else image
    rows = slice(None, None, -1 if orientation & FLIP_ROWS else None)
    columns = slice(None, None, -1 if orientation & FLIP_COLUMNS else None)
    return np.ascontiguousarray(turned[rows, columns])
