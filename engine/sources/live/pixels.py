"""Converts FFmpeg frames to arrays, at once or on demand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.lazy_image import Chroma, LazyImage, YuvPlanes
from engine.video.orientation import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE, UPRIGHT
from engine.video.to_bgr import BgrConverter

LUMA_FORMATS = frozenset(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "nv21", "gray"))
"""Pixel formats whose first plane is the brightness in bytes."""


PLANAR_FORMATS = frozenset(("yuv420p", "yuvj420p", "nv12"))
"""Pixel formats whose planes a GPU can letterbox."""
MATRICES = {1: True, 2: False, 5: False, 6: False}
"""Whether a colour space of FFmpeg is BT.709; where none is stated, FFmpeg takes BT.601, and so do we."""
FULL_RANGE = 2


class DecodedImage(LazyImage):
    """A decoded `av.VideoFrame`, kept until its image is needed.

    Args:
        frame: of any format, upright.
        convert: the converter of its stream.
    """

    __slots__ = ("_convert", "_frame", "_image", "height", "width")

    def __init__(self, frame: Any, convert: BgrConverter) -> None:
        self.width, self.height = frame.width, frame.height
        self._frame, self._convert = frame, convert
        self._image: NDArray[np.uint8] | None = None

    def image(self) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 BGR image, read-only; the decoded frame is released once it is made."""
        with self._convert.lock:  # one scaler for all frames of the stream, and one image for all threads
            if self._image is None:
                self._image = image_from_packed(self._convert.packed(self._frame))
                self._image.flags.writeable = False
                self._frame = None
            return self._image

    def luma(self) -> NDArray[np.uint8] | None:
        """Return a read-only view of the first plane, (H, W) uint8, or None."""
        frame = self._frame
        if frame is None or frame.format.name not in LUMA_FORMATS:
            return None
        return _rows_of(frame.planes[0], frame.height, frame.width)

    def planes(self) -> YuvPlanes | None:
        """Return read-only views of all planes, or None."""
        frame = self._frame
        if frame is None or frame.format.name not in PLANAR_FORMATS or frame.colorspace not in MATRICES:
            return None
        luma, *colours = frame.planes
        is_interleaved = len(colours) == 1
        height, width = (frame.height + 1) // 2, (frame.width + 1) // 2
        arrays = [_rows_of(colour, height, 2 * width if is_interleaved else width) for colour in colours]
        if is_interleaved:
            arrays = [arrays[0].reshape(height, width, 2)]
        is_full_range = frame.color_range == FULL_RANGE or frame.format.name == "yuvj420p"
        chroma = Chroma(is_interleaved, MATRICES[frame.colorspace], is_full_range)
        return YuvPlanes(_rows_of(luma, frame.height, frame.width), tuple(arrays), chroma)


def _rows_of(plane: Any, height: int, width: int) -> NDArray[np.uint8]:
    """Return a read-only (height, width) view of a plane without its padding."""
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, :width]
    rows.flags.writeable = False
    return rows


def lazy_image_from_frame(frame: Any, convert: BgrConverter) -> NDArray[np.uint8] | DecodedImage:
    """Return an `av.VideoFrame` unconverted if it is upright, else as a new (H, W, 3) BGR array made upright."""
    return DecodedImage(frame, convert) if not convert.orientation(frame) else image_from_frame(frame, convert)


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
