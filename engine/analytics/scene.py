"""The state of one source's scene: processes the tracks of a frame and returns what changed at its places."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import sub
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.analytics import crossing, presence
from engine.analytics.geometry import ZERO, Flags, Floats, any_of
from engine.analytics.heat import Heat
from engine.analytics.identity import (
    SHADOW_S,
    STITCH_S,
    Eligibility,
    ParkedSpots,
    note_observed,
    note_parked,
    shadows,
    stitched,
)
from engine.analytics.layout import LineLayout, ZoneLayout
from engine.analytics.motion import Pose, advance, begin_path, believable, ground_speeds, on_ground
from engine.analytics.places import Line, Place, Size, Zone
from engine.analytics.table import NEVER_S, Index, Rows, Table
from engine.analytics.view import Objects
from engine.data import Tracks

ASPECT_TOLERANCE = 0.02
MOST_PX = 1e6
"""Larger boxes are not valid measurements; nor are NaN and infinity."""
PARKED_EVERY_S = 0.5
ROUNDING_S = 1e-9
MOST_SCRATCH = 64
NO_ROWS: Index = np.zeros(0, np.intp)
NO_ROW = -1
_FEW_NUMBERS: Index = np.arange(256)
Row = int


def _numbers(count: int) -> Index:
    """Return the numbers from 0; do not change them."""
    return _FEW_NUMBERS[:count] if count <= len(_FEW_NUMBERS) else np.arange(count)


def checked_scene(state: Mapping[str, Any]) -> Size | None:
    """Return the frame size of a saved state whose heat and parked objects can be restored.

    Raises:
        KeyError, TypeError, ValueError, IndexError, AttributeError: they cannot be restored.
    """
    ParkedSpots().restore(state["parked"], 0.0)
    Heat().restore(state["heat"])
    size = state["size_wh"]
    return None if size is None else (int(size[0]), int(size[1]))


@dataclass(slots=True)
class Changes:
    """Changes caused by one frame. Rows refer to the scene's table and are valid until the next call."""

    visits: list[presence.Visit]
    crossings: list[crossing.Crossing]
    dithers: dict[int, int]
    stitched: list[Row]


@dataclass(slots=True, eq=False)
class Seen:
    """The N observations of one frame.

    Attributes:
        of_row: (N,) their rows in the tracks.
        box: (4, N) float64.
        class_id: (N,) float64.
        score: (N,) float64.
        edges: the four rows of `box` as lists.
        least_tall: height of the lowest box.
    """

    of_row: Index
    box: Floats
    class_id: Floats
    score: Floats
    edges: list[list[float]]
    least_tall: float

    def chosen(self, rows: Index | Flags) -> Seen:
        """Return some of the rows."""
        parts = self.of_row[rows], self.box[:, rows], self.class_id[rows], self.score[rows]
        return Seen(*parts, self.edges, self.least_tall)


class Scene:
    """Objects and places of one source; pure state, driven by the times passed in."""

    def __init__(
        self, zones: Sequence[Zone], lines: Sequence[Line], eligibility: Eligibility, *, heat: bool, forget_s: float
    ) -> None:
        self._zones, self._lines = tuple(zones), tuple(lines)
        self._eligibility = eligibility
        self._forget_s = forget_s
        self._first_wh: Size | None = None
        self._size_wh: Size | None = None
        self._base_ns: int | None = None
        self._knows_detections = False
        self._parked_s = self._shadowed_s = NEVER_S
        self._newest_s = NEVER_S  # first observation of the newest object
        self._seen_s = self._seen_before_s = NEVER_S  # the last two frames with observations
        self._scratch: dict[int, Rows] = {}
        self._late: list[crossing.Crossing] = []  # of paths that ended before this frame
        self._ids: list[int] | None = None
        self._checked: tuple[list[int], bool] = [], True
        self._is_whole = self._has_back = self._has_parked = self._is_open = self._begins = False
        self._due_s = NEVER_S
        self.turnover = self.ended = 0
        self.table = Table(len(zones), len(lines))
        self.spots = ParkedSpots()
        self.heat = Heat() if heat else None
        self.object_of_row: NDArray[np.int64] = np.zeros(0, np.int64)
        self._lay_out((1, 1))

    @property
    def rows(self) -> Rows:
        """The table's rows."""
        return self.table.rows

    @property
    def size_wh(self) -> Size | None:
        """Size of the newest frame; None before the first frame."""
        return self._size_wh

    def seconds(self, ns: int) -> float:
        """Convert a time to the table's unit, seconds since the first frame."""
        if self._base_ns is None:
            self._base_ns = ns
        return (ns - self._base_ns) / 1e9

    def nanoseconds(self, seconds: float) -> int:
        """Return scene time again."""
        return (self._base_ns or 0) + round(seconds * 1e9)

    def _lay_out(self, size_wh: Size) -> None:
        first_wh = self._first_wh or size_wh
        self.zone_layout = ZoneLayout(self._zones, first_wh, size_wh)
        self.line_layout = LineLayout(self._lines, first_wh, size_wh)
        self._has_ground = any(plane is not None for plane in self.zone_layout.planes)

    def restore_spots(self, parked: list[list[float]], parked_wh: Size | None, size_wh: Size, now_s: float) -> None:
        """Adopt the parked objects of a saved state, whose frames had the size `parked_wh`."""
        self.fit(parked_wh or size_wh)
        self.spots.restore(parked, now_s)

    def fit(self, size_wh: Size) -> None:
        """Prepare for frames of this size; stored pixel positions are scaled."""
        if size_wh == self._size_wh:
            return
        if self._size_wh is not None:
            by_x, by_y = size_wh[0] / self._size_wh[0], size_wh[1] / self._size_wh[1]
            self.table.stretch(by_x, by_y)
            self.spots.stretch(by_x, by_y)
        self._first_wh = self._first_wh or size_wh
        self._size_wh = size_wh
        self._lay_out(size_wh)

    def mismatch(self) -> str:
        """Describe how the frame's aspect ratio differs from that of the image the places were drawn on.

        Empty if it does not.
        """
        if self._size_wh is None or self._first_wh is None:
            return ""
        width, height = self._size_wh
        places: list[Place] = [*self._zones, *self._lines]
        for place in places:
            drawn = place.size_wh or self._first_wh
            if abs(width * drawn[1] / (height * drawn[0]) - 1) > ASPECT_TOLERANCE:
                return f"zones were drawn on {drawn[0]}x{drawn[1]}, the image is {width}x{height}"
        return ""

    def change(self, zones: Sequence[Zone], lines: Sequence[Line]) -> None:
        """Replace the places; those equal to an old one keep their state."""
        zones_kept = [self._zones.index(zone) if zone in self._zones else -1 for zone in zones]
        lines_kept = [self._lines.index(line) if line in self._lines else -1 for line in lines]
        self.table.rearrange(zones_kept, lines_kept)
        self._scratch.clear()
        self._is_open = True
        self._zones, self._lines = tuple(zones), tuple(lines)
        self._lay_out(self._size_wh or (1, 1))

    def advance(self, tracks: Tracks, now_s: float, *, is_detected: bool, is_held: bool) -> Changes:
        """Process the tracks of one frame; `now_s` is a time returned by `seconds`."""
        ids = tracks.track_id.tolist()
        seen = self._seen(tracks, ids) if is_detected and not is_held else None
        born = self._place_rows(ids, seen, now_s)
        if is_held:
            self.rows["present_s"][self.rows["row"] >= 0] = now_s
        if seen is None or not len(seen.of_row):
            return Changes([], [], {}, born)
        return self._observe(seen, now_s, born)

    def _seen(self, tracks: Tracks, ids: list[int]) -> Seen:
        """Return the observations of this frame; all valid rows count if the tracker never sets `detection_index`."""
        box, detected = tracks.xyxy.T.astype(np.float64, order="C"), tracks.detection_index
        if not self._knows_detections:
            self._knows_detections = any_of(detected >= 0)
        if self._checked[0] != ids:
            self._checked = ids, len(set(ids)) == len(ids) and min(ids, default=0) >= 0
        class_id, score = tracks.class_id.astype(np.float64), tracks.score.astype(np.float64)
        left, top, right, bottom = edges = box.tolist()
        width, height = list(map(sub, right, left)), list(map(sub, bottom, top))
        least_tall = min(height, default=1.0)
        # also False if a size is infinite or NaN
        valid = min(width, default=1.0) > 0 and least_tall > 0 and sum(width) + sum(height) < MOST_PX
        if valid and self._checked[1] and not (self._knows_detections and min(detected.tolist(), default=0) < 0):
            return Seen(_numbers(len(ids)), box, class_id, score, edges, least_tall)
        size = box[2:] - box[:2]
        usable = (detected >= 0) | (not self._knows_detections)
        usable &= (size.min(axis=0) > 0) & (size.max(axis=0) < MOST_PX) & (tracks.track_id >= 0)
        rows = usable.nonzero()[0]
        if len(set(tracks.track_id[rows].tolist())) != len(rows):
            rows = rows[np.sort(np.unique(tracks.track_id[rows], return_index=True)[1])]
        box = box[:, rows]
        return Seen(rows, box, class_id[rows], score[rows], box.tolist(), min(size[1, rows].tolist(), default=0.0))

    def _place_rows(self, ids: list[int], seen: Seen | None, now_s: float) -> list[Row]:
        """Find or create the identity of each row of the tracks, and return the rows that were stitched."""
        self._has_back = self._ids != ids
        if not self._has_back:
            return []
        self.turnover += 1
        found = list(map(self.table.row_of.get, ids, repeat(NO_ROW)))
        continued = self._born(ids, found, seen, now_s) if NO_ROW in found and seen is not None else []
        rows, of_row = self.table.rows, np.array(found, np.int64)
        column = rows["row"]
        np.less(column, ZERO, out=rows["absent"])
        column.fill(NO_ROW)
        self.object_of_row = of_row
        if NO_ROW in found:
            self._ids, at = None, (of_row >= 0).nonzero()[0]
            column[of_row[at]] = at
        else:
            self._ids = ids
            column[of_row] = _numbers(len(ids))
        self._is_whole = len(ids) == rows.count and found == list(range(len(ids)))
        self._due_s = NEVER_S
        return continued

    def _born(self, ids: list[int], found: list[Row], seen: Seen, now_s: float) -> list[Row]:
        """Set in `found` the table rows of new tracks, and return those that continue an old identity."""
        observed = seen.of_row.tolist()
        fresh = [n for n, at in enumerate(observed) if found[at] == NO_ROW]
        if not fresh:
            return []
        new, new_ids = seen.chosen(np.array(fresh, np.intp)), [ids[observed[n]] for n in fresh]
        rows = stitched(self.rows, {found[at] for at in observed}, new.box, new.class_id, now_s)
        for track_id, row in zip(new_ids, rows, strict=True):
            if row != NO_ROW:
                self.table.rename(row, track_id)
                self.rows["ended"][row] = False
        continued = [row for row in rows if row != NO_ROW]
        if continued:
            self._late = self.end_paths(np.array(continued, np.intp))
            begin_path(self.rows, np.array(continued, np.intp))
        self._begins = True
        unknown = [number for number, row in enumerate(rows) if row == NO_ROW]
        if unknown:
            added = self.table.add([new_ids[number] for number in unknown])
            self._note_births(slice(added.start, added.stop), new.chosen(np.array(unknown, np.intp)), now_s)
            for number, row in zip(unknown, added, strict=True):
                rows[number] = row
        for n, row in zip(fresh, rows, strict=True):
            found[observed[n]] = row
        return continued

    def _note_births(self, born: slice, new: Seen, now_s: float) -> None:
        rows = self.rows
        rows["first_s"][born] = rows["last_s"][born] = self._newest_s = now_s
        rows["newest_box"][:, born] = new.box
        rows["class_id"][born] = new.class_id
        if not len(self.spots):
            return
        spots = self.spots.find(new.box)
        rows["spot"][born] = spots
        rows["parked"][born] = spots >= 0
        self._has_parked |= bool((spots >= 0).any())
        for number in spots[spots >= 0].tolist():
            self.spots.use(number, now_s)

    def _observe(self, seen: Seen, now_s: float, born: list[Row]) -> Changes:
        """Update the observed rows: take them out of the table, change them in place, put them back."""
        index = self.object_of_row if len(seen.of_row) == len(self.object_of_row) else self.object_of_row[seen.of_row]
        rows = self._taken(index)
        is_shadow = shadows(seen.box, seen.class_id, seen.score, seen.edges)
        if is_shadow is not None:
            rows["shadow_s"][is_shadow] = self._shadowed_s = now_s
        believed = believable(rows, seen.box, now_s, least_tall=seen.least_tall, least_s=now_s - self._seen_s)
        if believed is not None:
            self._begins = True
            self.rows.put(index, rows)
            index, seen = index[believed], seen.chosen(believed)
            rows = self.rows.take(index)
        begins = self._begins
        pose = self._follow(rows, index, seen, now_s)
        changes, self._late = Changes([], self._late, {}, born), []
        zones, lines = self.zone_layout, self.line_layout
        if self._zones:
            where = zones.locate(rows["box"], pose.feet, pose.tall)
            changes.visits = presence.step(rows, index, where, enter_s=zones.enter_s, leave_s=zones.leave_s)
        if self._lines:
            is_open = self._is_open or begins
            stepped = crossing.step(rows, self.table.paths, index, lines, pose.tall, begins=is_open)
            changes.crossings, changes.dithers = changes.crossings + stepped.crossings, stepped.dithers
        self.table.rows.put(index, rows)
        if self._lines and is_open:
            self._is_open = any_of(self.rows["l_far"] == 0)
        return changes

    def _taken(self, index: Index) -> Rows:
        """Return the columns of some objects: those of the table if they are all of it, else a copy."""
        rows, count = self.table.rows, len(index)
        if self._is_whole and count == rows.count:
            return rows
        if count not in self._scratch and len(self._scratch) >= MOST_SCRATCH:
            self._scratch.clear()
        taken = self._scratch[count] = rows.take(index, self._scratch.get(count))
        return taken

    def _follow(self, rows: Rows, index: Index, seen: Seen, now_s: float) -> Pose:
        """Update the state of the observed objects, except for places."""
        assert self._size_wh is not None
        paths = self.table.paths
        note_observed(rows, seen.class_id, seen.score)
        pose = advance(rows, seen.box, now_s, third_s=self._seen_before_s, begins=self._begins)
        self._seen_s, self._seen_before_s, self._begins = now_s, self._seen_s, False
        if self._lines:
            paths.add(index, rows["point"])
        if self._has_back and any_of(rows["absent"]):
            back = rows["absent"] & (rows["hits"] > 1)
            rows["gap_seq"][back] = rows["seq"][back]
        if self._has_ground:
            on_ground(rows, paths, index, now_s, self.zone_layout.planes)
        if self.heat is not None:
            self.heat.add(rows["class_id"], pose.feet, rows["last_s"], now_s, self._size_wh)
        rows["seen_s"].fill(now_s)
        if now_s - self._parked_s >= PARKED_EVERY_S:
            self._parked_s = now_s
            note_parked(rows, self.spots, now_s)
        height, is_shadowed = self._size_wh[1], now_s - self._shadowed_s <= 2 * SHADOW_S
        self._eligibility.note(
            rows, height, now_s, newest_s=self._newest_s, is_shadowed=is_shadowed, has_parked=self._has_parked
        )
        return pose

    def end_paths(self, index: Index) -> list[crossing.Crossing]:
        """Return the crossings that only the last boxes of (K,) rows show; their paths end here."""
        return crossing.at_end(self.rows, self.table.paths, index, self.line_layout)

    def end(self, track_ids: Iterable[int]) -> None:
        """Record that the tracker has ended these tracks; their identities live on while they may still be stitched."""
        for track_id in track_ids:
            row = self.table.row_of.get(track_id)
            if row is not None:
                self.rows["ended"][row] = True
                self._due_s = NEVER_S

    def gone(self, now_s: float) -> Index:
        """Return the (K,) rows whose identity has ended, to be reported and then removed."""
        if now_s < self._due_s:
            return NO_ROWS
        rows, over, due_s = self.table.rows, [], math.inf
        for row in (rows["row"] < ZERO).nonzero()[0].tolist():
            present_s, is_ended = rows["present_s"].item(row), rows["ended"].item(row)
            unseen_s = now_s - present_s
            if unseen_s > STITCH_S and (is_ended or unseen_s > self._forget_s + ROUNDING_S):
                over.append(row)
            due_s = min(due_s, present_s + (STITCH_S if is_ended else max(STITCH_S, self._forget_s)))
        self._due_s = due_s - 1e-6
        return np.array(over, np.intp) if over else NO_ROWS

    def remove(self, gone: Index) -> None:
        """Forget the identities of (K,) rows, and recompute the row of each track."""
        self.table.remove(gone)
        self.ended += len(gone)
        self._ids, self._is_whole, self._due_s = None, False, NEVER_S
        self.object_of_row = np.full(len(self.object_of_row), -1)
        here = (self.rows["row"] >= 0).nonzero()[0]
        self.object_of_row[self.rows["row"][here].astype(np.intp)] = here

    def objects(self) -> Objects:
        """Return a copy of the state of each identity."""
        rows = self.table.rows.frozen()
        return Objects(rows, self._base_ns or 0, ground_speeds(rows, self.table.paths) if self._has_ground else None)
