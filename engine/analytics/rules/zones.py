"""Rules about zones: an object is present, an object stays, or too many or too few are present."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from engine.analytics.findings import Finding
from engine.analytics.places import check_seconds, checked_classes
from engine.analytics.rules.base import Classes, Rule, about, at_least
from engine.analytics.view import Stay, View
from engine.errors import ConfigError

_NS = 1e9
ROUNDING_S = 1e-9
_EARLY_S = 1e-6
_NEVER_NS = 2**63


@dataclass
class ZoneRule(Rule):
    """A rule with one episode per identity inside a zone; it ends at the latest when the identity leaves.

    Attributes:
        zone: name of the zone.
        classes: names or ids of the classes that count; None: all that count in the zone.
        for_s: how long the condition must hold.
    """

    zone: str = field(kw_only=True)
    classes: Classes = None
    for_s: float = 0.0
    _wanted: frozenset[str | int] | None = field(default=None, init=False, repr=False, compare=False)
    _change: int | None = field(default=None, init=False, repr=False, compare=False)
    _turnover: int = field(default=0, init=False, repr=False, compare=False)
    _ended: int = field(default=0, init=False, repr=False, compare=False)
    _lost: list[int] = field(default_factory=list, init=False, repr=False, compare=False)
    _has_absent: bool = field(default=False, init=False, repr=False, compare=False)
    _due_ns: int = field(default=0, init=False, repr=False, compare=False)

    def _check(self) -> None:
        check_seconds(self.where, for_s=self.for_s)
        self._wanted = checked_classes(self.where, self.classes)

    @property
    def zone_names(self) -> tuple[str, ...]:
        """The zone that the rule uses."""
        return (self.zone,)

    def _is_quiet(self, view: View) -> bool:
        """Whether nothing can have begun or ended since `_sleep`."""
        return (
            view.captured_ns < self._due_ns
            and view.zone_changes.get(self.zone) == self._change
            and (view.ended == self._ended or not (self._has_absent or self._lost))
            and (view.turnover == self._turnover or all(map(view.objects.is_absent, self._lost)))
        )

    def _sleep(
        self, view: View, stays: dict[int, Stay], since_s: dict[int, float], ends_s: Collection[float] = ()
    ) -> None:
        """Record until when nothing can begin or end as long as no object enters or leaves.

        Args:
            view: the view of this frame.
            stays: the objects inside the zone, by identity.
            since_s: when the objects that may begin an episode entered; lost ones are skipped until they return.
            ends_s: when episodes of absent objects end, unless the objects end first.
        """
        is_absent = view.objects.is_absent
        self._lost = [stays[identity].at for identity in since_s if is_absent(stays[identity].at)]
        due_s = [begin_s + self.for_s for identity, begin_s in since_s.items() if stays[identity].at not in self._lost]
        first_s, self._has_absent = min([*due_s, *ends_s], default=None), bool(ends_s)
        self._turnover, self._ended, self._change = view.turnover, view.ended, view.zone_changes.get(self.zone)
        if self._change is None:
            self._due_ns = 0
        else:
            self._due_ns = _NEVER_NS if first_s is None else view.objects.ns(first_s - _EARLY_S)

    def _is_idle(self, view: View) -> bool:
        """Whether nothing can begin or end: the zone is empty and no episode is open."""
        return not self._open and not view.occupancy[self.zone]

    def _candidates(self, view: View, stays: dict[int, Stay]) -> list[tuple[int, Stay]]:
        """Return identities inside that are eligible, have a wanted class, and have no open episode."""
        return [
            (identity, stay)
            for identity, stay in stays.items()
            if stay.eligible and identity not in self._open and view.is_wanted(stay.at, self._wanted)
        ]

    def _ends(self, view: View, stays: dict[int, Stay]) -> Iterator[Finding]:
        """Yield the ends of episodes whose identity has left."""
        for key in [key for key in self._open if key not in stays]:
            left = _departure(view, self.zone, key)
            ended_ns, reason = (view.captured_ns, "") if left is None else (left.ended_ns, left.reason)
            yield from self._end(view, key, ended_ns or view.captured_ns, reason)

    def _told(self, view: View, stay: Stay, *, why: tuple[str, ...] = (), began_ns: int | None = None) -> Finding:
        since_ns = view.objects.ns(stay.since_s)
        return about(view, stay.at, place=self.zone, began_ns=since_ns if began_ns is None else began_ns, why=why)


def _departure(view: View, zone: str, identity: object) -> Finding | None:
    for finding in view.findings:
        if finding.event == "zone_left" and finding.place == zone and finding.identity == identity:
            return finding
    return None


@dataclass
class Presence(ZoneRule):
    """An object has been in a zone for `for_s`; ends when it leaves."""

    kind: ClassVar[str] = "presence"

    def update(self, view: View) -> Iterator[Finding]:
        """Yield begins and ends."""
        if self._is_quiet(view):
            return
        stays = view.stays(self.zone)
        yield from self._ends(view, stays)
        for identity, stay in self._candidates(view, stays):
            if stay.dwell_s >= self.for_s - ROUNDING_S:
                why = (f"in {self.zone} for {stay.dwell_s:.2f} s >= for_s {self.for_s:g}",)
                yield from self._begin(view, identity, self._told(view, stay, why=why))
        self._sleep(view, stays, {key: stay.since_s for key, stay in stays.items() if key not in self._open})


@dataclass
class Loiter(ZoneRule):
    """An object has stayed in a zone for `for_s`, short absences included; ends when it stays away.

    Attributes:
        absence_s: an absence up to this long does not count as leaving.
    """

    kind: ClassVar[str] = "loiter"

    absence_s: float = 3.0
    _stays: dict[int, tuple[float, float | None]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def _check(self) -> None:
        super()._check()
        check_seconds(self.where, absence_s=self.absence_s)

    def update(self, view: View) -> Iterator[Finding]:
        """Yield begins and ends."""
        if self._is_quiet(view):
            return
        stays = view.stays(self.zone)
        yield from self._absences(view, stays)
        for identity, stay in stays.items():
            since_s, left_s = self._stays.get(identity, (stay.since_s, None))
            if left_s is not None and stay.since_s - left_s > self.absence_s:
                yield from self._end(view, identity, view.objects.ns(left_s))
                since_s = stay.since_s
            self._stays[identity] = since_s, None
        for identity, stay in self._candidates(view, stays):
            since_s = self._stays[identity][0]
            lasts_s = stay.since_s + stay.dwell_s - since_s
            if lasts_s >= self.for_s - ROUNDING_S:
                why = (f"in {self.zone} for {lasts_s:.2f} s >= for_s {self.for_s:g}",)
                made = self._told(view, stay, why=why, began_ns=view.objects.ns(since_s))
                yield from self._begin(view, identity, made)
        waiting = {
            identity: since_s
            for identity, (since_s, left_s) in self._stays.items()
            if left_s is None and identity not in self._open
        }
        ends_s = [left_s + self.absence_s for _, left_s in self._stays.values() if left_s is not None]
        self._sleep(view, stays, waiting, ends_s)

    def _absences(self, view: View, stays: dict[int, Stay]) -> Iterator[Finding]:
        """Record which identities left, and yield the ends of those that stayed away or ended."""
        alive: set[int] | None = None
        for identity, (since_s, left_s) in list(self._stays.items()):
            if identity in stays:
                continue
            left = _departure(view, self.zone, identity)
            if left_s is None:
                left_ns = view.captured_ns if left is None or left.ended_ns is None else left.ended_ns
                left_s = view.objects.seconds(left_ns)
                self._stays[identity] = since_s, left_s
            alive = set(view.objects.identity.tolist()) if alive is None else alive
            if identity not in alive or view.objects.seconds(view.captured_ns) - left_s > self.absence_s:
                del self._stays[identity]
                yield from self._end(view, identity, view.objects.ns(left_s), "" if left is None else left.reason)


@dataclass
class Count(Rule):
    """A zone has contained at least, or at most, a number of objects for `for_s`; ends after `clear_s` without.

    Time without live frames does not count.

    Attributes:
        zone: name of the zone.
        at_least: smallest count for which the condition holds; None: no lower limit.
        at_most: largest count for which the condition holds; None: no upper limit.
        classes: names or ids of the classes that count; None: all that count in the zone.
        for_s: how long the condition must hold.
        clear_s: how long the condition must not hold before the episode ends.
    """

    kind: ClassVar[str] = "count"

    zone: str = field(kw_only=True)
    at_least: int | None = None
    at_most: int | None = None
    classes: Classes = None
    for_s: float = 0.0
    clear_s: float = 2.0
    _wanted: frozenset[str | int] | None = field(default=None, init=False, repr=False, compare=False)
    _since: tuple[bool, int, int] | None = field(default_factory=lambda: None, init=False, repr=False, compare=False)
    _extreme: int = field(default_factory=int, init=False, repr=False, compare=False)

    def _check(self) -> None:
        check_seconds(self.where, for_s=self.for_s, clear_s=self.clear_s)
        self._wanted = checked_classes(self.where, self.classes)
        if self.at_least is None and self.at_most is None:
            raise ConfigError(f"{self.where}: give at_least or at_most")
        at_least(self.where, 1, at_least=self.at_least)
        at_least(self.where, 0, at_most=self.at_most)
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ConfigError(f"{self.where}: at_least {self.at_least} is above at_most {self.at_most}")

    @property
    def zone_names(self) -> tuple[str, ...]:
        """The zone that the rule uses."""
        return (self.zone,)

    def update(self, view: View) -> Iterator[Finding]:
        """Yield `begin`, new extremes and `end` of episodes."""
        n = self._count(view)
        holds = (self.at_least is None or n >= self.at_least) and (self.at_most is None or n <= self.at_most)
        seeing_ns = view.captured_ns - view.blind_ns
        if self._since is None or self._since[0] != holds:
            self._since = holds, view.captured_ns, seeing_ns
        since_ns, lasts_s = self._since[1], (seeing_ns - self._since[2]) / _NS
        is_open = self.name in self._open
        if holds and not is_open and lasts_s >= self.for_s:
            self._extreme = n
            yield from self._begin(view, self.name, self._made(view, n, since_ns, lasts_s))
        elif not holds and is_open and lasts_s >= self.clear_s:
            yield from self._end(view, self.name, since_ns)
        elif holds and is_open and (n > self._extreme if self.at_least is not None else n < self._extreme):
            self._extreme = n
            yield from self._update(view, self.name, {"count": n})

    def _count(self, view: View) -> int:
        if self._wanted is None:
            return view.occupancy[self.zone]
        inside = view.objects.inside[:, view.zones.index(self.zone)]
        return int(np.count_nonzero(inside & view.wanted(self._wanted))) if inside.any() else 0

    def _made(self, view: View, n: int, since_ns: int, lasts_s: float) -> Finding:
        limit = f"at_least {self.at_least}" if self.at_least is not None else f"at_most {self.at_most}"
        why = (f"{n} in {self.zone} ({limit}) for {lasts_s:.2f} s >= for_s {self.for_s:g}",)
        inside = view.objects.inside[:, view.zones.index(self.zone)]
        track_ids = tuple(view.objects.track_id[inside].tolist())
        made = Finding("", view.captured_ns, place=self.zone, began_ns=since_ns, track_ids=track_ids, why=why)
        return replace(made, data={"count": n})
