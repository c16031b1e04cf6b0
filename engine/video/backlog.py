"""How late frames are when they are read, and whether decoding can keep up: arrival alone says too little of their age.

Two things make a frame old before it is read. The network stands still and then delivers in a burst; or the decoder is
slower than the camera, so that frames wait in the buffers of the kernel. Both show in the stream's own time.
"""

from __future__ import annotations

_MS = 1_000_000
STALL_NS = 500 * _MS  # a wait that exceeds stream time by this much is the network's, not the camera's rate
WAITED_NS = 2 * _MS  # a read that took longer found nothing waiting
LATE_NS = 300 * _MS
OBSERVE_NS = 500 * _MS
CATCH_UP_NS = 100 * _MS
MAX_STEP_NS = 60_000 * _MS


class Backlog:
    """Tells the age of frames at the moment they are read.

    A frame that had to be waited for is fresh, unless the wait was a standstill of the network that its stream time
    does not show. From then on, frames that are there already grow older by what the reader takes longer than their
    stream time, and younger by what it is faster. Where stream time jumps or is missing, nothing is assumed.

    >>> backlog, ms = Backlog(), 1_000_000
    >>> read = [(0, 0, 0), (40, 40, 30), (2040, 80, 2000), (2045, 120, 0)]  # read at, stream time, waited
    >>> [backlog.late_ns(at * ms, pts * ms, waited * ms) // ms for at, pts, waited in read]
    [0, 0, 1960, 1925]
    """

    def __init__(self) -> None:
        self._previous: tuple[int, int] | None = None
        self._late_ns = 0

    def late_ns(self, read_ns: int, pts_ns: int | None, waited_ns: int) -> int:
        """Return how old a frame already was when it was read, after waiting `waited_ns` for it."""
        previous, self._previous = self._previous, None if pts_ns is None else (read_ns, pts_ns)
        if previous is None or pts_ns is None:
            self._late_ns = 0
            return 0
        passed_ns, played_ns = read_ns - previous[0], pts_ns - previous[1]
        has_waited = waited_ns > max(WAITED_NS, played_ns // 2)
        if not 0 < played_ns < MAX_STEP_NS or (has_waited and waited_ns - played_ns < STALL_NS):
            self._late_ns = 0
        else:
            self._late_ns = max(self._late_ns + passed_ns - played_ns, 0)
        return self._late_ns


class Overload:
    """Tells that decoding does not keep up: frames are late, and half a second later they still are.

    >>> overload, ms = Overload(), 1_000_000
    >>> [overload.is_behind(now * ms, late * ms) for now, late in [(0, 400), (300, 420), (600, 450)]]
    [False, False, True]
    """

    def __init__(self) -> None:
        self._mark: tuple[int, int] | None = None

    def is_behind(self, now_ns: int, late_ns: int) -> bool:
        """Return whether to give up on what waits, and to go on at a keyframe."""
        if late_ns < LATE_NS or self._mark is None:
            self._mark = (now_ns, late_ns) if late_ns >= LATE_NS else None
            return False
        since_ns, late_before_ns = self._mark
        if now_ns - since_ns < OBSERVE_NS:
            return False
        self._mark = None
        return late_ns > late_before_ns - CATCH_UP_NS
