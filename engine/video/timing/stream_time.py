"""Stream time of a recorded video: always present and always increasing. Imports no numpy.

Results for a file must not depend on the machine, so every frame needs its own time. Raw H.264 and HEVC carry none,
time restarts in the middle of joined recordings, B-frames in AVI are stamped in coding order, and a damaged or odd
header puts the video billions of seconds away, where its times no longer fit into 64 bits.
"""

from __future__ import annotations

from engine.clock import NS_PER_S

DEFAULT_FPS = 25.0
RESTART_NS = NS_PER_S  # a larger step back is a restart, a smaller one is disorder
MAX_NS = 1 << 62  # 146 years, more than any clock counts; sums of two still fit into 64 bits
MAX_STEP_NS = 86_400 * NS_PER_S
MPEG_WRAP_NS = (1 << 33) * NS_PER_S // 90_000
"""Range of the clock in MPEG transport and program streams, 26.5 hours; FFmpeg adds it to a time that has gone back."""


class StreamTime:
    """Continues stream time frame by frame if a file has none or jumps back.

    Args:
        fps: declared rate of the file, None if it declares none.
        wrap_ns: range of the file's clock, None if it has none; a step over more than half of it is one back.

    >>> time, ms = StreamTime(fps=10), 1_000_000
    >>> [time.of(None) // ms for _ in range(3)]
    [0, 100, 200]
    >>> time = StreamTime(fps=10)
    >>> [time.of(pts * ms) // ms for pts in (5000, 5100, 0, 100)]
    [5000, 5100, 5200, 5300]
    """

    def __init__(self, fps: float | None = None, wrap_ns: int | None = None) -> None:
        self._longest_ns = MAX_NS if wrap_ns is None else wrap_ns // 2
        slowest = NS_PER_S / MAX_STEP_NS
        self._step_ns = max(round(NS_PER_S / (fps if fps is not None and fps >= slowest else DEFAULT_FPS)), 1)
        self._last_ns: int | None = None
        self._offset_ns = 0
        self._is_untimed = False

    def of(self, pts_ns: int | None, duration_ns: int | None = None) -> int:
        """Return the stream time of the next frame.

        Args:
            pts_ns: from the file, None if it has none; one beyond 146 years counts as none.
            duration_ns: of the frame, from the file; None or 0 to use the declared rate.
        """
        time_ns = None if pts_ns is None else pts_ns + self._offset_ns
        if time_ns is not None and abs(time_ns) > MAX_NS:
            time_ns = None
        last_ns, self._is_untimed = self._last_ns, time_ns is None
        step_ns = duration_ns if duration_ns and 0 < duration_ns <= MAX_STEP_NS else self._step_ns
        following_ns = 0 if last_ns is None else last_ns + step_ns
        if pts_ns is None or time_ns is None:
            return self._take(following_ns)
        if last_ns is None or 0 < time_ns - last_ns <= self._longest_ns:
            return self._take(time_ns)
        if not last_ns - RESTART_NS <= time_ns <= last_ns:
            self._offset_ns = following_ns - pts_ns
        return self._take(following_ns)

    def skip(self, count: int) -> None:
        """Leave room for frames that were not decoded, if the file has no times that show the gap."""
        if self._last_ns is not None and self._is_untimed:
            self._last_ns += count * self._step_ns

    def _take(self, time_ns: int) -> int:
        self._last_ns = time_ns
        return time_ns
