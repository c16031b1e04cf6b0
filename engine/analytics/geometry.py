"""Plane geometry over arrays of points: polygons, signed distances, cuts. Pixels, y downwards, float64."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Points = list[tuple[float, float]]

ON_EDGE_PX = 1e-6
"""A point this close to an edge lies on it; far below measurement noise, far above float64 rounding."""
ZERO, HALF, ONE = np.zeros(()), np.full((), 0.5), np.ones(())
"""As arrays: an operation on a few numbers takes a third less time with them than with plain numbers."""
_FLAT_PX = 1e-9
_SHARPEST = 1e-6
"""Limits how far the tip of a sharp corner is moved: a thousand times as far as an edge."""


def any_of(flags: Flags) -> bool:
    """Return whether any flag is set; on the flags of a frame, ten times as fast as `flags.any()`."""
    return 1 in flags.tobytes()


def all_of(flags: Flags) -> bool:
    """Return whether all flags are set."""
    return 0 not in flags.tobytes()


def set_pairs(flags: Flags) -> list[tuple[int, int]]:
    """Return the row and column of each flag of an (M, N) matrix that is set; fast if they are few."""
    pairs, encoded, columns = [], flags.tobytes(), flags.shape[1]
    at = encoded.find(1)
    while at >= 0:
        pairs.append(divmod(at, columns))
        at = encoded.find(1, at + 1)
    return pairs


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """Z closed polygons, each padded to E edges, a power of 2, with zero-length edges.

    Attributes:
        start: (E, Z, 2) start of each edge.
        vector: (E, Z, 2) from start to end.
        measures: ((2 E + 1) Z, 3); the product with (x, y, 1) gives the pixels below each corner, the first corner
            again after the last, and then the pixels to the right of each edge along a horizontal ray. The corners are
            moved outwards by `ON_EDGE_PX`.
        plain: for each polygon, its edges as numbers: x and y of the start, x and y of the vector, squared length.
    """

    start: Floats
    vector: Floats
    measures: Floats
    plain: list[list[tuple[float, float, float, float, float]]]

    @classmethod
    def of(cls, polygons: list[Floats]) -> Polygons:
        """Return the edges of Z polygons, each (V, 2) with at least three vertices."""
        start, vector = _edges(polygons)
        grown_start, grown_vector = _edges([_grown(points, ON_EDGE_PX) for points in polygons])
        return cls(start, vector, _measures(grown_start, grown_vector), [_plain(points) for points in polygons])

    def inside(self, point: Floats) -> Flags:
        """Return (Z, N), whether each point lies inside each polygon, edges included.

        Args:
            point: (3, N) x and y in pixels, and 1.
        """
        edges, count, _ = self.start.shape
        is_less = np.signbit(self.measures.dot(point)).reshape(2 * edges + 1, count, point.shape[1])
        crossed = is_less[1 : edges + 1] != is_less[:edges]  # one end above the point, the other not
        crossed &= is_less[edges + 1 :]  # left of the edge
        while len(crossed) > 1:  # faster than `reduce`
            half = len(crossed) // 2
            crossed = crossed[:half] != crossed[half:]
        inside: Flags = crossed[0]
        return inside

    def is_beyond(self, polygon: int, x: float, y: float, distance: float) -> bool:
        """Return whether a point is farther than a distance in pixels from every edge of a polygon, given by number."""
        limit = distance * distance
        for start_x, start_y, way_x, way_y, square in self.plain[polygon]:
            off_x, off_y = x - start_x, y - start_y
            along = min(max((off_x * way_x + off_y * way_y) / square, 0.0), 1.0)
            off_x, off_y = off_x - along * way_x, off_y - along * way_y
            if off_x * off_x + off_y * off_y <= limit:
                return False
        return True

    def covered_shares(self, box: Floats) -> Floats:
        """Return (Z, N), the fraction of the area of each of (4, N) boxes that lies inside each polygon.

        Integrates each edge, clamped to the box, over x (Green's theorem); no polygon needs clipping.
        """
        left, top, right, bottom = box
        ax, ay, ex, ey = (part[..., axis, None] for part in (self.start, self.vector) for axis in (0, 1))
        x0, x1 = (np.clip(x, left, right) for x in (ax, ax + ex))
        gradient = np.divide(ey, ex, out=np.zeros_like(ex), where=np.abs(ex) > _FLAT_PX)
        y0, y1 = (ay + gradient * (x - ax) for x in (x0, x1))
        signed = ((x1 - x0) * _mean_clamped(y0, y1, top, bottom)).sum(axis=0)
        area = (right - left) * (bottom - top)
        shares: Floats = np.abs(signed) / np.maximum(area, _FLAT_PX)
        return shares


def _edges(polygons: list[Floats]) -> tuple[Floats, Floats]:
    """Return (E, Z, 2) starts and vectors of the edges of Z polygons, padded with zero-length edges to a power of 2."""
    edges = 1 << (max((len(points) for points in polygons), default=1) - 1).bit_length()
    start = np.zeros((edges, len(polygons), 2))
    end = np.zeros_like(start)
    for number, points in enumerate(polygons):
        start[:, number] = end[:, number] = points[0]
        start[: len(points), number] = points
        end[: len(points), number] = np.roll(points, -1, axis=0)
    return start, end - start


def _plain(points: Floats) -> list[tuple[float, float, float, float, float]]:
    way = np.roll(points, -1, axis=0) - points
    square = (way * way).sum(axis=1)
    columns = (*points.T, *way.T, np.where(square > 0, square, 1.0))
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _grown(points: Floats, by: float) -> Floats:
    """Return the corners of a polygon, moved so that its edges lie outside of the old ones by a tiny distance."""
    x, y = points.T
    way = np.roll(points, -1, axis=0) - points
    length = np.hypot(way[:, 0], way[:, 1])
    turn = np.sign((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
    normal = turn * np.stack((way[:, 1], -way[:, 0]), axis=1) / np.where(length > 0, length, 1.0)[:, None]
    before = np.roll(normal, 1, axis=0)
    grown: Floats = points + by * (before + normal) / np.maximum(1 + (before * normal).sum(axis=1), _SHARPEST)[:, None]
    return grown


def _measures(start: Floats, vector: Floats) -> Floats:
    """Return the ((2 E + 1) Z, 3) measures of `Polygons`; they are linear in the point, so one product yields all."""
    (ax, ay), (ex, ey) = np.moveaxis(start, -1, 0), np.moveaxis(vector, -1, 0)
    corner_y = np.concatenate((ay, ay[:1]))
    slope = np.divide(ex, ey, out=np.zeros_like(ex), where=ey != 0)
    below = np.stack((np.zeros_like(corner_y), np.ones_like(corner_y), -corner_y), axis=-1)
    right = np.stack((np.ones_like(slope), -slope, slope * ay - ax), axis=-1)
    return np.concatenate((below.reshape(-1, 3), right.reshape(-1, 3)))


def _mean_clamped(y0: Floats, y1: Floats, low: Floats, high: Floats) -> Floats:
    """Return the mean of `clip(y, low, high) - low` for y uniform between `y0` and `y1`."""

    def integral(y: Floats) -> Floats:
        inside = np.clip(y, low, high) - low
        above = np.maximum(y - high, 0.0)
        area: Floats = 0.5 * inside * inside + above * (high - low)
        return area

    run = y1 - y0
    is_flat = np.abs(run) <= _FLAT_PX
    mean: Floats = (integral(y1) - integral(y0)) / np.where(is_flat, 1.0, run)
    return np.where(is_flat, np.clip(y0, low, high) - low, mean)


def signed_distances(vertices: Floats, x: Floats, y: Floats) -> Floats:
    """Return (N,) distances from a polyline: positive on the right when walking along it, as seen on screen.

    The nearest segment counts. Beyond the two ends a segment continues straight; at a bend the two segments share the
    side.

    Args:
        vertices: (V, 2), at least two.
        x: (N,) pixels.
        y: (N,) pixels.
    """
    vector = np.diff(vertices, axis=0)
    unit = vector / np.hypot(vector[:, 0], vector[:, 1])[:, None]
    dx, dy = x[:, None] - vertices[:-1, 0], y[:, None] - vertices[:-1, 1]
    aside = unit[:, 0] * dy - unit[:, 1] * dx
    along = (dx * vector[:, 0] + dy * vector[:, 1]) / (vector**2).sum(axis=1)
    if len(vector) == 1:
        return np.asarray(aside[:, 0])
    near = np.clip(along, 0.0, 1.0)
    gap = np.hypot(dx - near * vector[:, 0], dy - near * vector[:, 1])
    rows, best = np.arange(len(x)), gap.argmin(axis=1)
    result: Floats = aside[rows, best]
    for bend in range(1, len(vector)):
        side = unit[bend - 1] + unit[bend]
        turned: Floats = side[0] * (y - vertices[bend, 1]) - side[1] * (x - vertices[bend, 0])
        at_bend = ((best == bend) & (along[rows, best] < 0)) | ((best == bend - 1) & (along[rows, best] > 1))
        result = np.where(at_bend, np.copysign(gap[rows, best], turned), result)
    return result


def cuts(path: Floats, vertices: Floats) -> list[tuple[int, float]]:
    """Return where a path cuts a polyline, in order: the index of the chord and the fraction of it before the cut.

    A cut at the first end of the polyline counts, one at its last end does not, so two lines that share an end are
    cut once. A path through a bend cuts once.

    Args:
        path: (K, 2) points.
        vertices: (V, 2) points.
    """
    points, corners, found = path.tolist(), vertices.tolist(), []
    for segment, ((x0, y0), (x1, y1)) in enumerate(pairwise(corners)):
        way_x, way_y = x1 - x0, y1 - y0
        sides = [way_x * (y - y0) - way_y * (x - x0) for x, y in points]
        for chord, (before, after) in enumerate(pairwise(sides)):
            if (before > 0) != (after > 0):
                beside = _beside(points[chord], points[chord + 1], corners)
                if beside[segment] != beside[segment + 1]:
                    found.append((chord, before / (before - after)))
    return sorted(found)


def _beside(start: list[float], end: list[float], vertices: list[list[float]]) -> list[bool]:
    """Return which vertices of a polyline lie to the right of a chord.

    One on the chord is to the left, the first end beside the second vertex, and the last end as the vertex before it,
    so that the chord cuts at the first end and not at the last.
    """
    step_x, step_y = end[0] - start[0], end[1] - start[1]
    turns = [step_x * (y - start[1]) - step_y * (x - start[0]) for x, y in vertices]
    right = [turn > 0 for turn in turns]
    if turns[0] == 0:
        right[0] = not right[1]
    if turns[-1] == 0:
        right[-1] = right[-2]
    return right


def is_flat(points: Points, tolerance: float) -> bool:
    """Return whether no triangle of a polygon's corners is larger than `tolerance`, in square units of the points.

    >>> is_flat([(0, 0), (1, 1), (2, 2)], 1e-9)
    True
    """
    corners = np.array(points, dtype=np.float64)
    longest = corners[np.argmax(np.hypot(*(corners - corners[0]).T))] - corners[0]
    turned = (corners - corners[0]) @ np.array((-longest[1], longest[0]))
    return bool(np.ptp(turned) <= 2 * tolerance)


def crosses_itself(points: Points) -> bool:
    """Return whether two edges of a polygon meet anywhere other than at a shared corner.

    >>> crosses_itself([(0, 0), (2, 2), (2, 0), (0, 2)])
    True
    """
    edges = list(zip(points, [*points[1:], points[0]], strict=True))
    count = len(edges)
    for first in range(count):
        for second in range(first + 1, count):
            if second == first + 1:
                meets = _fold_back(*edges[first], edges[second][1])
            elif first == 0 and second == count - 1:
                meets = _fold_back(*edges[second], edges[first][1])
            else:
                meets = _meet(*edges[first], *edges[second])
            if meets:
                return True
    return False


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _within(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return min(a[0], b[0]) <= c[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= c[1] <= max(a[1], b[1])


def _meet(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float], d: tuple[float, float]) -> bool:
    abc, abd, cda, cdb = _turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)
    if abc * abd < 0 and cda * cdb < 0:
        return True
    touches = ((abc, a, b, c), (abd, a, b, d), (cda, c, d, a), (cdb, c, d, b))
    return any(turn == 0 and _within(p, q, r) for turn, p, q, r in touches)


def _fold_back(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Return whether the edges a-b and b-c overlap."""
    return _turn(a, b, c) == 0 and (b[0] - a[0]) * (c[0] - b[0]) + (b[1] - a[1]) * (c[1] - b[1]) <= 0
