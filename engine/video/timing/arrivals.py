"""Capture times of a live stream's frames, as accurately as they can be known. Imports no numpy."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from engine.clock import NS_PER_S
from engine.video.timing.backlog import Backlog
from engine.video.timing.stream_time import MAX_NS

if TYPE_CHECKING:
    from engine.data import CapturedSource

logger = logging.getLogger(__name__)
MAX_CLOCK_DIFFERENCE_NS = 10 * NS_PER_S
_PENDING = 64
_PRFT = struct.Struct("=qi")  # microseconds since 1970, flags: FFmpeg's AVProducerReferenceTime


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a frame was captured.

    Attributes:
        captured_ns: monotonic clock right after the blocking read returned, minus the time that the frame is known to
            have waited before.
        captured_utc_ns: wall clock of the capture.
        pts_ns: stream time, None if there is none.
        captured_source: how `captured_utc_ns` is known.
        captured_error_ns: bound of its error, None if unknown.
    """

    captured_ns: int
    captured_utc_ns: int
    pts_ns: int | None
    captured_source: CapturedSource = "arrival"
    captured_error_ns: int | None = None


def pts_ns(pts: int | None, time_base: Fraction) -> int | None:
    """Return a stream time in ns, rounded down; None if there is none, or one beyond 146 years.

    >>> pts_ns(512, Fraction(1, 15360))
    33333333
    """
    time_ns = None if pts is None else pts * time_base.numerator * NS_PER_S // time_base.denominator
    return None if time_ns is None or abs(time_ns) > MAX_NS else time_ns


class Arrivals:
    """Remembers when each packet of a live stream was read, for the frame that is decoded from it."""

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._stamps: dict[int | None, Stamp] = {}
        self._backlog = Backlog()
        self._has_warned = False

    def note(self, packet: Any, waited_ns: int, arrived_ns: int) -> int:
        """Record a packet read at `arrived_ns` after waiting `waited_ns`; return how late it was, in ns."""
        while len(self._stamps) >= _PENDING:
            del self._stamps[next(iter(self._stamps))]
        stream_ns = pts_ns(packet.pts, self._time_base)
        utc_ns = time.time_ns() - (time.monotonic_ns() - arrived_ns)
        late_ns = self._backlog.late_ns(arrived_ns, stream_ns, waited_ns)
        camera_ns = self._camera_clock(packet, utc_ns)
        source: CapturedSource = "arrival" if camera_ns is None else "rtcp"
        self._stamps[packet.pts] = Stamp(arrived_ns - late_ns, camera_ns or utc_ns - late_ns, stream_ns, source)
        return late_ns

    def stamp(self, pts: int | None) -> Stamp:
        """Return the times of the frame with stream time `pts`, or the current time if its packet is unknown."""
        stamp = self._stamps.pop(pts, None)
        return stamp or Stamp(time.monotonic_ns(), time.time_ns(), pts_ns(pts, self._time_base))

    def _camera_clock(self, packet: Any, utc_ns: int) -> int | None:
        """Return the capture time that the camera reports by RTCP (side data `prft`, PyAV 18), if plausible."""
        for camera_ns in _reported(packet):
            if abs(camera_ns - utc_ns) < MAX_CLOCK_DIFFERENCE_NS:
                return camera_ns
            if not self._has_warned:
                self._has_warned = True
                off_s = (camera_ns - utc_ns) / NS_PER_S
                logger.warning("the camera's clock is %.0f s off and is not used: set its NTP server", off_s)
        return None


def _reported(packet: Any) -> Iterator[int]:
    if hasattr(packet, "iter_sidedata"):
        for item in packet.iter_sidedata():
            if item.data_type == "prft":
                yield int(_PRFT.unpack_from(memoryview(item))[0]) * 1000
