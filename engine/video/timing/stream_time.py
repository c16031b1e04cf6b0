"""Stream time of a recorded video: always present and always increasing. Imports no numpy.

Results for a file must not depend on the machine, so every frame needs its own time. Raw H.264 and HEVC carry none,
time restarts in the middle of joined recordings, and B-frames in AVI are stamped in coding order.
"""

from __future__ import annotations

from engine.clock import NS_PER_S

DEFAULT_FPS = 25.0
RESTART_NS = NS_PER_S  # a larger step back is a restart, a smaller one is disorder


class StreamTime:
    """Continues stream time frame by frame if a file has none or jumps back.

    Args:
        fps: declared rate of the file, None if it declares none.

    >>> time, ms = StreamTime(fps=10), 1_000_000
    >>> [time.of(None) // ms for _ in range(3)]
    [0, 100, 200]
    >>> time = StreamTime(fps=10)
    >>> [time.of(pts * ms) // ms for pts in (5000, 5100, 0, 100)]
    [5000, 5100, 5200, 5300]
    """

    def __init__(self, fps: float | None = None) -> None:
        self._step_ns = round(NS_PER_S / (fps or DEFAULT_FPS))
        self._last_ns: int | None = None
        self._offset_ns = 0
        self._is_untimed = False

    def of(self, pts_ns: int | None, duration_ns: int | None = None) -> int:
        """Return the stream time of the next frame.

        Args:
            pts_ns: from the file, None if it has none.
            duration_ns: of the frame, from the file; None or 0 to use the declared rate.
        """
        last_ns, self._is_untimed = self._last_ns, pts_ns is None
        following_ns = 0 if last_ns is None else last_ns + (duration_ns or self._step_ns)
        if pts_ns is None:
            return self._take(following_ns)
        time_ns = pts_ns + self._offset_ns
        if last_ns is None or time_ns > last_ns:
            return self._take(time_ns)
        if last_ns - time_ns > RESTART_NS:
            self._offset_ns = following_ns - pts_ns
        return self._take(following_ns)

    def skip(self, count: int) -> None:
        """Leave room for frames that were not decoded, if the file has no times that show the gap."""
        if self._last_ns is not None and self._is_untimed:
            self._last_ns += count * self._step_ns

    def _take(self, time_ns: int) -> int:
        self._last_ns = time_ns
        return time_ns
