"""Zones and lines as arrays, in pixels of one frame size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.analytics.geometry import HALF, ZERO, Flags, Floats, Polygons, signed_distances
from engine.analytics.ground import Plane
from engine.analytics.places import Anchor, Line, Size, Zone, unit_of
from engine.analytics.table import Index, Rows

ANCHOR_HEIGHT: dict[Anchor, float] = {"bottom_center": 1.0, "center": 0.5, "top_center": 0.0, "overlap": 1.0}
"""Position of the anchor below the top of the box, as a fraction of the box's height."""
ZONE_BORDER = 0.01
"""Corners this close to the frame's border, as a fraction of the frame, are snapped to it: nothing is seen beyond."""
LINE_BORDER = 0.01
"""Line ends this close to the frame's border are extended beyond it, since no object can go around them."""
_LONGEST_EXIT = 0.05
"""An end is extended only if its line leaves the frame within this fraction of the longer side."""
OVERLAP_INSIDE = 0.5
_MOST_POINTS = 64
MARGIN = 0.05
"""An object has left a zone only beyond this distance from the border, in heights of its box; for `overlap`, if less
than the half by this fraction of its area is inside."""


def _pixels(place: Zone | Line, first_wh: Size, frame_wh: Size) -> Floats:
    """Return (V, 2) pixels of the frame; points without `size_wh` refer to the first frame."""
    to_first = np.array(unit_of(place.points, place.size_wh, first_wh))
    stretch = np.array(frame_wh, float) / np.array(first_wh, float)
    pixels: Floats = np.asarray(place.points, float) * to_first * stretch
    return pixels


def _on_border(points: Floats, frame_wh: Size) -> Floats:
    """Return the corners, with those near the border snapped to it."""
    size = np.array(frame_wh, float)
    near = ZONE_BORDER * size
    return np.where(points <= near, 0.0, np.where(points >= size - near, size, points))


def _exit(end: Floats, before: Floats, frame_wh: Size) -> Floats | None:
    """Return a point far outside the frame beyond `end`, or None if the line ends within the frame."""
    size = np.array(frame_wh, float)
    near = LINE_BORDER * size
    if not ((end <= near) | (end >= size - near)).any():
        return None
    direction = (end - before) / np.hypot(*(end - before))
    room = np.where(direction > 0, size - end, end)
    steps = np.divide(room, np.abs(direction), out=np.full(2, np.inf), where=direction != 0)
    return end + direction * 2 * size.sum() if steps.min() <= _LONGEST_EXIT * size.max() else None


def reaching_beyond(vertices: Floats, frame_wh: Size) -> Floats:
    """Return the (P, 2) points of a line; ends on the frame's border are extended far beyond it."""
    first, last = _exit(vertices[0], vertices[1], frame_wh), _exit(vertices[-1], vertices[-2], frame_wh)
    result = vertices.copy()
    result[0] = result[0] if first is None else first
    result[-1] = result[-1] if last is None else last
    return result


class ZoneLayout:
    """The zones of a source for one frame size.

    Attributes:
        corners: (V, 2) pixels of each zone.
        enter_s: (Z,) float64.
        leave_s: (Z,) float64.
        place: of each zone, the number of its group, and its number in the group.
        planes: the ground of each zone; None if it has none.
    """

    def __init__(self, zones: Sequence[Zone], first_wh: Size, frame_wh: Size) -> None:
        self.zones = tuple(zones)
        self._width, self._height = np.array(frame_wh[0], float), np.array(frame_wh[1], float)
        self._points: dict[tuple[int, int], Floats] = {}  # by group and count, to be reused
        self.corners = [_on_border(_pixels(zone, first_wh, frame_wh), frame_wh) for zone in zones]
        self.enter_s = np.array([zone.enter_s for zone in zones], float)
        self.leave_s = np.array([zone.leave_s for zone in zones], float)
        self.planes = [_plane(zone, first_wh, frame_wh) for zone in zones]
        self._groups: list[tuple[Anchor, Polygons]] = []
        self._members: list[Index] = []
        self.place: list[tuple[int, int]] = [(0, 0)] * len(zones)
        for number, anchor in enumerate(dict.fromkeys(zone.anchor for zone in zones)):
            members = [index for index, zone in enumerate(zones) if zone.anchor == anchor]
            self._groups.append((anchor, Polygons.of([self.corners[index] for index in members])))
            self._members.append(np.array(members))
            for member, index in enumerate(members):
                self.place[index] = number, member

    def __len__(self) -> int:
        return len(self.zones)

    def locate(self, box: Floats, feet: Floats, tall: Floats) -> Location:
        """Return where (4, N) boxes with (2, N) feet and (N,) heights are; beyond the frame counts as on its border.

        The result is valid until the next call.
        """
        if len(self._groups) == 1:
            inside, measured = self._locate(0, box, feet, tall)
            return Location(inside, [measured], tall, self)
        inside, all_measured = np.zeros((len(self.zones), len(tall)), np.bool_), []
        for group, members in enumerate(self._members):
            inside[members], measured = self._locate(group, box, feet, tall)
            all_measured.append(measured)
        return Location(inside, all_measured, tall, self)

    def _locate(self, group: int, box: Floats, feet: Floats, tall: Floats) -> tuple[Flags, Floats]:
        """Return (K, N) which boxes are inside a group's polygons, and their (3, N) anchors or (K, N) shares inside."""
        anchor, polygons = self._groups[group]
        if anchor == "overlap":
            share = polygons.covered_shares(box)
            return share >= OVERLAP_INSIDE, share
        point = self._points.get((group, len(tall)))
        if point is None:
            if len(self._points) >= _MOST_POINTS:
                self._points.clear()
            point = self._points[group, len(tall)] = np.ones((3, len(tall)))
        x, y = point[0], point[1]
        height = feet[1] if anchor == "bottom_center" else box[1] + tall * ANCHOR_HEIGHT[anchor]
        np.minimum(np.maximum(feet[0], ZERO, out=x), self._width, out=x)
        np.minimum(np.maximum(height, ZERO, out=y), self._height, out=y)
        return polygons.inside(point), point

    def is_clear(self, zone: int, measured: Floats, n: int, tall: float) -> bool:
        """Return whether an object that is not inside a zone is outside by more than the margin.

        Args:
            zone: number of the zone.
            measured: of the zone's group, as in `Location`.
            n: column of the object.
            tall: height of its box.
        """
        group, member = self.place[zone]
        anchor, polygons = self._groups[group]
        if anchor == "overlap":
            return bool(measured[member, n] < OVERLAP_INSIDE - MARGIN)
        return polygons.is_beyond(member, measured.item(0, n), measured.item(1, n), MARGIN * tall)


class Location(NamedTuple):
    """Where N objects are with regard to Z zones.

    Attributes:
        inside: (Z, N) bool.
        measured: for each group of zones with one anchor, (3, N) anchors in pixels; for `overlap`, (K, N) shares.
        tall: (N,) heights of the boxes.
        layout: the zones.
    """

    inside: Flags
    measured: list[Floats]
    tall: Floats
    layout: ZoneLayout

    def is_clear(self, zone: int, n: int) -> bool:
        """Return whether an object that is not inside is outside by more than the margin."""
        group, _ = self.layout.place[zone]
        return self.layout.is_clear(zone, self.measured[group], n, self.tall.item(n))


def _plane(zone: Zone, first_wh: Size, frame_wh: Size) -> Plane | None:
    if zone.ground is None:
        return None
    unit = np.array(unit_of(zone.points, zone.size_wh, first_wh))
    stretch = np.array(frame_wh, float) / np.array(first_wh, float)
    points = np.asarray(zone.ground.points, float) * unit * stretch
    return Plane.fit(zone.name, points, np.asarray(zone.ground.metres, float))


class LineLayout:
    """The lines of a source for one frame size.

    Attributes:
        vertices: (V, 2) pixels of each line, as drawn.
        reach: the same, with ends on the border extended; a path must cut this.
    """

    def __init__(self, lines: Sequence[Line], first_wh: Size, frame_wh: Size) -> None:
        self.lines = tuple(lines)
        self.vertices = [_pixels(line, first_wh, frame_wh) for line in lines]
        self.reach = [reaching_beyond(vertices, frame_wh) for vertices in self.vertices]
        self._rise = np.array([1.0 - ANCHOR_HEIGHT[line.anchor] for line in lines])
        self._bent = [index for index, vertices in enumerate(self.vertices) if len(vertices) > 2]
        ends = np.array([(v[0], v[-1]) for v in self.vertices]).reshape(-1, 2, 2)
        vector = ends[:, 1] - ends[:, 0]
        unit = vector / np.maximum(np.hypot(vector[:, 0], vector[:, 1]), 1e-9)[:, None]
        by_x, by_y = -unit[:, 1], unit[:, 0]
        offset = -(by_x * ends[:, 0, 0] + by_y * ends[:, 0, 1])
        half, rise = by_x / 2, by_y * self._rise
        nothing = np.zeros(len(lines))
        self._by_column = np.stack((half, rise, half, by_y - rise, nothing, nothing, nothing, offset), axis=1)

    def __len__(self) -> int:
        return len(self.lines)

    def anchors(self, box: Floats, line: int) -> Floats:
        """Return the (N, 2) anchors of (4, N) boxes for one line."""
        anchor = np.empty((box.shape[1], 2))
        anchor[:, 0] = (box[0] + box[2]) * HALF
        anchor[:, 1] = box[3] - (box[3] - box[1]) * self._rise[line]
        return anchor

    def signed(self, rows: Rows) -> Floats:
        """Return (L, N) distances of the anchors of N boxes from each line in pixels, positive on its right."""
        signed: Floats = self._by_column.dot(rows["affine"])
        for line in self._bent:
            anchor = self.anchors(rows["box"], line)
            signed[line] = signed_distances(self.vertices[line], anchor[:, 0], anchor[:, 1])
        return signed
