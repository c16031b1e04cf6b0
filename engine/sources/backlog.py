"""Which frames come late, in a burst, after the network held them back: their arrival says too little of their age."""

from __future__ import annotations

MIN_GAP_NS = 500_000_000
_NS_PER_S = 1_000_000_000


class Backlog:
    """Tells the age of frames at arrival, where a gap in arrival is followed by a burst.

    A camera goes on while the network stands still; then the held-back frames arrive at once. Each is as old as the
    gap that its stream time does not show, less what the burst has caught up. When frames come at their usual rate
    again, the stream time has a jump of its own, or the burst is over: then nothing is assumed.

    >>> backlog = Backlog()
    >>> ms = 1_000_000
    >>> [backlog.late_ns(arrival * ms, pts * ms) // ms for arrival, pts in [(0, 0), (40, 40), (2040, 80), (2045, 120)]]
    [0, 0, 1960, 1925]
    """

    def __init__(self) -> None:
        self._previous: tuple[int, int] | None = None
        self._late_ns = 0

    def late_ns(self, arrival_ns: int, pts_ns: int | None) -> int:
        """Return how old a frame already was when it arrived."""
        if pts_ns is None:
            return 0
        previous, self._previous = self._previous, (arrival_ns, pts_ns)
        if previous is None:
            return 0
        waited_ns, played_ns = arrival_ns - previous[0], pts_ns - previous[1]
        if not 0 < played_ns < 60 * _NS_PER_S:
            self._late_ns = 0
        elif waited_ns - played_ns >= MIN_GAP_NS:
            self._late_ns += waited_ns - played_ns
        elif waited_ns > played_ns // 2:
            self._late_ns = 0
        else:
            self._late_ns = max(self._late_ns + waited_ns - played_ns, 0)
        return self._late_ns
