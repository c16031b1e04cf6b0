"""Rules about two objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import numpy as np

from engine.analytics.findings import Finding
from engine.analytics.geometry import Floats
from engine.analytics.places import Line, Zone, check_seconds, checked_classes
from engine.analytics.relations import distances_in_heights
from engine.analytics.rules.base import Classes, Rule, Timers, about, at_least
from engine.analytics.view import View
from engine.errors import ConfigError

_NS = 1e9
UNSEEN_S = 1.0


@dataclass
class Close(Rule):
    """Two objects have been closer than a limit for `for_s`; ends when they separate.

    If one of them is unseen for up to a second, the pair keeps its last state.

    Attributes:
        heights: the limit as a multiple of the mean height of their boxes.
        metres: the limit on the ground; if a position is unknown, the pair does not count as close.
        classes: classes of one object; None: any.
        to_classes: classes of the other object; None: same as `classes`.
        zone: both must be inside it; None: anywhere.
        for_s: how long they must have been close.
    """

    kind: ClassVar[str] = "close"

    heights: float | None = None
    metres: float | None = None
    classes: Classes = None
    to_classes: Classes = None
    zone: str | None = None
    for_s: float = 1.0
    _timers: Timers = field(default_factory=Timers, init=False, repr=False, compare=False)

    def _check(self) -> None:
        check_seconds(self.where, for_s=self.for_s)
        checked_classes(self.where, self.classes)
        checked_classes(self.where, self.to_classes)
        at_least(self.where, 0, heights=self.heights, metres=self.metres)
        if (self.heights is None) == (self.metres is None):
            raise ConfigError(f"{self.where}: give one of heights and metres")

    @property
    def zone_names(self) -> tuple[str, ...]:
        """The zone that the rule uses."""
        return () if self.zone is None else (self.zone,)

    def bind(self, zones: Mapping[str, Zone], lines: Mapping[str, Line], zone_info: ZoneInfo) -> None:
        """Check that there is a ground to measure metres by. Raises `ConfigError` otherwise."""
        super().bind(zones, lines, zone_info)
        if self.metres is not None and all(zone.ground is None for zone in zones.values()):
            raise ConfigError(f"{self.where}: metres: no zone has a ground to measure by: give one, or use heights")

    def update(self, view: View) -> Iterator[Finding]:
        """Yield the `begin` and `end` of close pairs."""
        pairs = self._pairs(view)
        known = [key for key in {*self._open, *self._timers} if key not in pairs]
        unseen = self._unseen(view, known) if known else set()
        for key in known:
            if key not in unseen:
                yield from self._end(view, key, view.captured_ns)
        self._timers.keep({*pairs, *unseen})
        for key, (first, second) in pairs.items():
            since_ns = self._timers.since(key, view.captured_ns, holds=True)
            if key not in self._open and since_ns is not None and view.captured_ns - since_ns >= self.for_s * _NS:
                yield from self._begin(view, key, self._made(view, first, second, since_ns))

    def _unseen(self, view: View, keys: list[Any]) -> set[Any]:
        """Return the pairs with an object that is unseen now but was seen within the last `UNSEEN_S`."""
        objects = view.objects
        age_s = (view.captured_ns - objects.present_ns) / _NS
        hidden = (age_s > 0) & (age_s <= UNSEEN_S)
        lost, here = set(objects.identity[hidden].tolist()), set(objects.identity[age_s <= UNSEEN_S].tolist())
        return {key for key in keys if not lost.isdisjoint(key) and here.issuperset(key)}

    def _pairs(self, view: View) -> dict[tuple[int, int], tuple[int, int]]:
        """Return the close pairs as indices into `view.objects`, keyed by their identities."""
        objects = view.objects
        usable = objects.eligible & (objects.row >= 0)
        if self.zone is not None:
            usable &= objects.inside[:, view.zones.index(self.zone)]
        classes = checked_classes(self.where, self.classes)
        others = checked_classes(self.where, self.to_classes) if self.to_classes is not None else classes
        first, second = np.flatnonzero(usable & view.wanted(classes)), np.flatnonzero(usable & view.wanted(others))
        if not len(first) or not len(second):
            return {}
        near = self._distances(view)[np.ix_(first, second)] <= (self.heights or self.metres or 0.0)
        pairs = {}
        for at, other in zip(*(side.tolist() for side in np.nonzero(near)), strict=True):
            a, b = int(first[at]), int(second[other])
            one, two = int(objects.identity[a]), int(objects.identity[b])
            if one != two:
                pairs[min(one, two), max(one, two)] = (a, b) if one < two else (b, a)
        return pairs

    def _distances(self, view: View) -> Floats:
        if self.heights is not None:
            return distances_in_heights(view.objects.xyxy)
        metres = view.objects.metres
        gap: Floats = np.hypot(*(metres[:, None, :] - metres).transpose(2, 0, 1))
        return np.where(np.isnan(gap), np.inf, gap)

    def _made(self, view: View, first: int, second: int, since_ns: int) -> Finding:
        gap = float(self._distances(view)[first, second])
        unit = "heights" if self.heights is not None else "m"
        why = (f"{gap:.2f} {unit} apart <= {self.heights or self.metres:g} for {self.for_s:g} s",)
        made = about(view, first, place=self.zone or "", began_ns=since_ns, why=why)
        other = int(view.objects.track_id[second])
        return replace(
            made, track_ids=(*made.track_ids, other), data={"other_identity": int(view.objects.identity[second])}
        )
