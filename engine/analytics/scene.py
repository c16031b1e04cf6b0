"""The state of one source's scene: processes the tracks of a frame and returns what changed at its places."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.analytics import crossing, presence
from engine.analytics.geometry import ZERO, Flags, Floats
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
    """The observations of one frame: N rows.

    Attributes:
        of_row: (N,) their rows in the tracks.
        box: (4, N) float64.
        class_id: (N,) float64.
        score: (N,) float64.
        width: of each box.
        least_tall: height of the lowest box.
    """

    of_row: Index
    box: Floats
    class_id: Floats
    score: Floats
    width: list[float]
    least_tall: float

    def chosen(self, rows: Index | Flags) -> Seen:
        """Return some of the rows."""
        parts = self.of_row[rows], self.box[:, rows], self.class_id[rows], self.score[rows]
        return Seen(*parts, self.width, self.least_tall)


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
        self._parked_s = NEVER_S
        self._shadowed_s = NEVER_S
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
        born = self._place_rows(tracks, ids, seen, now_s)
        if is_held:
            self.rows["present_s"][self.rows["row"] >= 0] = now_s
        if seen is None or not len(seen.of_row):
            return Changes([], [], {}, born)
        return self._observe(seen, now_s, born)

    def _seen(self, tracks: Tracks, ids: list[int]) -> Seen:
        """Return the observations of this frame; all valid rows count if the tracker never sets `detection_index`."""
        box = np.array(tracks.xyxy.T, np.float64, order="C")
        size, detected = box[2:] - box[:2], tracks.detection_index
        if not self._knows_detections:
            self._knows_detections = bool((detected >= 0).any())
        if self._checked[0] != ids:
            self._checked = ids, len(set(ids)) == len(ids) and min(ids, default=0) >= 0
        class_id, score = tracks.class_id.astype(np.float64), tracks.score.astype(np.float64)
        width, height = size.tolist()
        least_tall = min(height, default=1.0)
        # also False if a size is infinite or NaN
        valid = min(width, default=1.0) > 0 and least_tall > 0 and sum(width) + sum(height) < MOST_PX
        if valid and self._checked[1] and not (self._knows_detections and min(detected.tolist(), default=0) < 0):
            return Seen(_numbers(len(ids)), box, class_id, score, width, least_tall)
        usable = (detected >= 0) | (not self._knows_detections)
        usable &= (size.min(axis=0) > 0) & (size.max(axis=0) < MOST_PX) & (tracks.track_id >= 0)
        rows = usable.nonzero()[0]
        if len(set(tracks.track_id[rows].tolist())) != len(rows):
            rows = rows[np.sort(np.unique(tracks.track_id[rows], return_index=True)[1])]
        width, height = size[:, rows].tolist()
        return Seen(rows, box[:, rows], class_id[rows], score[rows], width, min(height, default=0.0))

    def _place_rows(self, tracks: Tracks, ids: list[int], seen: Seen | None, now_s: float) -> list[Row]:
        """Find or create the identity of each row of the tracks, and return the rows that were stitched."""
        self._has_back = self._ids != ids
        if not self._has_back:
            return []
        self.turnover += 1
        get = self.table.row_of.get
        of_row = np.array([get(track_id, -1) for track_id in ids], np.int64)
        is_known = of_row >= 0
        continued: list[Row] = []
        if seen is not None and len(seen.of_row) and not is_known.all():
            fresh = ~is_known[seen.of_row]
            if fresh.any():
                old, new = of_row[seen.of_row[~fresh]], seen.chosen(fresh)
                of_row[new.of_row], continued = self._born(tracks, new, old, now_s)
                is_known = of_row >= 0
        column = self.rows["row"]
        np.less(column, ZERO, out=self.rows["absent"])
        column.fill(-1)
        at = is_known.nonzero()[0]
        column[of_row[at]] = at
        self.object_of_row = of_row
        self._ids = ids if len(at) == len(ids) else None
        self._is_whole = len(ids) == self.rows.count and column.tolist() == list(range(len(ids)))
        self._due_s = NEVER_S
        return continued

    def _born(self, tracks: Tracks, new: Seen, old: Index, now_s: float) -> tuple[NDArray[np.int64], list[Row]]:
        """Return the table rows of new tracks, and those that continue an old identity."""
        track_ids = tracks.track_id[new.of_row].tolist()
        rows = np.array(stitched(self.rows, old, new.box, new.class_id, now_s), np.int64)
        continued = rows[rows >= 0].tolist()
        for row, track_id in zip(rows.tolist(), track_ids, strict=True):
            if row >= 0:
                self.table.rename(row, track_id)
                self.rows["ended"][row] = False
        self._late, self._begins = self.end_paths(np.array(continued, np.intp)), True
        begin_path(self.rows, np.array(continued, np.intp))
        unknown = (rows < 0).nonzero()[0]
        if len(unknown):
            rows[unknown] = self.table.add([track_ids[n] for n in unknown])
            self._note_births(rows[unknown], new.chosen(unknown), now_s)
        return rows, continued

    def _note_births(self, index: Index, new: Seen, now_s: float) -> None:
        rows = self.rows
        rows["first_s"][index] = rows["last_s"][index] = self._newest_s = now_s
        rows["raw"][2, :4][:, index] = new.box
        rows["class_id"][index] = new.class_id
        if not len(self.spots):
            return
        spots = self.spots.find(new.box)
        rows["spot"][index] = spots
        rows["parked"][index] = spots >= 0
        self._has_parked |= bool((spots >= 0).any())
        for number in spots[spots >= 0].tolist():
            self.spots.use(number, now_s)

    def _observe(self, seen: Seen, now_s: float, born: list[Row]) -> Changes:
        """Update the observed rows: take them out of the table, change them in place, put them back."""
        index = self.object_of_row if len(seen.of_row) == len(self.object_of_row) else self.object_of_row[seen.of_row]
        rows = self._taken(index)
        is_shadow = shadows(seen.box, seen.class_id, seen.score, seen.width)
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
        if len(zones):
            where = zones.locate(rows["box"], pose.feet, pose.tall)
            changes.visits = presence.step(rows, index, where, enter_s=zones.enter_s, leave_s=zones.leave_s)
        if len(lines):
            is_open = self._is_open or begins
            stepped = crossing.step(rows, self.table.paths, index, lines, pose.tall, begins=is_open)
            changes.crossings, changes.dithers = changes.crossings + stepped.crossings, stepped.dithers
        self.rows.put(index, rows)
        if len(lines) and is_open:
            self._is_open = bool((self.rows["l_far"] == 0).any())
        return changes

    def _taken(self, index: Index) -> Rows:
        """Return the columns of some objects: those of the table if they are all of it, else a copy."""
        if self._is_whole and len(index) == self.rows.count:
            return self.rows
        rows = self._scratch.get(len(index))
        if rows is not None:
            return self.rows.take(index, rows)
        if len(self._scratch) >= MOST_SCRATCH:
            self._scratch.clear()
        rows = self._scratch[len(index)] = self.rows.take(index)
        return rows

    def _follow(self, rows: Rows, index: Index, seen: Seen, now_s: float) -> Pose:
        """Update the state of the observed objects, except for places."""
        assert self._size_wh is not None
        paths = self.table.paths
        note_observed(rows, seen.class_id, seen.score)
        pose = advance(rows, seen.box, now_s, third_s=self._seen_before_s, begins=self._begins)
        self._seen_s, self._seen_before_s, self._begins = now_s, self._seen_s, False
        if len(self.line_layout):
            paths.add(index, rows["point"])
        if self._has_back and np.count_nonzero(rows["absent"]):
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
        self._eligibility.note(
            rows,
            self._size_wh[1],
            now_s,
            newest_s=self._newest_s,
            is_shadowed=now_s - self._shadowed_s <= 2 * SHADOW_S,
            has_parked=self._has_parked,
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
        rows, over, due_s = self.rows, [], math.inf
        absent = [row for row, at in enumerate(rows["row"].tolist()) if at < 0]
        if absent:
            present_s, ended = rows["present_s"].tolist(), rows["ended"].tolist()
            for row in absent:
                unseen_s = now_s - present_s[row]
                if unseen_s > STITCH_S and (ended[row] or unseen_s > self._forget_s + ROUNDING_S):
                    over.append(row)
                lasts_s = STITCH_S if ended[row] else max(STITCH_S, self._forget_s)
                due_s = min(due_s, present_s[row] + lasts_s)
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
        rows = self.rows.frozen()
        return Objects(rows, self._base_ns or 0, ground_speeds(rows, self.table.paths) if self._has_ground else None)
