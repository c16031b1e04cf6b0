"""The base of every source: name, listener, frame counter and interruption."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.clock import SYSTEM_CLOCK, Clock
from engine.data import Frame, SourceInfo, SourceState, SourceStatus
from engine.lazy_image import LazyImage
from engine.protocols import SourceListener
from engine.video.timing.arrivals import Stamp

logger = logging.getLogger(__name__)


class SilentListener:
    """A listener that ignores everything."""

    def status(self, status: SourceStatus) -> None:
        """Ignore it."""

    def lost(self, count: int, cause: str) -> None:
        """Ignore it."""


class SourceBase:
    """Base of all sources: subclasses define `_frames`, which opens, yields and closes on the iterating thread.

    This class reports the states `connecting` (before) and `ended` (once, after). A second iteration starts over, while
    `frame_id` continues to count.
    """

    def __init__(self, info: SourceInfo, clock: Clock = SYSTEM_CLOCK) -> None:
        self._info = info
        self._clock = clock
        self._listener: SourceListener = SilentListener()
        self._interrupted = threading.Event()
        self._next_id = 0
        self._epoch = 0
        self._state: SourceState | None = None
        self._ending = "end of stream"

    @property
    def info(self) -> SourceInfo:
        """The properties known so far."""
        return self._info

    def attach(self, listener: SourceListener) -> None:
        """Report states and losses to `listener`; call before iterating."""
        self._listener = listener

    def interrupt(self) -> None:
        """End the iteration soon; callable from any thread, in any state, even before it begins."""
        self._interrupted.set()

    def __iter__(self) -> Iterator[Frame]:
        """Open, and yield frames in order; the source is closed when the iterator ends or is closed."""
        if self._interrupted.is_set():
            self._report("ended", "interrupted")
            return
        self._report("connecting")
        try:
            with closing(self._frames()) as frames:
                for frame in frames:
                    yield frame
                    if self._interrupted.is_set():
                        break
        except GeneratorExit:
            self._ending = "interrupted"
            raise
        except Exception as error:  # any error is the reason why the source ended
            self._ending = str(error)
            raise
        finally:
            self._report("ended", "interrupted" if self._interrupted.is_set() else self._ending)

    def _frames(self) -> Any:
        """Return a generator of frames."""
        raise NotImplementedError

    def _describe(self, **facts: Any) -> None:
        """Update the properties of the source."""
        self._info = replace(self._info, **facts)

    def frame_wh(self) -> tuple[int, int] | None:
        """Return columns and rows of the frames, None if they are not known before the source is read."""
        info = self._info
        return (info.width, info.height) if info.width and info.height else None

    def _report(self, state: SourceState, reason: str = "") -> None:
        """Report a change to the listener."""
        self._state = state
        logger.debug("%s is %s %s", self._info.source_id, state, reason)
        self._listener.status(SourceStatus(self._info, state, reason, self._epoch))

    def _lose(self, count: int, cause: str) -> None:
        """Count frames that arrived and cannot be delivered; they use up `frame_id`s."""
        if count > 0:
            self._next_id += count
            self._listener.lost(count, cause)

    def _frame(self, image: NDArray[np.uint8] | LazyImage, stamp: Stamp, *, is_turned: bool = False) -> Frame:
        """Return the next frame; the first one makes the source `live`."""
        aspect = self._info.pixel_aspect or 1.0
        frame = Frame(
            image=image,  # type: ignore[arg-type]  # converted when it is first read
            source_id=self._info.source_id,
            frame_id=self._next_id,
            captured_ns=stamp.captured_ns,
            captured_utc_ns=stamp.captured_utc_ns,
            pts_ns=stamp.pts_ns,
            captured_source=stamp.captured_source,
            captured_error_ns=stamp.captured_error_ns,
            stream_epoch=self._epoch,
            pixel_aspect=1.0 / aspect if is_turned else aspect,
        )
        self._next_id += 1
        if (frame.width, frame.height) != (self._info.width, self._info.height):
            self._describe(width=frame.width, height=frame.height)
            if self._state == "live":
                self._report("live", f"the frame size is now {frame.width}x{frame.height}")
        if self._state != "live":
            self._report("live")
        return frame
