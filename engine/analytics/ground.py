"""The ground plane of a zone: pixels to metres by a homography, and speeds with their error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.analytics.geometry import Floats
from engine.errors import ConfigError

WORST_FIT = 0.05
"""A plane is rejected if its points miss their given metres by more than this fraction of the extent."""
OUTSIDE = 0.2
"""A position is unreliable if it is outside the points' hull by more than this fraction of the hull's size."""
FIT_S = 1.0
FEWEST = 5
KMH = 3.6


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Maps pixels to metres.

    Attributes:
        matrix: (3, 3) homography.
        hull: (V, 2) convex hull of the given points in pixels, enlarged by `OUTSIDE`.
        error_m: root mean square of the distances between mapped and given positions; 0 for four points.
    """

    matrix: Floats
    hull: Floats
    error_m: float

    @classmethod
    def fit(cls, name: str, points: Floats, metres: Floats) -> Plane:
        """Fit the plane to at least four pairs of points.

        Raises:
            ConfigError: the points fit no plane.
        """
        import cv2

        matrix, _ = cv2.findHomography(points, metres, 0)
        extent = float(np.hypot(*np.ptp(metres, axis=0)))
        if matrix is None or not np.isfinite(matrix).all() or extent == 0 or _is_flat(points) or _is_flat(metres):
            raise ConfigError(
                f"zone {name}: ground: three of its points are on one line: give four corners of an area on the ground"
            )
        hull = cv2.convexHull(points.astype(np.float32))[:, 0, :].astype(float)
        middle = hull.mean(axis=0)
        plane = cls(matrix, middle + (hull - middle) * (1 + OUTSIDE), 0.0)
        error = float(np.sqrt(((plane.metres(points) - metres) ** 2).sum(axis=1).mean()))
        if not error <= WORST_FIT * extent:
            raise ConfigError(
                f"zone {name}: ground: the points miss their metres by {error:.2f} m, more than {WORST_FIT:.0%} of "
                f"the extent of {extent:.1f} m: check their order and the distances"
            )
        return cls(plane.matrix, plane.hull, error)

    def metres(self, xy: Floats) -> Floats:
        """Map (N, 2) pixels to (N, 2) metres."""
        mapped = xy @ self.matrix[:, :2].T + self.matrix[:, 2]
        result: Floats = mapped[:, :2] / mapped[:, 2:]
        return result

    def covers(self, xy: Floats) -> NDArray[np.bool_]:
        """Return (N,) bool, whether each pixel lies in the enlarged hull."""
        edge = np.roll(self.hull, -1, axis=0) - self.hull
        offset = xy[:, None, :] - self.hull
        beside = edge[:, 0] * offset[..., 1] - edge[:, 1] * offset[..., 0]
        return np.asarray((beside >= 0).all(axis=1) | (beside <= 0).all(axis=1))


def _is_flat(points: Floats) -> bool:
    """Return whether three of the first four points are collinear and therefore do not determine a plane."""
    if len(points) > 4:
        return bool(np.linalg.matrix_rank(points - points.mean(axis=0), tol=1e-6 * np.ptp(points)) < 2)
    scale = max(float(np.ptp(points)), 1e-9) ** 2
    a, b, c = (points[[0, 0, 0, 1]], points[[1, 1, 2, 2]], points[[2, 3, 3, 3]])
    turn = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    return bool((np.abs(turn) < 1e-6 * scale).any())


def speeds(metres: Floats, seconds: Floats, count: Floats) -> tuple[Floats, Floats]:
    """Return (N,) least-squares km/h over the last second, and (N,) twice the standard error; NaN if unknown.

    Args:
        metres: (2, K, N) positions, the newest last.
        seconds: (K, N) their times.
        count: (N,) how many of the newest entries are valid.
    """
    size = metres.shape[1]
    age = seconds - seconds[-1]
    used = (np.arange(size)[:, None] >= size - count) & (age >= -FIT_S)
    n = used.sum(axis=0)
    least = np.maximum(n, 1)
    time = np.where(used, age, 0.0)
    time = (time - time.sum(axis=0) / least) * used
    position = np.where(used, metres, 0.0)
    position = (position - (position.sum(axis=1) / least)[:, None]) * used
    spread = (time * time).sum(axis=0)
    known = (n >= FEWEST) & (spread > 0)
    safe = np.where(known, spread, 1.0)
    velocity = (time * position).sum(axis=1) / safe
    residual = position - time * velocity[:, None]
    variance = (residual * residual).sum(axis=1) / np.maximum(n - 2, 1) / safe
    speed = np.hypot(velocity[0], velocity[1])
    along = (velocity**2 * variance).sum(axis=0) / np.maximum(speed, 1e-9) ** 2
    error = np.sqrt(np.where(speed > 1e-9, along, variance.max(axis=0)))
    return np.where(known, speed * KMH, np.nan), np.where(known, 2 * error * KMH, np.nan)
