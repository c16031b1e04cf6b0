"""Streams that come in segments (HLS, DASH), released at their own rate. Imports no numpy.

A segment's frames arrive all at once, and none follow until the next segment. A consumer of the newest frame would see
one in ten. So each frame waits until its stream time; segments cause this delay in any case.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.video.frames import DecodedFrame, MissingFrames

STARVED_NS = NS_PER_S // 20  # a longer read waited for the network: nothing was left to play
MARGIN_NS = NS_PER_S  # a segment that arrives earlier than this before it is needed leaves room to catch up
FULL_NS = 12 * NS_PER_S  # stream time read without a wait: more than one segment is ready
BEHIND_NS = 2 * NS_PER_S  # further behind than this, lost time is not made up
MAX_STEP_NS = 10 * NS_PER_S
FAST = 1.2  # catching up: faster than the camera by this factor
SLICE_S = 0.2

NOTHING = MissingFrames(0, "stale")
"""A sign of life while a reader waits: no frame was lost."""


class Pace:
    """Decides when each frame is due.

    Frames are spaced by their stream times. A segment that arrives too late delays all later frames; while segments
    arrive early or are ready, frames are released a little faster.

    Args:
        catches_up: whether the stream is live; a recording is played at its own rate throughout.

    >>> pace, ms = Pace(), 1_000_000
    >>> [pace.due_ns(pts * ms, 5000 * ms, 0) // ms for pts in (0, 100, 200)]
    [5000, 5100, 5200]
    """

    def __init__(self, *, catches_up: bool = True) -> None:
        self._catches_up = catches_up
        self._due_ns: int | None = None
        self._pts_ns: int | None = None
        self._unwaited_ns = 0
        self._is_early = False

    def due_ns(self, pts_ns: int | None, now_ns: int, waited_ns: int) -> int:
        """Return when to release a frame.

        Args:
            pts_ns: its stream time.
            now_ns: the clock, after it was read.
            waited_ns: how long it took to be read.
        """
        step_ns = self._step_ns(pts_ns)
        if self._due_ns is None or step_ns is None:
            self._due_ns = now_ns
            return now_ns
        due_ns = self._due_ns + round(step_ns / self._rate())
        self._note(step_ns, due_ns - now_ns, waited_ns)
        if now_ns > due_ns and (waited_ns > STARVED_NS or now_ns - due_ns > BEHIND_NS):
            due_ns = now_ns
        self._due_ns = due_ns
        return due_ns

    def _step_ns(self, pts_ns: int | None) -> int | None:
        """Return the stream time since the previous frame, None if it is unknown or jumps."""
        before_ns, self._pts_ns = self._pts_ns, pts_ns
        if before_ns is None or pts_ns is None or not 0 <= pts_ns - before_ns <= MAX_STEP_NS:
            return None
        return pts_ns - before_ns

    def _rate(self) -> float:
        return FAST if self._catches_up and (self._is_early or self._unwaited_ns > FULL_NS) else 1.0

    def _note(self, step_ns: int, early_ns: int, waited_ns: int) -> None:
        """Learn from the first frame of a segment how early it arrived."""
        if waited_ns > STARVED_NS:
            self._unwaited_ns, self._is_early = 0, early_ns > MARGIN_NS
        else:
            self._unwaited_ns += step_ns


def paced(
    items: Iterator[DecodedFrame | MissingFrames], pace: Pace, clock: Clock = SYSTEM_CLOCK
) -> Iterator[DecodedFrame | MissingFrames]:
    """Yield frames when they are due, stamped with that moment, and `NOTHING` at intervals in between."""
    asked_ns = clock.monotonic_ns()
    for item in items:
        if isinstance(item, MissingFrames):
            yield item
            continue
        now_ns = clock.monotonic_ns()
        yield from wait_until(pace.due_ns(item.stamp.pts_ns, now_ns, now_ns - asked_ns), clock)
        stamp = replace(
            item.stamp, captured_ns=clock.monotonic_ns(), captured_utc_ns=clock.utc_ns(), captured_source="segment"
        )
        yield DecodedFrame(item.frame, stamp)
        asked_ns = clock.monotonic_ns()


def wait_until(due_ns: int, clock: Clock) -> Iterator[MissingFrames]:
    """Wait, yielding `NOTHING` at intervals so that the caller can stop."""
    never = threading.Event()
    while (left_s := (due_ns - clock.monotonic_ns()) / NS_PER_S) > 0:
        clock.wait(never, min(left_s, SLICE_S))
        if left_s > SLICE_S:
            yield NOTHING
