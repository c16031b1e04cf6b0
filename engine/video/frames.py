"""What a decoder hands out: frames with their times, and the gaps between them. Imports no numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.video.timing.arrivals import Stamp


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
