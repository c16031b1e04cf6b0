"""Plane geometry over arrays of points: polygons, signed distances, cuts. Pixels, y downwards, float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Points = list[tuple[float, float]]

ON_EDGE_PX = 1e-6
"""A point this close to an edge lies on it; far below measurement noise, far above float64 rounding."""
_FLAT_PX = 1e-9
_FAR_PX = 1e9
"""Distance of zero-length padding edges from any point."""


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """Z closed polygons, each padded to E edges with zero-length edges.

    Attributes:
        start: (E, Z, 2) start of each edge.
        vector: (E, Z, 2) from start to end.
        measures: (6 E Z, 3); the product with (x, y, 1) gives, for each edge, the pixels beyond its end, before its
            start, aside, below its start, below its end, and to the right of it along a horizontal ray.
    """

    start: Floats
    vector: Floats
    measures: Floats

    @classmethod
    def of(cls, polygons: list[Floats]) -> Polygons:
        """Return the edges of Z polygons, each (V, 2) with at least three vertices."""
        edges = max((len(points) for points in polygons), default=1)
        start = np.zeros((edges, len(polygons), 2))
        end = np.zeros_like(start)
        for number, points in enumerate(polygons):
            start[:, number] = end[:, number] = points[0]
            start[: len(points), number] = points
            end[: len(points), number] = np.roll(points, -1, axis=0)
        vector = end - start
        return cls(start, vector, _measures(start, vector))

    def locate(self, point: Floats) -> tuple[Flags, Floats]:
        """Return whether each point lies inside each polygon, and its squared distance from the nearest edge.

        Args:
            point: (3, N) x and y in pixels, and 1.

        Returns:
            (Z, N) inside, edges included, and (Z, N) squared distance in pixels.
        """
        edges, count, _ = self.start.shape
        measured = (self.measures @ point).reshape(6, edges, count, point.shape[1])
        over = np.maximum(measured[0], measured[1])
        np.maximum(over, 0.0, out=over)
        over *= over
        aside = measured[2]
        aside *= aside
        aside += over
        square: Floats = np.minimum.reduce(aside, axis=0)
        is_left = measured[3:] < 0  # below its start, below its end, left of it
        crossed = is_left[0] != is_left[1]
        crossed &= is_left[2]
        inside: Flags = np.not_equal.reduce(crossed, axis=0)
        inside |= square <= ON_EDGE_PX * ON_EDGE_PX
        return inside, square

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


def _measures(start: Floats, vector: Floats) -> Floats:
    """Return the (6 E Z, 3) measures of `Polygons`; they are linear in the point, so one product yields all of them."""
    (ax, ay), (ex, ey) = np.moveaxis(start, -1, 0), np.moveaxis(vector, -1, 0)
    length = np.hypot(ex, ey)
    safe = np.where(length > 0, length, 1.0)
    ux, uy, zero = ex / safe, ey / safe, np.zeros_like(ax)
    slope = np.divide(ex, ey, out=np.zeros_like(ex), where=ey != 0)
    along = -(ux * ax + uy * ay)
    rows = (
        (ux, uy, along - length),
        (-ux, -uy, -along),
        (-uy, ux, np.where(length > 0, uy * ax - ux * ay, _FAR_PX)),
        (zero, zero + 1, -ay),
        (zero, zero + 1, -(ay + ey)),
        (zero + 1, -slope, slope * ay - ax),
    )
    return np.array([np.stack(row, axis=-1) for row in rows]).reshape(-1, 3)


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
    start, step = path[:-1], np.diff(path, axis=0)
    relative = vertices[None, :, :] - start[:, None, :]
    beside = step[:, None, 0] * relative[..., 1] - step[:, None, 1] * relative[..., 0]
    right = beside > 0
    right[:, 0] = np.where(beside[:, 0] == 0, ~right[:, 1], right[:, 0])
    right[:, -1] = np.where(beside[:, -1] == 0, right[:, -2], right[:, -1])
    vector = np.diff(vertices, axis=0)
    offset = path[:, None, :] - vertices[None, :-1, :]
    side = vector[:, 0] * offset[..., 1] - vector[:, 1] * offset[..., 0]
    changes = (side[:-1] > 0) != (side[1:] > 0)
    found = np.argwhere(changes & (right[:, :-1] != right[:, 1:]))
    before, after = side[found[:, 0], found[:, 1]], side[found[:, 0] + 1, found[:, 1]]
    return sorted((int(chord), float(a / (a - b))) for chord, a, b in zip(found[:, 0], before, after, strict=True))


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
