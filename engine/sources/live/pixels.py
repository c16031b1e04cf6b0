"""Converts FFmpeg frames to arrays, at once or on demand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.lazy_image import Chroma, LazyImage, YuvPlanes
from engine.video.frames import chroma_of, mark
from engine.video.orientation import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE, UPRIGHT
from engine.video.to_bgr import BgrConverter

LUMA_FORMATS = frozenset(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "nv21", "gray"))
"""Pixel formats whose first plane is the brightness in bytes."""


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
        chroma = None if frame is None else chroma_of(frame)
        if chroma is None:
            return None
        luma, *colours = frame.planes
        height, width = (frame.height + 1) // 2, (frame.width + 1) // 2
        arrays = [_rows_of(colour, height, 2 * width if chroma.is_interleaved else width) for colour in colours]
        if chroma.is_interleaved:
            arrays = [arrays[0].reshape(height, width, 2)]
        return YuvPlanes(_rows_of(luma, frame.height, frame.width), tuple(arrays), chroma)


class PackedPlanes(LazyImage):
    """The planes of a frame one after the other in one array, kept until its image is needed.

    Args:
        rows: (3 / 2 H, stride) uint8: luma, then U and V with two of their rows in each, or rows of pairs (NV12). The
            array may be changed once it and all views of it are gone.
        width: pixels per row.
        chroma: how the colours are stored.
        convert: the converter of its stream.
    """

    __slots__ = ("_chroma", "_convert", "_image", "_rows", "height", "width")

    def __init__(self, rows: NDArray[np.uint8], width: int, chroma: Chroma, convert: BgrConverter) -> None:
        rows.flags.writeable = False
        self.width, self.height = width, len(rows) * 2 // 3
        self._rows: NDArray[np.uint8] | None = rows
        self._chroma, self._convert = chroma, convert
        self._image: NDArray[np.uint8] | None = None

    def image(self) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 BGR image, read-only; the planes are released once it is made."""
        with self._convert.lock:
            if self._image is None:
                self._image = image_from_packed(self._convert.packed(self._frame(self._rows)))
                self._image.flags.writeable = False
                self._rows = None
            return self._image

    def _frame(self, rows: Any) -> Any:
        """Return an `av.VideoFrame` on the same memory."""
        from av import VideoFrame

        name = "nv12" if self._chroma.is_interleaved else "yuv420p"
        frame = VideoFrame.from_numpy_buffer(rows, format=name, width=self.width)
        mark(frame, self._chroma)
        return frame

    def luma(self) -> NDArray[np.uint8] | None:
        """Return a read-only view of the first plane, (H, W) uint8, or None once the image is made."""
        rows = self._rows
        return None if rows is None else rows[: self.height, : self.width]

    def planes(self) -> YuvPlanes | None:
        """Return read-only views of all planes, or None once the image is made."""
        rows = self._rows
        if rows is None:
            return None
        luma, rest = rows[: self.height, : self.width], rows[self.height :].reshape(-1)
        height, width, stride = self.height // 2, self.width // 2, rows.shape[1]
        if self._chroma.is_interleaved:
            pairs = rest.reshape(height, stride)[:, : self.width].reshape(height, width, 2)
            return YuvPlanes(luma, (pairs,), self._chroma)
        colours = rest.reshape(2, height, stride // 2)[:, :, :width]
        return YuvPlanes(luma, (colours[0], colours[1]), self._chroma)


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
