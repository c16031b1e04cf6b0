"""The analytics result of one frame: the current state, as immutable columns, and the findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.analytics.findings import Finding, Severity
from engine.analytics.geometry import Flags, Floats
from engine.analytics.heat import HeatTotal
from engine.analytics.motion import velocities
from engine.analytics.presence import dwell_s
from engine.analytics.relations import Relations
from engine.analytics.table import Rows
from engine.data import Tracks

Totals = Mapping[str, Mapping[str, int]]


class Stay(NamedTuple):
    """One object inside a zone: index in the columns, entry in seconds since the first frame, and seconds inside."""

    at: int
    since_s: float
    dwell_s: float
    eligible: bool


class One(NamedTuple):
    """One object as plain numbers; its filtered box is in pixels."""

    identity: int
    track_id: int
    class_id: int
    score: float
    xyxy: tuple[float, float, float, float]


class Objects:
    """The M known identities, lost ones included, in the order of birth; read-only columns, made on first access."""

    def __init__(self, rows: Rows, base_ns: int, speeds: tuple[Floats, Floats] | None) -> None:
        self._rows = rows
        self._base_ns = base_ns
        self._speeds = speeds
        self._stays: dict[int, dict[int, Stay]] = {}

    def __len__(self) -> int:
        return self._rows.count

    def _ns(self, column: str) -> NDArray[np.int64]:
        return self._base_ns + np.rint(self._rows[column] * 1e9).astype(np.int64)

    @cached_property
    def identity(self) -> NDArray[np.int64]:
        """(M,) int64, counts from 1; values are never reused."""
        return self._rows["identity"].astype(np.int64)

    @cached_property
    def track_id(self) -> NDArray[np.int64]:
        """(M,) int64, the current track of each."""
        return self._rows["track_id"].astype(np.int64)

    @cached_property
    def row(self) -> NDArray[np.int64]:
        """(M,) int64, row in the frame's tracks; -1 if absent."""
        return self._rows["row"].astype(np.int64)

    @cached_property
    def class_id(self) -> NDArray[np.int64]:
        """(M,) int64, weighted vote over all observations."""
        return self._rows["class_id"].astype(np.int64)

    @cached_property
    def score(self) -> Floats:
        """(M,) float64, of the last observation."""
        return self._rows["score"]

    @cached_property
    def xyxy(self) -> Floats:
        """(M, 4) float64, filtered box in pixels."""
        return self._rows["box"].T

    @cached_property
    def eligible(self) -> Flags:
        """(M,) bool, whether it may cause events now."""
        return self._rows["eligible"]

    @cached_property
    def parked(self) -> Flags:
        """(M,) bool, whether it appeared on the spot of a parked object and has not moved since."""
        return self._rows["parked"]

    @cached_property
    def moved(self) -> Flags:
        """(M,) bool, whether it has ever moved by half of its height."""
        return self._rows["moved"]

    @cached_property
    def first_ns(self) -> NDArray[np.int64]:
        """(M,) int64, first observation."""
        return self._ns("first_s")

    @cached_property
    def last_ns(self) -> NDArray[np.int64]:
        """(M,) int64, last observation."""
        return self._ns("last_s")

    @cached_property
    def present_ns(self) -> NDArray[np.int64]:
        """(M,) int64, last time known to be present: an observation, or a frame without motion."""
        return self._ns("present_s")

    @cached_property
    def rest_ns(self) -> NDArray[np.int64]:
        """(M,) int64, when it came to rest at its current position, within 0.3 of its height."""
        return self._ns("rest_s")

    @cached_property
    def inside(self) -> Flags:
        """(M, Z) bool, whether it counts as inside each zone."""
        return self._rows["z_told"].T

    @cached_property
    def since_ns(self) -> NDArray[np.int64]:
        """(M, Z) int64, first observation inside."""
        return self._ns("z_since").T

    @cached_property
    def dwell_s(self) -> Floats:
        """(M, Z) float64, observed seconds inside each zone; 0 outside."""
        return dwell_s(self._rows).T

    @cached_property
    def metres(self) -> Floats:
        """(M, 2) float64, position in metres on the ground of its zone; NaN if unknown."""
        return self._rows["metres"].T

    @cached_property
    def velocity(self) -> Floats:
        """(M, 2) float64, velocity of the feet in pixels per second, over about half a second."""
        return velocities(self._rows).T

    @cached_property
    def kmh(self) -> Floats:
        """(M,) float64, speed on the ground of its zone; NaN if unknown."""
        return np.full(len(self), np.nan) if self._speeds is None else self._speeds[0]

    @cached_property
    def kmh_error(self) -> Floats:
        """(M,) float64, twice the standard error of `kmh`."""
        return np.full(len(self), np.nan) if self._speeds is None else self._speeds[1]

    def stays(self, zone: int) -> dict[int, Stay]:
        """Return the objects inside a zone, given by its column, by identity."""
        if zone not in self._stays:
            self._stays[zone] = self._found(zone)
        return self._stays[zone]

    def _found(self, zone: int) -> dict[int, Stay]:
        rows = self._rows
        identity, present_s, eligible = rows["identity"], rows["present_s"], rows["eligible"]
        since, out, moving = rows["z_since"][zone], rows["z_out"][zone], rows["z_moving"][zone]
        stays = {}
        for at in rows["z_told"][zone].nonzero()[0].tolist():
            since_s = since.item(at)
            until_s = out.item(at) if moving.item(at) else present_s.item(at)
            stays[int(identity.item(at))] = Stay(at, since_s, until_s - since_s, eligible.item(at))
        return stays

    def one(self, at: int) -> One:
        """Return what is known about the object at an index."""
        track_id, identity, _, class_id, score = self._rows["who"][:, at].tolist()
        x1, y1, x2, y2 = self._rows["box"][:, at].tolist()
        return One(int(identity), int(track_id), int(class_id), score, (x1, y1, x2, y2))

    def is_absent(self, at: int) -> bool:
        """Return whether the object at an index is not in the frame's tracks."""
        return bool(self._rows["row"].item(at) < 0)

    def ns(self, seconds: float) -> int:
        """Convert seconds since the first frame, as in a `Stay`, to scene time."""
        return self._base_ns + round(seconds * 1e9)

    def seconds(self, ns: int) -> float:
        """Convert scene time to seconds since the first frame."""
        return (ns - self._base_ns) / 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What a view shows of the configuration, the model and the frame size; shared by views until it changes.

    Attributes:
        size_wh: size of the frame.
        zones: names of the zones, in the order of the columns of `Objects`.
        lines: names of the lines.
        class_names: name by class id.
        zone_corners: (V, 2) pixels of each zone.
        line_vertices: (V, 2) pixels of each line.
        rules: severity of each rule by name.
    """

    size_wh: tuple[int, int]
    zones: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    zone_corners: Sequence[Floats] = ()
    line_vertices: Sequence[Floats] = ()
    rules: Mapping[str, Severity] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """The counts that a view shows; shared by views until one changes.

    Attributes:
        occupancy: objects inside, by zone.
        visits: visits so far, by zone.
        totals: crossings so far, by line and direction.
        class_totals: the same by class.
        zone_changes: a number for each zone, which changes when an object enters or leaves it.
    """

    occupancy: Mapping[str, int] = field(default_factory=dict)
    visits: Mapping[str, int] = field(default_factory=dict)
    totals: Totals = field(default_factory=dict)
    class_totals: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    zone_changes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The scene of one source after one frame; it also has the attributes of its `setup` and its `counts`.

    Attributes:
        captured_ns: scene time of the frame.
        utc_ns: wall clock of its capture; None if unknown.
        tracks: rows of the tracker.
        objects: all known identities.
        object_of_row: (N,) int64, index into `objects` for each row of `tracks`, -1 for a row without identity.
        setup: size of the frame, places, classes and rules.
        counts: occupancy and totals.
        since_utc_ns: wall clock at which the totals began; None if unknown.
        open: `begin` findings of all open episodes.
        blind_ns: time without live frames so far.
        blind_since_ns: when the source stopped being live; None while it is live.
        was_blind: begin and end of the blind time that ended with this frame; None on all other frames.
        is_observed: the detector ran or nothing moved, so an absent object is gone or hidden, not merely unobserved.
        findings: findings of this frame.
        heat_total: what `heat` is computed from; None if heat is off.
        turnover: frames so far on which other objects were there than on the frame before.
        ended: objects that have ended so far.
    """

    captured_ns: int
    utc_ns: int | None
    tracks: Tracks
    objects: Objects
    object_of_row: NDArray[np.int64]
    setup: Setup
    counts: Counts = field(default_factory=Counts)
    since_utc_ns: int | None = None
    open: tuple[Finding, ...] = ()
    blind_ns: int = 0
    blind_since_ns: int | None = None
    was_blind: tuple[int, int] | None = None
    is_observed: bool = True
    findings: tuple[Finding, ...] = ()
    heat_total: HeatTotal | None = None
    turnover: int = 0
    ended: int = 0
    _related: list[Relations] = field(default_factory=list, repr=False)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Size of the frame."""
        return self.setup.size_wh

    @property
    def zones(self) -> tuple[str, ...]:
        """Names of the zones, in the order of the columns of `objects`."""
        return self.setup.zones

    @property
    def lines(self) -> tuple[str, ...]:
        """Names of the lines."""
        return self.setup.lines

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name by class id."""
        return self.setup.class_names

    @property
    def zone_corners(self) -> Sequence[Floats]:
        """(V, 2) pixels of each zone."""
        return self.setup.zone_corners

    @property
    def line_vertices(self) -> Sequence[Floats]:
        """(V, 2) pixels of each line."""
        return self.setup.line_vertices

    @property
    def rules(self) -> Mapping[str, Severity]:
        """Severity of each rule by name."""
        return self.setup.rules

    @property
    def occupancy(self) -> Mapping[str, int]:
        """Objects inside, by zone."""
        return self.counts.occupancy

    @property
    def visits(self) -> Mapping[str, int]:
        """Visits so far, by zone."""
        return self.counts.visits

    @property
    def totals(self) -> Totals:
        """Crossings so far, by line and direction."""
        return self.counts.totals

    @property
    def class_totals(self) -> Mapping[str, Mapping[str, Mapping[str, int]]]:
        """Crossings so far, by line, direction and class."""
        return self.counts.class_totals

    @property
    def zone_changes(self) -> Mapping[str, int]:
        """A number for each zone, which changes when an object enters or leaves it."""
        return self.counts.zone_changes

    @property
    def heat(self) -> NDArray[np.float64] | None:
        """(36, 64) float64, seconds that objects spent in each cell, at most a second old; None if heat is off."""
        return None if self.heat_total is None else self.heat_total.seconds

    @property
    def relations(self) -> Relations:
        """How the objects relate to each other: (M, M) matrices, computed on first access."""
        if not self._related:
            self._related.append(Relations.of(self.objects.xyxy, self.objects.velocity))
        return self._related[0]

    def class_name(self, class_id: int) -> str:
        """Return the name of a class, or its id as text if it has none."""
        return self.class_names[class_id] if 0 <= class_id < len(self.class_names) else str(class_id)

    def zones_of(self, row: int) -> list[str]:
        """Return the zones that the object in a row of `tracks` is inside."""
        at = int(self.object_of_row[row])
        return [] if at < 0 else [self.zones[zone] for zone in np.flatnonzero(self.objects.inside[at])]

    def columns(self) -> tuple[list[list[str]], list[float | None], list[int | None], list[bool]]:
        """Return zones, km/h, identity and parked of each row of `tracks`, as plain lists."""
        rows, objects = self.object_of_row.tolist(), self.objects
        zones: list[list[str]] = [[] for _ in rows]
        for zone, name in enumerate(self.zones):
            for stay in objects.stays(zone).values():
                at = int(objects.row[stay.at])
                if 0 <= at < len(rows):
                    zones[at].append(name)
        known = [at if at >= 0 else None for at in rows]
        speeds = [None if at is None or np.isnan(objects.kmh[at]) else round(float(objects.kmh[at]), 1) for at in known]
        identities = [None if at is None else int(objects.identity[at]) for at in known]
        return zones, speeds, identities, [at is not None and bool(objects.parked[at]) for at in known]

    def stays(self, zone: str) -> dict[int, Stay]:
        """Return the objects inside a zone, by identity."""
        return self.objects.stays(self.zones.index(zone))

    def occupancy_by_class(self, zone: str) -> dict[str, int]:
        """Return how many objects of each class are inside a zone."""
        inside = self.objects.inside[:, self.zones.index(zone)]
        ids, counts = np.unique(self.objects.class_id[inside], return_counts=True)
        return {self.class_name(int(id_)): int(count) for id_, count in zip(ids, counts, strict=True)}

    def is_wanted(self, at: int, classes: frozenset[str | int] | None) -> bool:
        """Return whether an object belongs to one of the given classes (names or ids); None: all."""
        if classes is None:
            return True
        class_id = self.objects.one(at).class_id
        return class_id in classes or self.class_name(class_id) in classes

    def wanted(self, classes: frozenset[str | int] | None) -> Flags:
        """Return (M,) bool, which objects belong to the given classes (names or ids); None: all."""
        present = set() if classes is None else set(self.objects.class_id.tolist())
        ids = [id_ for id_ in present if id_ in classes or self.class_name(id_) in classes] if classes else []
        if len(ids) == len(present):
            return np.ones(len(self.objects), np.bool_)
        return np.isin(self.objects.class_id, ids)
