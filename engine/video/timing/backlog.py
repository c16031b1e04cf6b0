"""Estimates how late frames are when they are read, and whether decoding keeps up: arrival alone does not show age.

Two things make a frame old before it is read: the network stalls and then delivers a burst, or the decoder is slower
than the camera, so that frames wait in kernel buffers. Both show when arrival is compared with stream time.
"""

from __future__ import annotations

_MS = 1_000_000
STALL_NS = 500 * _MS  # a wait that exceeds stream time by this much is a network stall, not the camera's rate
WAITED_NS = 2 * _MS  # a longer read found nothing waiting
LATE_NS = 300 * _MS
OBSERVE_NS = 500 * _MS
CATCH_UP_NS = 100 * _MS
MAX_STEP_NS = 60_000 * _MS
MEMORY_NS = 10_000 * _MS  # half-life of observations of the rate of stream time
REAL_TIME = (0.8, 1.25)  # seconds per second of stream time that count as one: jitter, drifting clocks


class StreamRate:
    """Learns how fast stream time runs, because many streams number their frames instead of timing them.

    FFmpeg stamps MJPEG over HTTP and raw H.264 with 40 ms per frame, and some cameras do so over RTSP, whatever the
    real rate. A frame that the reader had to wait for is fresh, so the time between two of them is the camera's own.

    >>> rate = StreamRate()
    >>> for second in range(3): rate.observe(second * 1_000_000_000, second * 40_000_000)
    >>> rate.real_ns(40_000_000)
    1000000000
    """

    def __init__(self) -> None:
        self._fresh: tuple[int, int] | None = None
        self._passed_ns = self._played_ns = 0

    @property
    def is_known(self) -> bool:
        """Whether two fresh frames have been seen."""
        return self._passed_ns > 0

    def observe(self, read_ns: int, pts_ns: int) -> None:
        """Learn from a fresh frame."""
        fresh, self._fresh = self._fresh, (read_ns, pts_ns)
        if fresh is None:
            return
        if self._passed_ns > MEMORY_NS:
            self._passed_ns, self._played_ns = self._passed_ns // 2, self._played_ns // 2
        self._passed_ns += read_ns - fresh[0]
        self._played_ns += pts_ns - fresh[1]

    def begin_at(self, read_ns: int, pts_ns: int) -> None:
        """Measure from this frame on, keeping what was learned."""
        self._fresh = (read_ns, pts_ns)

    def forget(self) -> None:
        """Start over: stream time has restarted, or the learned rate has proved wrong."""
        self._fresh, self._passed_ns, self._played_ns = None, 0, 0

    def real_ns(self, played_ns: int) -> int:
        """Return how long an interval of stream time lasts by the clock."""
        if self._played_ns <= 0 or REAL_TIME[0] * self._played_ns <= self._passed_ns <= REAL_TIME[1] * self._played_ns:
            return played_ns
        return played_ns * self._passed_ns // self._played_ns


class Backlog:
    """Measures how old frames already are when they are read.

    A frame that the reader had to wait for is fresh, unless the wait was a network stall, which stream time does not
    show. After that, frames already waiting get older when the reader is slower than stream time and younger when it is
    faster. Stream time counts at the observed rate (`StreamRate`). A stall is believed only as long as the frames held
    back by the last one arrived in a burst, which those of a merely slow camera do not. If stream time jumps or is
    missing, nothing is assumed.

    >>> backlog, ms = Backlog(), 1_000_000
    >>> read = [(0, 0, 0), (40, 40, 30), (2040, 80, 2000), (2045, 120, 0)]  # read at, stream time, waited
    >>> [backlog.late_ns(at * ms, pts * ms, waited * ms) // ms for at, pts, waited in read]
    [0, 0, 1960, 1925]
    """

    def __init__(self) -> None:
        self._previous: tuple[int, int] | None = None
        self._late_ns = 0
        self._rate = StreamRate()
        self._is_unproven = False
        self._believes = True

    def late_ns(self, read_ns: int, pts_ns: int | None, waited_ns: int) -> int:
        """Return how old a frame already was when it was read, after waiting `waited_ns` for it."""
        previous, self._previous = self._previous, None if pts_ns is None else (read_ns, pts_ns)
        if previous is None or pts_ns is None or not 0 < pts_ns - previous[1] < MAX_STEP_NS:
            self._begin(read_ns, pts_ns)
            return 0
        self._late_ns = self._lateness(previous, read_ns, pts_ns, waited_ns)
        return self._late_ns

    def _begin(self, read_ns: int, pts_ns: int | None) -> None:
        self._late_ns = 0
        self._is_unproven = False
        self._rate.forget()
        if pts_ns is not None:
            self._rate.begin_at(read_ns, pts_ns)

    def _lateness(self, previous: tuple[int, int], read_ns: int, pts_ns: int, waited_ns: int) -> int:
        stream_ns = pts_ns - previous[1]
        passed_ns, played_ns = read_ns - previous[0], self._rate.real_ns(stream_ns)
        has_waited = waited_ns > max(WAITED_NS, min(played_ns, stream_ns) // 2)
        is_standstill = has_waited and waited_ns - played_ns >= STALL_NS
        if self._is_unproven:
            self._judge(came_at_once=not has_waited)
        if is_standstill and self._rate.is_known:
            self._is_unproven = True
        if has_waited and not (is_standstill and self._rate.is_known and self._believes):
            self._rate.observe(read_ns, pts_ns)
            return 0
        return max(self._late_ns + passed_ns - played_ns, 0)

    def _judge(self, *, came_at_once: bool) -> None:
        """Learn from the frame after a stall: if the network held it back, it is already waiting."""
        self._is_unproven = False
        self._believes = came_at_once
        if not came_at_once:
            self._rate.forget()


class Overload:
    """Detects that decoding does not keep up: frames are late, and half a second later they still are.

    >>> overload, ms = Overload(), 1_000_000
    >>> [overload.is_behind(now * ms, late * ms) for now, late in [(0, 400), (300, 420), (600, 450)]]
    [False, False, True]
    """

    def __init__(self) -> None:
        self._mark: tuple[int, int] | None = None

    def is_behind(self, now_ns: int, late_ns: int) -> bool:
        """Return whether to discard what is waiting and continue at a keyframe."""
        if late_ns < LATE_NS or self._mark is None:
            self._mark = (now_ns, late_ns) if late_ns >= LATE_NS else None
            return False
        since_ns, late_before_ns = self._mark
        if now_ns - since_ns < OBSERVE_NS:
            return False
        self._mark = None
        return late_ns > late_before_ns - CATCH_UP_NS
