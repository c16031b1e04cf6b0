"""Plays a recorded source like a camera: at its own rate, and in a loop if requested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Frame, SourceStatus
from engine.protocols import Source
from engine.sources.base import SourceBase

DEFAULT_FPS = 25.0
MAX_JUMP_S = 10.0
MAX_LATE_S = 1.0


class Timeline:
    """Stream time that continues when that of the frames restarts or jumps; it starts at that of the first frame."""

    def __init__(self) -> None:
        self.first_ns: int | None = None
        self._at_ns = 0
        self._pts_ns: int | None = None

    def begin_anew(self) -> None:
        """Place the next frame right after the last one, whatever its time."""
        self._pts_ns = None

    def place(self, pts_ns: int, step_ns: int) -> int:
        """Return the time of the next frame; `step_ns` is the usual interval."""
        if self.first_ns is None:
            self.first_ns = self._at_ns = self._pts_ns = pts_ns
        passed_ns = step_ns if self._pts_ns is None else pts_ns - self._pts_ns
        if -2 * step_ns <= passed_ns < 0:  # out of order, not a restart
            return self._at_ns
        is_jump = not 0 <= passed_ns <= max(MAX_JUMP_S * NS_PER_S, 4 * step_ns)
        self._at_ns += step_ns if is_jump else passed_ns
        self._pts_ns = pts_ns
        return self._at_ns


class PacedSource(SourceBase):
    """Plays a recorded source at its own rate and, like any live source, does not wait for its reader.

    Frames that are late when the reader returns are skipped and reported as lost with cause `stale`, like those of a
    camera. If it falls behind by `MAX_LATE_S`, because the recording cannot be read at its rate, it continues more
    slowly from the next frame. Stream time continues across repetitions, and across restarts and jumps within the
    recording.

    Args:
        make: returns a new recorded source for each repetition.
        realtime: False to repeat it without pacing.
        loop: restart at the end, endlessly.
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
        self._started_ns = 0

    def status(self, status: SourceStatus) -> None:
        """Adopt the properties of the recorded source and the reason why it ended."""
        self._info = replace(status.info, is_live=self._realtime)
        if status.state == "ended":
            self._ending = status.reason

    def lost(self, count: int, cause: str) -> None:
        """Pass on what the recorded source lost."""
        self._lose(count, cause)

    def frame_wh(self) -> tuple[int, int] | None:
        """Return columns and rows of the frames of the recorded source, None if not known before it is read."""
        return self._inner.frame_wh() if isinstance(self._inner, SourceBase) else super().frame_wh()

    def interrupt(self) -> None:
        """End the iteration soon, from any thread."""
        super().interrupt()
        self._inner.interrupt()

    def _frames(self) -> Iterator[Frame]:
        timeline, self._started_ns = Timeline(), self._clock.monotonic_ns()
        while not self._interrupted.is_set():
            self._inner.attach(self)
            for number, frame in enumerate(self._inner):
                pts_ns = timeline.place(self._pts_ns(frame, number), self._interval_ns())
                if self._is_due(pts_ns - (timeline.first_ns or 0)):
                    yield self._at(frame, pts_ns)
            if not self._loop or timeline.first_ns is None:
                return
            timeline.begin_anew()
            self._inner = self._make()

    def _interval_ns(self) -> int:
        return round(NS_PER_S / (self.info.fps or DEFAULT_FPS))

    def _pts_ns(self, frame: Frame, number: int) -> int:
        return number * self._interval_ns() if frame.pts_ns is None else frame.pts_ns

    def _is_due(self, played_ns: int) -> bool:
        """Wait until a frame is due, relative to the start; return False if it is so late that the next one is due."""
        if not self._realtime:
            return not self._interrupted.is_set()
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._started_ns - played_ns > MAX_LATE_S * NS_PER_S:
            self._started_ns = now_ns - played_ns
        due_ns = self._started_ns + played_ns
        if now_ns - due_ns > self._interval_ns() and self._next_id > 0:
            self._lose(1, "stale")
            return False
        return not self._clock.wait(self._interrupted, (due_ns - now_ns) / NS_PER_S)

    def _at(self, frame: Frame, pts_ns: int) -> Frame:
        frame = frame.restamped(
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
