"""From BGR pictures of FFmpeg to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.video.to_bgr import BgrConverter


def image_from_frame(frame: Any, convert: BgrConverter) -> NDArray[np.uint8]:
    """Return an `av.VideoFrame` as a (H, W, 3) BGR array of its own, turned as its display matrix asks."""
    return upright(image_from_packed(convert.packed(frame)), frame.rotation)


def image_from_packed(frame: Any) -> NDArray[np.uint8]:
    """Return the (H, W, 3) array of a bgr24 `av.VideoFrame`, without a copy where its rows are not padded."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width * 3]
    return np.ascontiguousarray(rows).reshape(frame.height, frame.width, 3)


def upright(image: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    """Return the image turned by `rotation` degrees counterclockwise, as the display matrix of its video asks.

    >>> upright(np.zeros((4, 6, 3), np.uint8), -90).shape
    (6, 4, 3)
    """
    turns = round(rotation / 90) % 4
    return image if turns == 0 else np.ascontiguousarray(np.rot90(image, turns))
