"""Turn changes into findings: an object's actions are held until it is eligible, then counted once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from engine.analytics import presence
from engine.analytics.counters import Counters
from engine.analytics.crossing import Crossing
from engine.analytics.findings import Finding
from engine.analytics.geometry import Floats
from engine.analytics.places import Line, Place, Zone
from engine.analytics.scene import Changes, Scene
from engine.analytics.table import Index
from engine.analytics.view import Counts
from engine.errors import ConfigError

Facts = dict[str, Any]
"""Attributes of a finding by name."""


class Teller:
    """Turns scene changes into findings, and counts them."""

    def __init__(self, scene: Scene, counters: Counters) -> None:
        self._scene = scene
        self._counters = counters
        self._pending: dict[int, list[Facts]] = {}
        self._zones: tuple[Zone, ...] = ()
        self._lines: tuple[Line, ...] = ()
        self._zone_at: dict[str, int] = {}
        self._line_at: dict[str, int] = {}
        self._named: tuple[Place, str] | None = None
        self._changes = 0
        self.zone_changes: dict[str, int] = {}
        self.class_names: tuple[str, ...] = ()

    def take_places(self, zones: Sequence[Zone], lines: Sequence[Line]) -> None:
        """Report on these places from now on."""
        self._zones, self._lines = tuple(zones), tuple(lines)
        self._zone_at = {zone.name: index for index, zone in enumerate(zones)}
        self._line_at = {line.name: index for index, line in enumerate(lines)}
        self._changes += 1
        self.zone_changes = dict.fromkeys(self._zone_at, self._changes)
        self._named = _first_named((*zones, *lines))

    def class_name(self, class_id: int) -> str:
        """Return the name of a class, or its id as text if it has none."""
        return self.class_names[class_id] if 0 <= class_id < len(self.class_names) else str(class_id)

    def check_class_names(self) -> None:
        """Raise `ConfigError` if a place selects classes by name and no names are known."""
        if self._named is None or self.class_names:
            return
        place, named = self._named
        raise ConfigError(
            f"{type(place).__name__.lower()} {place.name} wants class {named!r}, and the names of the "
            "classes are not known: give Analytics class_names, or classes as numbers"
        )

    def _wants(self, place: Place, class_id: int) -> bool:
        return place.classes is None or class_id in place.classes or self.class_name(class_id) in place.classes

    def tell(self, changes: Changes, now_ns: int) -> list[Finding]:
        """Return the findings to report now; the rest waits for its object to become eligible."""
        for line, count in changes.dithers.items():
            self._counters.dithers[self._lines[line].name] += count
        told: list[Finding] = []
        if changes.visits or changes.crossings:
            told = self._sort_out(changes, now_ns)
        if self._pending:
            told += self._release(now_ns)
        return told

    def _sort_out(self, changes: Changes, now_ns: int) -> list[Finding]:
        """Return the ends of visits already reported; hold everything else back."""
        rows = self._scene.rows
        made = [self._of_visit(visit) for visit in changes.visits]
        made += [self._of_crossing(crossing) for crossing in changes.crossings]
        told: list[Finding] = []
        for row, facts in sorted(made, key=lambda pair: pair[1].get("ended_ns") or pair[1]["began_ns"]):
            if facts["event"] == "zone_left" and rows["z_told"][self._zone_at[facts["place"]], row]:
                told += self._count(row, facts, now_ns)
            else:
                self._pending.setdefault(facts["identity"], []).append(facts)
        return told

    def _release(self, now_ns: int) -> list[Finding]:
        """Return the held findings of objects that are now eligible."""
        rows = self._scene.rows
        identities, told = rows["identity"].tolist(), list[Finding]()
        for identity in sorted(self._pending):
            row = bisect_left(identities, identity)  # rows are in the order of birth
            if rows["eligible"].item(row):
                for facts in self._pending.pop(identity):
                    told += self._count(row, facts, now_ns)
        return told

    def _count(self, row: int, facts: Facts, now_ns: int) -> Iterator[Finding]:
        """Count and yield a finding if its place includes the object's class."""
        class_id = int(self._scene.rows["class_id"].item(row))
        name = self.class_name(class_id)
        finding = Finding(captured_ns=now_ns, class_id=class_id, class_name=name, **facts)
        if finding.event == "line_crossed":
            return self._count_crossing(row, finding, self._line_at[finding.place])
        return self._count_visit(row, finding, self._zone_at[finding.place])

    def _count_crossing(self, row: int, finding: Finding, line: int) -> Iterator[Finding]:
        counted = self._scene.rows["l_counted"]
        direction = self._lines[line].directions.index(finding.direction)
        again = self._lines[line].once and counted[line, direction, row]
        if again or not self._wants(self._lines[line], finding.class_id or 0):
            return
        counted[line, direction, row] = True
        self._counters.crossings[finding.place][finding.direction][finding.class_name] += 1
        yield finding

    def _count_visit(self, row: int, finding: Finding, zone: int) -> Iterator[Finding]:
        told = self._scene.rows["z_told"]
        if finding.event == "zone_entered" and self._wants(self._zones[zone], finding.class_id or 0):
            self._set_told(zone, row, finding.place, is_inside=True)
            self._counters.visits[finding.place][finding.class_name] += 1
            yield finding
        elif finding.event == "zone_left" and told[zone, row]:
            self._set_told(zone, row, finding.place, is_inside=False)
            self._counters.dwell[finding.place].add(finding.duration_s or 0.0)
            yield finding

    def _set_told(self, zone: int, row: int, name: str, *, is_inside: bool) -> None:
        self._scene.rows["z_told"][zone, row] = is_inside
        self._changes += 1
        self.zone_changes[name] = self._changes

    def inside(self, zone: str) -> int:
        """Return how many objects are inside a zone."""
        return int(np.count_nonzero(self._scene.rows["z_told"][self._zone_at[zone]]))

    def _made(self, event: str, row: int, place: str, **more: Any) -> tuple[int, Facts]:
        """Return a row and the facts of its finding, except for those known only when it is reported."""
        rows = self._scene.rows
        track_id, identity, _, _, score = rows["who"][:, row].tolist()
        x1, y1, x2, y2 = rows["box"][:, row].tolist()
        return row, {
            "event": event,
            "place": place,
            "identity": int(identity),
            "track_ids": (int(track_id),),
            "score": round(score, 4),
            "xyxy": (round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)),
            **more,
        }

    def _of_visit(self, visit: presence.Visit, reason: str = "") -> tuple[int, Facts]:
        entered_s, left_s = visit.entered_s, visit.left_s
        more: Facts = {"began_ns": self._scene.nanoseconds(entered_s)}
        if visit.kind == "left":
            more["data"] = {"dwell_s": round(left_s - entered_s, 3)}
            more["ended_ns"], more["reason"] = self._scene.nanoseconds(left_s), reason
        return self._made(f"zone_{visit.kind}", visit.row, self._zones[visit.zone].name, **more)

    def _of_crossing(self, found: Crossing) -> tuple[int, Facts]:
        line = self._lines[found.line]
        return self._made(
            "line_crossed",
            found.row,
            line.name,
            began_ns=self._scene.nanoseconds(found.seconds),
            at=(round(found.at[0], 2), round(found.at[1], 2)),
            direction=line.directions[found.direction],
            data={"speed_h": round(found.speed_h, 3), "inferred": found.inferred},
        )

    def settle(self, index: Index, now_ns: int) -> list[Finding]:
        """Return the crossings of eligible identities, (K,) rows, that only their last boxes show."""
        told: list[Finding] = []
        for found in self._scene.end_paths(index):
            if self._scene.rows["eligible"].item(found.row):
                told += self._count(*self._of_crossing(found), now_ns)
        self._counters.has_news |= bool(told)
        return told

    def bury(self, gone: Index, now_ns: int, reason: str) -> list[Finding]:
        """End the identities of (K,) rows: return the ends of their visits, and drop their held findings."""
        if not len(gone):
            return []
        told = self.settle(gone, now_ns)
        for row in gone.tolist():
            self._pending.pop(int(self._scene.rows["identity"][row]), None)
            for visit in presence.close(self._scene.rows, row):
                told += self._count(*self._of_visit(visit, reason), now_ns)
        self._scene.remove(gone)
        return told

    def drop_place(self, place: Place, now_ns: int) -> list[Finding]:
        """End the visits of a removed zone, and drop the totals and held findings of the removed place."""
        told: list[Finding] = []
        if isinstance(place, Zone):
            for visit in presence.visits_of(self._scene.rows, self._zone_at[place.name]):
                told += self._count(*self._of_visit(visit, "places_changed"), now_ns)
        for identity, waiting in self._pending.items():
            self._pending[identity] = [facts for facts in waiting if facts["place"] != place.name]
        self._counters.forget_place(place.name, is_zone=isinstance(place, Zone))
        return told

    def summary(self) -> dict[str, Any]:
        """Return the totals of lines, zones and rules as printed in a run's summary."""
        counters, dwell_s = self._counters, presence.dwell_s(self._scene.rows)
        return {
            "lines": counters.totals(),
            "zones": {zone.name: self._zone_summary(zone.name, at, dwell_s[at]) for at, zone in enumerate(self._zones)},
            "rules": dict(counters.rules),
            "blind_s": round(counters.blind_ns / 1e9, 3),
        }

    def _zone_summary(self, name: str, zone: int, dwell_s: Floats) -> dict[str, Any]:
        rows, dwell = self._scene.rows, self._counters.dwell[name]
        told = rows["z_told"][zone]
        running = dwell_s[told].tolist()
        return {
            "visits": self._counters.visits[name].total(),
            "now": int(np.count_nonzero(told & ~rows["ended"])),
            "dwell_s": {
                "p50": round(dwell.median_s(running), 3),
                "max": round(max([dwell.max_s, *running]), 3),
                "sum": round(dwell.total_s + sum(running), 3),
            },
        }


def _first_named(places: Sequence[Place]) -> tuple[Place, str] | None:
    """Return the first place that selects a class by name, and the name."""
    for place in places:
        for wanted in place.classes or ():
            if isinstance(wanted, str) and not wanted.isdigit():
                return place, wanted
    return None


class Figures:
    """The totals as the views show them, updated only where something happened."""

    def __init__(self, scene: Scene, counters: Counters, teller: Teller) -> None:
        self._scene, self._counters, self._teller = scene, counters, teller
        self._is_outdated = True
        self.counts = Counts()

    def forget(self) -> None:
        """Recompute everything for the next view."""
        self._is_outdated = True

    def update(self, findings: Sequence[Finding]) -> None:
        """Bring up to date what the findings of a frame about places have changed."""
        if not (findings or self._is_outdated or self._counters.has_news):
            return
        counters, teller = self._counters, self._teller
        if counters.take_news() or self._is_outdated:
            self._is_outdated = False
            self.counts = Counts(
                {zone: teller.inside(zone) for zone in teller.zone_changes},
                {zone: counts.total() for zone, counts in counters.visits.items()},
                counters.totals(),
                counters.by_class(),
                dict(teller.zone_changes),
            )
            return
        now = self.counts
        totals, by_class, visits = now.totals, now.class_totals, now.visits
        occupancy, changes = now.occupancy, now.zone_changes
        for place in {finding.place for finding in findings if finding.event == "line_crossed"}:
            counts = counters.crossings[place]
            totals = {**totals, place: {name: n.total() for name, n in counts.items()}}
            by_class = {**by_class, place: {name: dict(n) for name, n in counts.items()}}
        for place in {finding.place for finding in findings if finding.event in ("zone_entered", "zone_left")}:
            visits = {**visits, place: counters.visits[place].total()}
            occupancy = {**occupancy, place: teller.inside(place)}
            changes = {**changes, place: teller.zone_changes[place]}
        self.counts = Counts(occupancy, visits, totals, by_class, changes)
