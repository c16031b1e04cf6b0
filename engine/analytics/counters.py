"""Running totals of places and rules. They survive a restart, and their memory does not grow with time."""

from __future__ import annotations

import datetime
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

_EXACT = 4096
DWELL_EDGES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper edges of the fixed buckets in which dwell is also counted."""
_BINS_PER_E = 200
VERSION = 1
VISIT = "visit"


class Dwell:
    """Dwell seconds of a zone's visits: exact sum and maximum; median exact up to 4096 visits, then within 0.3 %."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._bins: Counter[int] = Counter()
        self.count = 0
        self.total_s = 0.0
        self.max_s = 0.0
        self.by_edge = [0] * (len(DWELL_EDGES_S) + 1)

    def add(self, seconds: float) -> None:
        """Add one visit."""
        self.count += 1
        self.by_edge[bisect_left(DWELL_EDGES_S, seconds)] += 1
        self.total_s += seconds
        self.max_s = max(self.max_s, seconds)
        self._values.append(seconds)
        if len(self._values) >= _EXACT:
            self._bins.update(map(_bin, self._values))
            self._values.clear()

    def median_s(self, more: Iterable[float] = ()) -> float:
        """Return the median of the visits and `more`; 0 if there are none."""
        values = sorted([*self._values, *more])
        if not self._bins:
            return _middle(values)
        bins = self._bins + Counter(map(_bin, values))
        half, seen = sum(bins.values()) / 2, 0
        for at in sorted(bins):
            seen += bins[at]
            if seen >= half:
                return math.exp((at + 0.5) / _BINS_PER_E)
        return 0.0

    def state(self) -> dict[str, Any]:
        """Return the state as JSON-ready data."""
        bins = {str(at): n for at, n in self._bins.items()}
        state = {"values": [*self._values], "bins": bins, "count": self.count, "sum": self.total_s, "max": self.max_s}
        return {**state, "by_edge": list(self.by_edge)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._values = [float(value) for value in state["values"]]
        self._bins = Counter({int(at): int(n) for at, n in state["bins"].items()})
        self.count, self.total_s, self.max_s = int(state["count"]), float(state["sum"]), float(state["max"])
        self.by_edge = [int(n) for n in state.get("by_edge", ())]
        if len(self.by_edge) != len(DWELL_EDGES_S) + 1:  # written by an earlier release
            self.by_edge = [0] * (len(DWELL_EDGES_S) + 1)
            for seconds in self._values:
                self.by_edge[bisect_left(DWELL_EDGES_S, seconds)] += 1
            for at, n in self._bins.items():
                self.by_edge[bisect_left(DWELL_EDGES_S, math.exp((at + 0.5) / _BINS_PER_E))] += n


def _bin(seconds: float) -> int:
    return math.floor(math.log(max(seconds, 1e-3)) * _BINS_PER_E)


def _middle(values: list[float]) -> float:
    if not values:
        return 0.0
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


class Counters:
    """Totals by line, zone and rule name, and by class name."""

    def __init__(self) -> None:
        self.since_utc_ns: int | None = None
        self.blind_ns = 0
        self.crossings: dict[str, dict[str, Counter[str]]] = {}
        self.dithers: Counter[str] = Counter()
        self.visits: dict[str, Counter[str]] = {}
        self.dwell: dict[str, Dwell] = {}
        self.rules: Counter[str] = Counter()
        self.has_news = False

    def expect(self, zones: Iterable[str], lines: Mapping[str, tuple[str, str]], rules: Iterable[str]) -> None:
        """Add a zero entry for each new place and rule, and forget those not listed."""
        old = self.crossings
        self.crossings = {
            line: {name: old.get(line, {}).get(name, Counter()) for name in names} for line, names in lines.items()
        }
        self.dithers = Counter({line: self.dithers[line] for line in lines})
        zones = list(zones)
        self.visits = {zone: self.visits.get(zone, Counter()) for zone in zones}
        self.dwell = {zone: self.dwell.get(zone, Dwell()) for zone in zones}
        self.rules = Counter({rule: self.rules[rule] for rule in rules})

    def forget_place(self, name: str, *, is_zone: bool) -> None:
        """Drop the totals of a changed place."""
        if is_zone:
            self.visits.pop(name, None)
            self.dwell.pop(name, None)
        else:
            self.crossings.pop(name, None)
            self.dithers.pop(name, None)

    def reset(self, utc_ns: int | None) -> None:
        """Reset all totals to zero."""
        names = {line: _pair(counts) for line, counts in self.crossings.items()}
        zones, rules = list(self.visits), list(self.rules)
        self.__dict__.update(Counters().__dict__)
        self.since_utc_ns = utc_ns
        self.expect(zones, names, rules)

    def add(self, counts: Mapping[tuple[str, str, str], int], since_utc_ns: int | None) -> None:
        """Add crossings (line, direction, class) and visits (zone, `visit`, class) that were counted elsewhere."""
        for (place, name, class_name), n in counts.items():
            if place in self.visits and name == VISIT:
                self.visits[place][class_name] += n
            elif name in self.crossings.get(place, ()):
                self.crossings[place][name][class_name] += n
        known = [ns for ns in (self.since_utc_ns, since_utc_ns) if ns is not None]
        self.since_utc_ns = min(known, default=None)
        self.has_news = True

    def take_news(self) -> bool:
        """Return whether counts were added since the last call."""
        had, self.has_news = self.has_news, False
        return had

    def totals(self) -> dict[str, dict[str, int]]:
        """Return crossings by line and direction."""
        return {line: {name: n.total() for name, n in counts.items()} for line, counts in self.crossings.items()}

    def by_class(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return crossings by line, direction and class."""
        return {line: {name: dict(n) for name, n in counts.items()} for line, counts in self.crossings.items()}

    def state(self) -> dict[str, Any]:
        """Return the state as JSON-ready data."""
        return {
            "version": VERSION,
            "since_utc_ns": self.since_utc_ns,
            "blind_ns": self.blind_ns,
            "crossings": {line: {k: dict(v) for k, v in counts.items()} for line, counts in self.crossings.items()},
            "dithers": dict(self.dithers),
            "visits": {zone: dict(counts) for zone, counts in self.visits.items()},
            "dwell": {zone: dwell.state() for zone, dwell in self.dwell.items()},
            "rules": dict(self.rules),
        }

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> Counters:
        """Rebuild the totals from what `state` returned.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the state is of another version, or damaged.
        """
        if state["version"] != VERSION:
            raise ValueError(f"version {state['version']}, expected {VERSION}")
        counters = cls()
        since = state["since_utc_ns"]
        counters.since_utc_ns, counters.blind_ns = None if since is None else int(since), int(state["blind_ns"])
        counters.crossings = {
            line: {name: _counter(counts) for name, counts in directions.items()}
            for line, directions in state["crossings"].items()
        }
        counters.dithers, counters.rules = _counter(state["dithers"]), _counter(state["rules"])
        counters.visits = {zone: _counter(counts) for zone, counts in state["visits"].items()}
        for zone, dwell in state["dwell"].items():
            counters.dwell[zone] = Dwell()
            counters.dwell[zone].restore(dwell)
        return counters

    def continue_from(self, other: Counters) -> None:
        """Adopt the totals of `other` for all places and rules present here."""
        other.expect(self.visits, {line: _pair(counts) for line, counts in self.crossings.items()}, list(self.rules))
        self.__dict__.update(other.__dict__)


class DailyReset:
    """Decides when to reset the totals: once a day, at a local time of the site.

    Args:
        minute: of the day; None: never.
        zone_info: the site's time zone.
    """

    def __init__(self, minute: int | None, zone_info: ZoneInfo) -> None:
        self._shift = None if minute is None else datetime.timedelta(minutes=minute)
        self._zone_info = zone_info
        self._day: datetime.date | None = None

    def is_due(self, utc_ns: int, counters: Counters) -> bool:
        """Return whether the reset time has passed since the last call, or since the totals began before a restart."""
        if counters.since_utc_ns is None:
            counters.since_utc_ns = utc_ns
        if self._shift is None:
            return False
        before = self._day or self._day_of(counters.since_utc_ns, self._shift)
        self._day = self._day_of(utc_ns, self._shift)
        return self._day > before

    def _day_of(self, utc_ns: int, shift: datetime.timedelta) -> datetime.date:
        return (datetime.datetime.fromtimestamp(utc_ns / 1e9, self._zone_info) - shift).date()


def _pair(counts: Mapping[str, Any]) -> tuple[str, str]:
    first, second = counts
    return first, second


def _counter(counts: Mapping[str, Any]) -> Counter[str]:
    return Counter({str(name): int(n) for name, n in counts.items()})
