"""What a decoder hands out: frames with their times and their planes, and the gaps between them. Imports no numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.lazy_image import Chroma
from engine.video.timing.arrivals import Stamp

PLANAR_FORMATS = frozenset(("yuv420p", "yuvj420p", "nv12"))
MATRICES = {1: True, 2: False, 5: False, 6: False}
"""Whether a colour space of FFmpeg is BT.709; where none is stated, FFmpeg takes BT.601, and so do we."""
FULL_RANGE = 2


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """A decoded `av.VideoFrame` and its times."""

    frame: Any
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class MissingFrames:
    """Frames that were not decoded or were damaged (`corrupt`), or were skipped to keep up (`stale`)."""

    count: int
    cause: str


def chroma_of(frame: Any) -> Chroma | None:
    """Return how an `av.VideoFrame` stores its colours; None if it has no such planes, or an unusual matrix."""
    name = frame.format.name
    if name not in PLANAR_FORMATS or frame.colorspace not in MATRICES:
        return None
    is_full_range = name == "yuvj420p" or frame.color_range == FULL_RANGE
    return Chroma(name == "nv12", MATRICES[frame.colorspace], is_full_range)


def stride_of_all(frame: Any) -> int | None:
    """Return the bytes of a row of luma if the planes, one after the other, are a frame of that stride; else None.

    The rows of U and of V then take half of it, or pairs of both (NV12) all of it. PyAV takes such memory as a frame if
    its height is a multiple of 4.
    """
    luma, *colours = frame.planes
    stride = int(luma.line_size)
    rest = stride if len(colours) == 1 else stride // 2
    is_whole = has_whole_rows(frame.width, frame.height, stride)
    return stride if is_whole and all(plane.line_size == rest for plane in colours) else None


def has_whole_rows(width: int, height: int, stride: int) -> bool:
    """Return whether planes of this size can lie one after the other in rows of `stride` bytes."""
    return width <= stride and not (width % 2 or height % 4 or stride % 2)


def mark(frame: Any, chroma: Chroma) -> None:
    """Write the matrix and the range on a new `av.VideoFrame`."""
    frame.colorspace = 1 if chroma.is_bt709 else 5
    frame.color_range = FULL_RANGE if chroma.is_full_range else 1
