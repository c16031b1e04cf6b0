"""Rules about things: left behind by their bringer, or removed from where they stood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from engine.analytics.findings import Finding
from engine.analytics.geometry import Floats
from engine.analytics.motion import feet
from engine.analytics.places import check_seconds, checked_classes
from engine.analytics.rules.base import Classes, Rule, about, at_least
from engine.analytics.table import Index
from engine.analytics.view import View

_NS = 1e9
NEAR_HEIGHTS = 0.75
"""The owner this close to a thing when it first appears is its bringer; in multiples of the owner's height."""
_COVERED = 0.3
_SAME_PLACE = 0.5


@dataclass(slots=True)
class _Thing:
    """State of one thing: its bringer, and since when the bringer has been away."""

    bringer: int | None = None
    gap: float = np.inf
    away_ns: int | None = None


@dataclass
class LeftBehind(Rule):
    """A thing has stood for `for_s` and its bringer has been away that long; ends when either changes.

    The bringer is the object of `owners` closest to the thing between its first observation and its rest. A thing
    without a bringer, because it was there from the start, does not count as left behind.

    Attributes:
        classes: classes of the things.
        owners: classes of the possible bringers.
        for_s: how long the thing must stand without its bringer.
        away_heights: how far away the bringer must be, in multiples of the bringer's height.
        zone: where the thing must be; None: anywhere.
    """

    kind: ClassVar[str] = "left_behind"

    classes: Classes = field(default=("backpack", "handbag", "suitcase"), kw_only=True)
    owners: Classes = field(default=("person",), kw_only=True)
    for_s: float = 30.0
    away_heights: float = 2.0
    zone: str | None = None
    _things: dict[int, _Thing] = field(default_factory=dict, init=False, repr=False, compare=False)

    def _check(self) -> None:
        check_seconds(self.where, for_s=self.for_s)
        checked_classes(self.where, self.classes)
        checked_classes(self.where, self.owners)
        at_least(self.where, 0.1, away_heights=self.away_heights)

    @property
    def zone_names(self) -> tuple[str, ...]:
        """The zone that the rule uses."""
        return () if self.zone is None else (self.zone,)

    def update(self, view: View) -> Iterator[Finding]:
        """Yield begins and ends."""
        objects = view.objects
        wanted = view.wanted(checked_classes(self.where, self.classes))
        if not wanted.any() and not self._things:
            return
        owners = np.flatnonzero(view.wanted(checked_classes(self.where, self.owners)) & ~wanted)
        present = {int(objects.identity[at]): at for at in np.flatnonzero(wanted).tolist()}
        for identity in [identity for identity in self._things if identity not in present]:
            del self._things[identity]
            yield from self._end(view, identity, view.captured_ns, "object_gone")
        for identity, at in present.items():
            yield from self._look(view, identity, at, owners)

    def _look(self, view: View, identity: int, at: int, owners: Index) -> Iterator[Finding]:
        objects = view.objects
        thing = self._things.setdefault(identity, _Thing())
        gaps = _gaps(objects.xyxy[at], objects.xyxy[owners])
        rests_s = (objects.present_ns[at] - objects.rest_ns[at]) / _NS
        if rests_s < self.for_s / 2 and len(owners) and gaps.min() <= min(NEAR_HEIGHTS, thing.gap):
            thing.gap, thing.bringer = float(gaps.min()), int(objects.identity[owners[gaps.argmin()]])
        if thing.bringer is None:
            return
        is_near = bool(((objects.identity[owners] == thing.bringer) & (gaps < self.away_heights)).any())
        thing.away_ns = None if is_near else thing.away_ns or view.captured_ns
        stands = rests_s >= self.for_s and self._is_here(view, at)
        if thing.away_ns is None or not stands:
            yield from self._end(view, identity, view.captured_ns, "bringer_returned" if is_near else "moved")
            return
        away_s = (view.captured_ns - thing.away_ns) / _NS
        if identity not in self._open and objects.eligible[at] and away_s >= self.for_s:
            why = (f"stands for {rests_s:.1f} s, bringer away for {away_s:.1f} s >= for_s {self.for_s:g}",)
            made = about(
                view, at, place=self.zone or "", began_ns=max(int(objects.rest_ns[at]), thing.away_ns), why=why
            )
            yield from self._begin(view, identity, replace(made, data={"bringer": thing.bringer}))

    def _is_here(self, view: View, at: int) -> bool:
        return self.zone is None or bool(view.objects.inside[at, view.zones.index(self.zone)])


def _gaps(thing: Floats, owners: Floats) -> Floats:
    """Return (N,) distances of a thing's feet from each owner's box, in heights of the owner; 0 within the box."""
    x, y = feet(thing[:, None])[:, 0]
    aside = np.maximum(np.maximum(owners[:, 0] - x, x - owners[:, 2]), 0)
    beyond = np.maximum(np.maximum(owners[:, 1] - y, y - owners[:, 3]), 0)
    gaps: Floats = np.hypot(aside, beyond) / np.maximum(owners[:, 3] - owners[:, 1], 1e-6)
    return gaps


@dataclass
class Removed(Rule):
    """A thing that had stood for `stood_s` has been gone for `for_s`: a point, not an episode.

    It counts as present while another object covers its place, and when it reappears there as a new track.

    Attributes:
        classes: classes of the things.
        stood_s: how long it must have stood.
        for_s: how long it must be gone.
        zone: where it must have stood; None: anywhere.
    """

    kind: ClassVar[str] = "removed"

    classes: Classes = field(kw_only=True)
    stood_s: float = 60.0
    for_s: float = 5.0
    zone: str | None = None
    _standing: dict[int, Finding] = field(default_factory=dict, init=False, repr=False, compare=False)
    _gone_ns: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def _check(self) -> None:
        check_seconds(self.where, for_s=self.for_s, stood_s=self.stood_s)
        checked_classes(self.where, self.classes)

    @property
    def zone_names(self) -> tuple[str, ...]:
        """The zone that the rule uses."""
        return () if self.zone is None else (self.zone,)

    def update(self, view: View) -> Iterator[Finding]:
        """Yield the things that are gone."""
        objects = view.objects
        wanted = view.wanted(checked_classes(self.where, self.classes))
        if not view.is_observed or (not self._standing and not wanted.any()):
            return
        here = np.flatnonzero(wanted & (objects.present_ns == view.captured_ns)).tolist()
        for at in here:
            self._note(view, at)
        for identity, finding in list(self._standing.items()):
            yield from self._look(view, identity, finding, here)

    def _note(self, view: View, at: int) -> None:
        """Record a standing thing and its position."""
        objects, identity = view.objects, int(view.objects.identity[at])
        rests_s = (objects.present_ns[at] - objects.rest_ns[at]) / _NS
        inside = self.zone is None or objects.inside[at, view.zones.index(self.zone)]
        if rests_s >= self.stood_s and objects.eligible[at] | objects.parked[at] and inside:
            why = (f"stood for {rests_s:.1f} s >= stood_s {self.stood_s:g}",)
            self._standing[identity] = about(
                view, at, place=self.zone or "", began_ns=int(objects.rest_ns[at]), why=why
            )

    def _look(self, view: View, identity: int, finding: Finding, here: list[int]) -> Iterator[Finding]:
        box = np.array(finding.xyxy)
        boxes = view.objects.xyxy
        same = [at for at in here if _overlap(box, boxes[at]) >= _SAME_PLACE]
        if same:
            self._gone_ns.pop(identity, None)
            new = int(view.objects.identity[same[0]])
            if new != identity and identity not in view.objects.identity:
                self._standing[new] = replace(self._standing.pop(identity), identity=new)
            return
        present = np.flatnonzero(view.objects.present_ns == view.captured_ns).tolist()
        if any(_overlap(box, boxes[at]) >= _COVERED for at in present if view.objects.identity[at] != identity):
            self._gone_ns.pop(identity, None)
            return
        since_ns = self._gone_ns.setdefault(identity, view.captured_ns)
        if view.captured_ns - since_ns >= self.for_s * _NS:
            del self._standing[identity], self._gone_ns[identity]
            why = (*finding.why, f"gone for {(view.captured_ns - since_ns) / _NS:.1f} s >= for_s {self.for_s:g}")
            yield from self._point(view, finding, captured_ns=view.captured_ns, ended_ns=since_ns, why=why)


def _overlap(place: Floats, box: Floats) -> float:
    """Return the fraction of a place that a box covers."""
    wide = min(place[2], box[2]) - max(place[0], box[0])
    tall = min(place[3], box[3]) - max(place[1], box[1])
    size = max((place[2] - place[0]) * (place[3] - place[1]), 1e-6)
    return float(max(wide, 0.0) * max(tall, 0.0) / size)
