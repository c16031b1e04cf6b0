"""Does a process grow? Memory, threads and descriptors of an engine and of its readers, sampled, with fitted lines.

The engine is watched from outside, so that only the engine is measured.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

WARM_UP = 0.15  # share of the run that fits leave out, while caches and pools fill
ALLOWED_PER_HOUR = 0.1  # of the mean
UNCERTAIN = 0.005  # of the mean: a rise over the whole second half that is insignificant
COLUMNS = ("engine RSS (MB)", "RSS per reader (MB)", "threads", "file descriptors")


@dataclass(frozen=True)
class Slope:
    """Growth of one figure per hour by a least-squares line, for the run after its warm-up and for both halves of it.

    A figure that levels off, such as an allocator's, grows less in the second half than in the first.
    """

    name: str
    per_hour: float
    first_half: float
    second_half: float
    mean: float
    last: float
    half_s: float

    @property
    def percent_per_hour(self) -> float:
        """Growth in percent of the mean."""
        return 100 * self.per_hour / max(self.mean, 1e-9)

    @property
    def is_flat(self) -> bool:
        """Whether the second half rose by less than a tenth per hour, or by less than the noise."""
        risen = self.second_half * self.half_s / 3600
        return self.second_half < ALLOWED_PER_HOUR * self.mean or risen < UNCERTAIN * self.mean

    def __str__(self) -> str:
        return (
            f"{self.name:20} mean {self.mean:8.1f}  last {self.last:8.1f}  per hour {self.per_hour:+8.2f} "
            f"({self.percent_per_hour:+.1f} %), halves {self.first_half:+.2f} and {self.second_half:+.2f}"
        )


class Growth:
    """Samples of one engine process and its reader processes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._begun = time.monotonic()
        self.samples: list[tuple[float, ...]] = []

    def sample(self) -> None:
        """Take one sample, unless the engine has ended."""
        readers = [rss_mb for rss_mb in map(_reader_mb, self.readers()) if rss_mb]
        process = self._process
        self.samples.append(
            (
                time.monotonic() - self._begun,
                process.memory_info().rss / 1e6,
                float(np.mean(readers)) if readers else float("nan"),
                process.num_threads(),
                process.num_fds(),
            )
        )

    def readers(self) -> list[psutil.Process]:
        """Return the processes of the engine."""
        return list(self._process.children())

    def slopes(self) -> tuple[Slope, ...]:
        """Return the growth of each figure that there is."""
        table = np.array(self.samples)
        table = table[table[:, 0] >= WARM_UP * table[-1, 0]]
        known = [number for number in range(1, len(COLUMNS) + 1) if np.isfinite(table[:, number]).sum() > 2]
        return tuple(slope_of(COLUMNS[number - 1], table[:, (0, number)]) for number in known)

    def save(self, path: Path) -> None:
        """Write the samples as CSV."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("seconds", *COLUMNS))
            writer.writerows([f"{value:.3f}" for value in row] for row in self.samples)


def _reader_mb(reader: psutil.Process) -> float:
    try:
        return float(reader.memory_info().rss) / 1e6
    except psutil.Error:  # it has just ended
        return 0.0


def slope_of(name: str, table: NDArray[np.float64]) -> Slope:
    """Return the growth of a figure from rows of seconds and value."""
    kept = table[np.isfinite(table[:, 1])]
    first, second = np.array_split(kept, 2)
    slopes = (_per_hour(kept), _per_hour(first), _per_hour(second))
    return Slope(name, *slopes, float(kept[:, 1].mean()), float(kept[-1, 1]), float(np.ptp(second[:, 0])))


def _per_hour(table: NDArray[np.float64]) -> float:
    return float(np.polyfit(table[:, 0], table[:, 1], 1)[0]) * 3600 if len(table) > 1 else 0.0
