"""The name of a camera and the time of its image."""

from __future__ import annotations

import datetime

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_S
from engine.data import Frame
from engine.imaging.scene import TEXT, write

REFERENCE_HEIGHT = 720


def draw_caption(image: NDArray[np.uint8], frame: Frame, zone: datetime.tzinfo | None = None) -> None:
    """Write the source's name, and the wall clock of a camera or the stream time of a file, into the top left corner.

    Args:
        image: (H, W, 3) uint8 BGR; drawn on.
        frame: the frame that it shows.
        zone: time zone of the clock; None: UTC.
    """
    scale = max(min(image.shape[:2]) / REFERENCE_HEIGHT, 0.5)
    write(image, f"{frame.source_id}  {clock_text(frame, zone)}", (0, 0), scale, TEXT)


def clock_text(frame: Frame, zone: datetime.tzinfo | None = None) -> str:
    """Return the time of a frame as readable text.

    >>> clock_text(Frame(np.zeros((1, 1, 3), np.uint8), pts_ns=65_400_000_000, captured_source="file"))
    '0:01:05.4'
    """
    if frame.captured_source == "file":
        tenths = round(frame.scene_ns / NS_PER_S * 10)
        minutes, tenths = divmod(tenths, 600)
        return f"{minutes // 60}:{minutes % 60:02d}:{tenths // 10:02d}.{tenths % 10}"
    moment = datetime.datetime.fromtimestamp(frame.captured_utc_ns / NS_PER_S, zone or datetime.timezone.utc)
    return moment.strftime("%Y-%m-%d %H:%M:%S")
