"""How old results were, over time."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data import Packet
from engine.protocols import SinkBase


@dataclass(frozen=True)
class Part:
    """Ages in one part of a run, in ms."""

    count: int
    p50: float
    p99: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f} p99 {self.p99:.1f} ms (of {self.count})"


@dataclass
class Ages:
    """Times (monotonic seconds) and ages in ms, in order of arrival: 16 bytes each; may be used on any thread."""

    moments: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, age_ms: float, moment: float | None = None) -> None:
        """Record one age."""
        with self._lock:  # an array that is being copied cannot grow
            self.moments.append(time.monotonic() if moment is None else moment)
            self.values.append(age_ms)

    def _copies(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        with self._lock:
            return np.array(self.moments), np.array(self.values)

    def percentile(self, percent: float) -> float:
        """Return a percentile of all ages, 0 if there are none."""
        _, values = self._copies()
        return float(np.percentile(values, percent)) if len(values) else 0.0

    def parts(self, seconds: float) -> list[Part]:
        """Return the ages of each `seconds`; a remainder at the end belongs to the part before it."""
        moments, values = self._copies()
        if not len(moments):
            return []
        passed = moments - moments[0]
        count = max(int(passed[-1] / seconds + 0.5), 1)
        number = np.minimum((passed / seconds).astype(int), count - 1)
        return [_part(values[number == part]) for part in range(count) if (number == part).any()]

    def share(self, begin: float, end: float) -> Part:
        """Return the ages between two points of the time covered, given as fractions of it (0 to 1)."""
        moments, values = self._copies()
        passed = (moments - moments[0]) / max(moments[-1] - moments[0], 1e-9)
        return _part(values[(passed >= begin) & (passed <= end)])


def _part(values: NDArray[np.float64]) -> Part:
    return Part(len(values), float(np.percentile(values, 50)), float(np.percentile(values, 99)))


def plain(report: Any) -> dict[str, Any]:
    """Return a report, a dataclass, as plain values with rounded numbers, for JSON."""
    rounded = _rounded(asdict(report))
    assert isinstance(rounded, dict)
    return rounded


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return round(value, 3) if isinstance(value, float) else value


@dataclass
class AgeSink(SinkBase):
    """Keeps the age at publishing of every packet of a pipeline."""

    name: str = "ages"
    blocking: bool = False
    ages: Ages = field(default_factory=Ages)

    def write(self, packet: Packet) -> None:
        """Note one."""
        self.ages.add(packet.latency_ms)


def seconds_of(duration_s: float) -> Iterator[float]:
    """Yield the seconds passed, once a second, for `duration_s`."""
    begun, pause = time.monotonic(), threading.Event()
    while (passed := time.monotonic() - begun) < duration_s:
        yield passed
        pause.wait(1.0 - (time.monotonic() - begun) % 1.0)
