"""Counts per minute of one source: crossings, visits, and the occupancy of its zones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engine.clock import NS_PER_S
from engine.events.store.rows import CountRow, OccupancyRow

MINUTE_NS = 60 * NS_PER_S
KEPT_MINUTES = 180
"""Minutes are kept this long, so that a clock set back by an hour continues the minutes it counts again."""
MAX_STEP_S = 2.0
VISIT = "visit"
OCCUPANCY_EVERY = 5
"""Occupancy rows are returned at every n-th call of `take`."""


@dataclass(slots=True)
class _Filling:
    """A zone's occupancy in the current minute so far; see `OccupancyRow`."""

    seen_s: float = 0.0
    object_s: float = 0.0
    busy_s: float = 0.0
    most: int = 0


class MinuteCounts:
    """Accumulates rows; each row covers the whole minute so far, so writing it again changes nothing.

    Args:
        source_id: the camera or file.
        run_epoch: start of the run.
    """

    def __init__(self, source_id: str, run_epoch: int) -> None:
        self._source_id = source_id
        self._run_epoch = run_epoch
        self._counts: dict[tuple[int, str, str, str], int] = {}
        self._occupancy: dict[tuple[int, str], _Filling] = {}
        self._changed: set[tuple[int, str, str, str]] = set()
        self._filled: set[tuple[int, str]] = set()
        self._takes = 0
        self._before: tuple[int, Mapping[str, int]] | None = None

    def add(self, utc_ns: int, place: str, name: str, class_name: str) -> None:
        """Count one crossing (`name` is its direction) or visit."""
        key = utc_ns // MINUTE_NS, place, name, class_name
        self._counts[key] = self._counts.get(key, 0) + 1
        self._changed.add(key)

    def fill(self, scene_ns: int, utc_ns: int, occupancy: Mapping[str, int]) -> None:
        """Add the time since the previous call, during which the zones were as full as that call stated."""
        before, self._before = self._before, (scene_ns, occupancy)
        if before is None:
            return
        lasted_s = (scene_ns - before[0]) / NS_PER_S
        if not 0 < lasted_s <= MAX_STEP_S:
            return
        minute = utc_ns // MINUTE_NS
        for place, n in before[1].items():
            key = minute, place
            row = self._occupancy.get(key)
            if row is None:
                row = self._occupancy[key] = _Filling()
            self._filled.add(key)
            row.seen_s += lasted_s
            row.object_s += lasted_s * n
            row.busy_s += lasted_s if n else 0.0
            row.most = max(row.most, n)

    def forget_previous(self) -> None:
        """Do not count the time until the next `fill`, because the source was not seen."""
        self._before = None

    def take(self, *, everything: bool = False) -> Iterator[CountRow | OccupancyRow]:
        """Yield the rows that changed (occupancy rows only at every fifth call), and forget old minutes.

        Args:
            everything: include the occupancy rows.
        """
        for minute, place, name, class_name in self._changed:
            n = self._counts[minute, place, name, class_name]
            yield CountRow(self._source_id, place, name, class_name, minute, self._run_epoch, n)
        self._takes += 1
        if self._takes % OCCUPANCY_EVERY and not everything:
            self._changed.clear()
            return
        for minute, place in self._filled:
            row = self._occupancy[minute, place]
            figures = row.seen_s, row.object_s, row.busy_s, row.most
            yield OccupancyRow(self._source_id, place, minute, self._run_epoch, *figures)
        newest = max([key[0] for key in self._changed] + [key[0] for key in self._filled], default=None)
        self._changed.clear()
        self._filled.clear()
        if newest is not None:
            self._counts = {key: n for key, n in self._counts.items() if abs(newest - key[0]) <= KEPT_MINUTES}
            self._occupancy = {k: row for k, row in self._occupancy.items() if abs(newest - k[0]) <= KEPT_MINUTES}
