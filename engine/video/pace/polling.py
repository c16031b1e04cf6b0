"""Polls cameras that return one frame per request. Imports no numpy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.video.explain import video_errors
from engine.video.frames import DecodedFrame, MissingFrames
from engine.video.pace.pacing import wait_until

logger = logging.getLogger(__name__)


class PolledVideo:
    """A video whose address is requested again for the next frame if the answer ended after one frame.

    An address that continues after the first frame is a stream and is read as one.

    Args:
        first: the video, already opened.
        open_again: opens the address again.
        poll_s: interval between requests.
        always: request again even after an answer with several frames.
        clock: time, for tests.
    """

    def __init__(
        self,
        first: Any,
        open_again: Callable[[], Any],
        poll_s: float,
        *,
        always: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._reader = first
        self._open_again = open_again
        self._poll_ns = round(poll_s * NS_PER_S)
        self._always = always
        self._clock = clock
        self._errors = video_errors()
        self.failure: Exception | None = None
        self.packets = 0
        self.indexed_packets: int | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of the first frame; endless, at the rate of the requests."""
        return {**self._reader.facts, "fps": NS_PER_S / self._poll_ns, "frame_count": None, "duration_s": None}

    def delivers(self) -> bool:
        """Return whether the decoder really delivers the first frame."""
        return bool(self._reader.delivers())

    def frames(self) -> Iterator[DecodedFrame | MissingFrames]:
        """Yield one frame per request until a request fails; `failure` says why."""
        asked_ns = self._clock.monotonic_ns()
        count = yield from self._one()
        if count == 1 and self.failure is None:
            logger.info("the address returns one frame per request: polling it every %g s", self._poll_ns / NS_PER_S)
        while count and (count == 1 or self._always) and self.failure is None:
            asked_ns = max(asked_ns + self._poll_ns, self._clock.monotonic_ns())
            yield from wait_until(asked_ns, self._clock)
            if not self._open():
                return
            count = yield from self._one()

    def _open(self) -> bool:
        self._reader.close()
        try:
            self._reader = self._open_again()
        except self._errors as error:
            self.failure = error.with_traceback(None)
            return False
        return True

    def _one(self) -> Any:
        """Yield the content of one answer, and return its number of frames, intact or damaged."""
        count = 0
        for item in self._reader.frames():
            is_frame = isinstance(item, DecodedFrame)
            count += 1 if is_frame else item.count
            yield DecodedFrame(item.frame, replace(item.stamp, pts_ns=None)) if is_frame else item
        self.packets += self._reader.packets
        self.failure = self._reader.failure
        return count

    def close(self) -> None:
        """Close the video; harmless when repeated."""
        self._reader.close()
