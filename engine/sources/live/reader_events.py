"""The events that a reader of a live source returns, in order. Readers run FFmpeg in a process or on this thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.lazy_image import LazyImage
from engine.video.frames import MissingFrames
from engine.video.timing.arrivals import Stamp


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection is established; `facts` are those of `VideoReader.facts`."""

    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ArrivedFrame:
    """A frame; `is_turned` if making it upright swapped its rows and columns."""

    image: NDArray[np.uint8] | LazyImage
    stamp: Stamp
    is_turned: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """The connection is over.

    Attributes:
        reason: why.
        is_end: the video is complete, so there is nothing to reconnect to.
        is_fault: a bug or a missing package, which another attempt cannot fix.
    """

    reason: str
    is_end: bool = False
    is_fault: bool = False


Event = Opened | ArrivedFrame | MissingFrames | Finished


class FrameReader(Protocol):
    """Reads one address, connection after connection. All but `wake` are called on the iterating thread."""

    def open(self) -> None:
        """Begin to connect."""

    def next(self, timeout_s: float) -> Event | None:
        """Return the next event; None after the timeout or `wake`."""

    def wake(self) -> None:
        """Make `next` return soon; callable from any thread."""

    def abandon(self) -> None:
        """Give up this connection, whatever it is doing."""

    def close(self) -> None:
        """End everything; harmless when repeated."""
