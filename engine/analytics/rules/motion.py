"""Rules about how objects move: in the wrong direction, too fast, too slowly, or no longer at all."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from zoneinfo import ZoneInfo

from engine.analytics.findings import Finding
from engine.analytics.motion import MOVED_HEIGHTS, REST_HEIGHTS
from engine.analytics.places import Line, Zone
from engine.analytics.rules.base import Timers, at_least
from engine.analytics.rules.zones import ZoneRule
from engine.analytics.view import Stay, View
from engine.errors import ConfigError

_NS = 1e9
_SAMPLE_S = 0.1 - 1e-9
_WINDOW_S = 1.0 - 1e-9
_PATH_POINTS = 100
_STRAIGHT = 0.25
"""A path has no heading if its ends are closer than this fraction of its length."""
SLOWER_S = 2.0
REST_M, MOVED_M = 0.5, 0.83
Trail = deque[tuple[float, float, float]]


@dataclass
class Direction(ZoneRule):
    """An object moves in a forbidden direction through a zone.

    The heading covers at least the last second and at least one height of path inside the zone.

    Attributes:
        forbidden_deg: 0 is right, 90 down, 180 left, 270 up in the frame.
        tolerance_deg: how far a heading may differ from it.
    """

    kind: ClassVar[str] = "direction"

    forbidden_deg: float = field(kw_only=True)
    tolerance_deg: float = 45.0
    for_s: float = 1.0
    _trails: dict[int, Trail] = field(default_factory=dict, init=False, repr=False, compare=False)
    _timers: Timers = field(default_factory=Timers, init=False, repr=False, compare=False)

    def _check(self) -> None:
        super()._check()
        if not -360 <= self.forbidden_deg <= 360 or not 0 < self.tolerance_deg <= 180:
            raise ConfigError(f"{self.where}: expected forbidden_deg from -360 to 360, tolerance_deg above 0 to 180")

    def update(self, view: View) -> Iterator[Finding]:
        """Yield begins and ends."""
        if self._is_idle(view) and not self._trails:
            return
        stays = view.stays(self.zone)
        yield from self._ends(view, stays)
        self._trails = {identity: trail for identity, trail in self._trails.items() if identity in stays}
        self._timers.keep(stays)
        for identity, stay in self._candidates(view, stays):
            heading = self._heading(view, stay, self._trails.setdefault(identity, deque(maxlen=_PATH_POINTS)))
            wrong = heading is not None and _turn(heading, self.forbidden_deg) <= self.tolerance_deg
            since_ns = self._timers.since(identity, view.captured_ns, holds=wrong)
            if since_ns is not None and view.captured_ns - since_ns >= self.for_s * _NS:
                why = (f"heading {heading:.0f} deg, within {self.tolerance_deg:g} of {self.forbidden_deg:g}",)
                yield from self._begin(view, identity, self._told(view, stay, why=why, began_ns=since_ns))

    def _heading(self, view: View, stay: Stay, trail: Trail) -> float | None:
        """Record a position, and return the heading over the shortest stretch that is long enough."""
        x1, y1, x2, y2 = view.objects.xyxy[stay.at].tolist()
        now_s = stay.since_s + stay.dwell_s
        if not trail or now_s - trail[-1][0] >= _SAMPLE_S:
            trail.append((now_s, (x1 + x2) / 2, y2))
        return heading_of(trail, y2 - y1)


def heading_of(trail: Trail, height: float) -> float | None:
    """Return the heading in degrees over the shortest tail of a trail that lasts a second and is one height long.

    >>> heading_of(deque([(0.0, 0.0, 0.0), (1.0, 0.0, 50.0)]), 40.0)
    90.0
    """
    if len(trail) < 2:
        return None
    end_s, end_x, end_y = trail[-1]
    x, y, length = end_x, end_y, 0.0
    for seconds, before_x, before_y in reversed(trail):
        length += math.hypot(x - before_x, y - before_y)
        x, y = before_x, before_y
        if end_s - seconds >= _WINDOW_S and length >= height:
            break
    else:
        return None
    if math.hypot(end_x - x, end_y - y) < _STRAIGHT * length:
        return None
    return math.degrees(math.atan2(end_y - y, end_x - x)) % 360


def _turn(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


@dataclass
class Speed(ZoneRule):
    """An object is significantly faster or slower than a limit: by more than twice the standard error.

    The zone must have a `ground`.

    Attributes:
        over_kmh: upper limit.
        under_kmh: lower limit.
    """

    kind: ClassVar[str] = "speed"

    over_kmh: float | None = None
    under_kmh: float | None = None
    for_s: float = 0.5
    _timers: Timers = field(default_factory=Timers, init=False, repr=False, compare=False)
    _below: Timers = field(default_factory=Timers, init=False, repr=False, compare=False)
    _extreme: dict[int, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def _check(self) -> None:
        super()._check()
        at_least(self.where, 0, over_kmh=self.over_kmh, under_kmh=self.under_kmh)
        if (self.over_kmh is None) == (self.under_kmh is None):
            raise ConfigError(f"{self.where}: give one of over_kmh and under_kmh")

    def bind(self, zones: Mapping[str, Zone], lines: Mapping[str, Line], zone_info: ZoneInfo) -> None:
        """Check that the zone has a ground. Raises `ConfigError` otherwise."""
        super().bind(zones, lines, zone_info)
        if zones[self.zone].ground is None:
            raise ConfigError(f"{self.where}: zone {self.zone} has no ground: give it points and metres to measure by")

    def update(self, view: View) -> Iterator[Finding]:
        """Yield `begin`, new extremes and `end` of episodes."""
        if self._is_idle(view):
            return
        stays = view.stays(self.zone)
        yield from self._ends(view, stays)
        self._timers.keep(stays)
        self._below.keep(stays)
        self._extreme = {identity: kmh for identity, kmh in self._extreme.items() if identity in stays}
        yield from self._running(view, stays)
        for identity, stay in self._candidates(view, stays):
            kmh, error = self._measured(view, stay)
            since_ns = self._timers.since(identity, view.captured_ns, holds=self._breaks(kmh, error))
            if since_ns is not None and view.captured_ns - since_ns >= self.for_s * _NS:
                limit = f"over {self.over_kmh:g}" if self.over_kmh is not None else f"under {self.under_kmh:g}"
                why = (f"{kmh:.1f} +- {error:.1f} km/h, {limit}",)
                self._extreme[identity] = kmh
                yield from self._begin(view, identity, self._told(view, stay, why=why, began_ns=since_ns))

    def _measured(self, view: View, stay: Stay) -> tuple[float, float]:
        return float(view.objects.kmh[stay.at]), float(view.objects.kmh_error[stay.at])

    def _breaks(self, kmh: float, error: float) -> bool:
        if self.over_kmh is not None:
            return kmh - error > self.over_kmh
        return self.under_kmh is not None and kmh + error < self.under_kmh

    def _running(self, view: View, stays: dict[int, Stay]) -> Iterator[Finding]:
        """Yield new extremes of the open episodes, and the ends of those back within the limit for 2 s."""
        for identity, stay in stays.items():
            if identity not in self._open:
                continue
            kmh, error = self._measured(view, stay)
            goes_on = self._breaks(kmh, error) or math.isnan(kmh)
            since_ns = self._below.since(identity, view.captured_ns, holds=not goes_on)
            if since_ns is not None and view.captured_ns - since_ns >= SLOWER_S * _NS:
                self._timers.since(identity, view.captured_ns, holds=False)
                yield from self._end(view, identity, since_ns)
            elif goes_on and self._is_more(kmh, self._extreme[identity]):
                self._extreme[identity] = kmh
                yield from self._update(view, identity, {"kmh": round(kmh, 1), "kmh_error": round(error, 1)})

    def _is_more(self, kmh: float, extreme: float) -> bool:
        return kmh > extreme if self.over_kmh is not None else kmh < extreme


@dataclass
class Stopped(ZoneRule):
    """An object that moved before has stayed in place for `for_s`, within 0.3 heights, or 0.5 m on a ground.

    Ends when it moves by 0.5 heights (0.83 m) or leaves the zone.
    """

    kind: ClassVar[str] = "stopped"

    for_s: float = 10.0
    _rests: dict[int, tuple[float, float, int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def update(self, view: View) -> Iterator[Finding]:
        """Yield begins and ends."""
        if self._is_idle(view) and not self._rests:
            return
        stays = view.stays(self.zone)
        yield from self._ends(view, stays)
        self._rests = {identity: rest for identity, rest in self._rests.items() if identity in stays}
        for identity, stay in stays.items():
            yield from self._moved_on(view, identity, stay.at)
        for identity, stay in self._candidates(view, stays):
            since_ns = self._rests[identity][2]
            rest_s = (int(view.objects.present_ns[stay.at]) - since_ns) / _NS
            if view.objects.moved[stay.at] and rest_s >= self.for_s:
                why = (f"still for {rest_s:.2f} s >= for_s {self.for_s:g}",)
                yield from self._begin(view, identity, self._told(view, stay, why=why, began_ns=since_ns))

    def _moved_on(self, view: View, identity: int, at: int) -> Iterator[Finding]:
        """Track where an object rests, and end its episode if it moved on."""
        x, y, rest, moved = self._position(view, at)
        if identity not in self._rests:
            self._rests[identity] = x, y, int(view.objects.rest_ns[at])
        from_x, from_y, _ = self._rests[identity]
        way = math.hypot(x - from_x, y - from_y)
        if way > (moved if identity in self._open else rest):
            self._rests[identity] = x, y, view.captured_ns
            yield from self._end(view, identity, view.captured_ns)

    def _position(self, view: View, at: int) -> tuple[float, float, float, float]:
        """Return a position, and the distances from it that end rest and that count as a move.

        All are metres if the position on the ground is known, otherwise pixels.
        """
        metres = view.objects.metres[at].tolist()
        if not math.isnan(metres[0]):
            return metres[0], metres[1], REST_M, MOVED_M
        x1, y1, x2, y2 = view.objects.xyxy[at].tolist()
        return (x1 + x2) / 2, y2, REST_HEIGHTS * (y2 - y1), MOVED_HEIGHTS * (y2 - y1)
