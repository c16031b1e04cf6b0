"""A recorded source that is played as if it were a camera: at its own rate, on demand again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Frame, SourceStatus
from engine.protocols import Source
from engine.sources.base import SourceBase

DEFAULT_FPS = 25.0


class PacedSource(SourceBase):
    """Plays a recorded source at its rate; live in all respects: it does not wait for its reader.

    Frames that are late when the reader comes back are skipped and reported as lost with cause `stale`, as those of a
    camera are. Stream time goes on over the repetitions.

    Args:
        make: returns the recorded source, anew for each repetition.
        realtime: False to only repeat it.
        loop: begin again at the end, for ever.
        clock: time, for tests.
    """

    def __init__(
        self, make: Callable[[], Source], *, realtime: bool = True, loop: bool = False, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._make = make
        self._inner = make()
        super().__init__(replace(self._inner.info, is_live=realtime), clock)
        self._realtime = realtime
        self._loop = loop

    def status(self, status: SourceStatus) -> None:
        """Take the facts of the recorded source, and why it ended."""
        self._info = replace(status.info, is_live=self._realtime)
        if status.state == "ended":
            self._ending = status.reason

    def lost(self, count: int, cause: str) -> None:
        """Pass on what the recorded source lost."""
        self._lose(count, cause)

    def interrupt(self) -> None:
        """End the iteration soon, from any thread."""
        super().interrupt()
        self._inner.interrupt()

    def _frames(self) -> Iterator[Frame]:
        offset_ns, started_ns = 0, self._clock.monotonic_ns()
        while not self._interrupted.is_set():
            self._inner.attach(self)
            last_ns = -1
            for number, frame in enumerate(self._inner):
                pts_ns = self._pts_ns(frame, number)
                last_ns = max(last_ns, pts_ns)
                if self._is_due(frame, started_ns + offset_ns + pts_ns):
                    yield self._at(frame, offset_ns + pts_ns)
            if not self._loop or last_ns < 0:
                return
            offset_ns += last_ns + self._interval_ns()
            self._inner = self._make()

    def _interval_ns(self) -> int:
        return round(NS_PER_S / (self.info.fps or DEFAULT_FPS))

    def _pts_ns(self, frame: Frame, number: int) -> int:
        return number * self._interval_ns() if frame.pts_ns is None else frame.pts_ns

    def _is_due(self, frame: Frame, due_ns: int) -> bool:
        """Wait for the frame's moment; False if it is so late that the next one is due already."""
        if not self._realtime:
            return not self._interrupted.is_set()
        now_ns = self._clock.monotonic_ns()
        if now_ns - due_ns > self._interval_ns() and self._next_id > 0:
            self._lose(1, "stale")
            return False
        return not self._clock.wait(self._interrupted, (due_ns - now_ns) / NS_PER_S)

    def _at(self, frame: Frame, pts_ns: int) -> Frame:
        frame = replace(
            frame,
            frame_id=self._next_id,
            captured_ns=self._clock.monotonic_ns() if self._realtime else frame.captured_ns,
            captured_utc_ns=self._clock.utc_ns() if self._realtime else frame.captured_utc_ns,
            captured_source="arrival" if self._realtime else frame.captured_source,
            pts_ns=pts_ns,
        )
        self._next_id += 1
        if self._state != "live":
            self._report("live")
        return frame
