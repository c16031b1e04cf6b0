"""Zones and lines as the user draws them, validated and independent of the frame size."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from engine.analytics.geometry import crosses_itself, is_flat
from engine.errors import ConfigError

Anchor = Literal["bottom_center", "center", "top_center", "overlap"]
Size = tuple[int, int]

LEFT_TO_RIGHT, RIGHT_TO_LEFT = "left_to_right", "right_to_left"
MAX_POINTS = 200
_SMALLEST_PIXEL = 4.0
"""A coordinate above 1 and below this is more likely a mistyped fraction than a pixel."""
_SMALLEST_AREA = 1e-6


@dataclass(frozen=True, slots=True)
class Ground:
    """Four or more image points and their positions on the ground; speeds are computed from them.

    Attributes:
        points: image points, in the same units as those of the `Zone`.
        metres: the same points on the ground, in metres from any origin.
    """

    points: Sequence[tuple[float, float]]
    metres: Sequence[tuple[float, float]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", checked_points("ground: points", self.points, 4))
        object.__setattr__(self, "metres", _pairs("ground: metres", self.metres, 4))
        if len(self.points) != len(self.metres):
            raise ConfigError(
                f"ground: {len(self.points)} points but {len(self.metres)} positions in metres: give one for each point"
            )


@dataclass(frozen=True, slots=True)
class Zone:
    """An area whose visits, occupancy and dwell are measured.

    Attributes:
        name: unique among the zones of a source.
        points: corners in order; fractions of the frame, or pixels if a value is above 1.
        size_wh: size of the image that `points` were drawn on; None: that of the first frame.
        classes: names or ids of the classes that count; None: all.
        anchor: the point of a box that must be inside; `overlap`: half of the box's area.
        enter_s: an object has entered after being observed inside, at least twice, throughout this time.
        leave_s: an object has left after this time outside.
        ground: positions in metres, for speeds in this zone; None: no speeds.

    Raises:
        ConfigError: the points are not a simple polygon, or a value is out of range.
    """

    name: str
    points: Sequence[tuple[float, float]]
    size_wh: Size | None = None
    classes: Collection[str | int] | None = None
    anchor: Anchor = "bottom_center"
    enter_s: float = 0.3
    leave_s: float = 1.0
    ground: Ground | None = None

    def __post_init__(self) -> None:
        check_name("zone", self.name)
        where = f"zone {self.name}"
        points = checked_points(where, self.points, 3, self.size_wh)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "classes", checked_classes(where, self.classes))
        if self.anchor not in get_args(Anchor):
            raise ConfigError(f"{where}: anchor {self.anchor!r}; expected one of: {', '.join(get_args(Anchor))}")
        check_seconds(where, enter_s=self.enter_s, leave_s=self.leave_s)
        extent = max(max(point) for point in points)
        if is_flat(list(points), _SMALLEST_AREA * extent * extent):
            raise ConfigError(f"{where}: it has no area: give three or more corners that are not on one line")
        if points[0] == points[-1]:
            raise ConfigError(f"{where}: the last corner repeats the first: remove it, because a zone closes itself")
        if crosses_itself(list(points)):
            raise ConfigError(f"{where}: its edges cross each other: give the corners in order along the border")


@dataclass(frozen=True, slots=True)
class Line:
    """A line, straight or bent; every crossing counts once.

    Attributes:
        name: unique among the lines of a source.
        points: from the first to the last; fractions of the frame, or pixels if a value is above 1.
        size_wh: size of the image that `points` were drawn on; None: that of the first frame.
        left_to_right: name of the direction from left to right, as seen when walking along the line.
        right_to_left: name of the opposite direction.
        classes: names or ids of the classes that count; None: all.
        anchor: the point of a box that must cross.
        once: count each identity once per direction.

    Raises:
        ConfigError: the points are not a line, or a value is out of range.
    """

    name: str
    points: Sequence[tuple[float, float]]
    size_wh: Size | None = None
    left_to_right: str = LEFT_TO_RIGHT
    right_to_left: str = RIGHT_TO_LEFT
    classes: Collection[str | int] | None = None
    anchor: Literal["bottom_center", "center", "top_center"] = "bottom_center"
    once: bool = False

    def __post_init__(self) -> None:
        check_name("line", self.name)
        where = f"line {self.name}"
        points = checked_points(where, self.points, 2, self.size_wh)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "classes", checked_classes(where, self.classes))
        if any(first == second for first, second in pairwise(points)):
            raise ConfigError(f"{where}: two neighbouring points are equal: remove one")
        if self.anchor not in ("bottom_center", "center", "top_center"):
            raise ConfigError(f"{where}: anchor {self.anchor!r}; expected one of: bottom_center, center, top_center")
        check_name(f"{where}: direction", self.left_to_right)
        check_name(f"{where}: direction", self.right_to_left)
        if self.left_to_right == self.right_to_left:
            raise ConfigError(f"{where}: both directions are called {self.left_to_right!r}: give each its own name")

    @property
    def directions(self) -> tuple[str, str]:
        """Names of the two directions: left to right, right to left."""
        return self.left_to_right, self.right_to_left


Place = Zone | Line


def check_name(what: str, name: str) -> None:
    """Raise `ConfigError` unless `name` is usable in topics, labels and file names."""
    if (
        not isinstance(name, str)
        or not name
        or len(name) > 64
        or any(c in "/\\.," or not c.isprintable() for c in name)
    ):
        raise ConfigError(f"{what} name {name!r}: expected 1 to 64 characters without slash, dot, comma and control")


def check_unique(what: str, names: Iterable[str]) -> None:
    """Raise `ConfigError` if a name occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"two {what}s are called {name!r}: give each its own name")
        seen.add(name)


def check_seconds(where: str, **values: float) -> None:
    """Raise `ConfigError` unless each value is a finite number of seconds from 0 to a day."""
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 <= value <= 86_400:
            raise ConfigError(f"{where}: {name} is {value!r}: expected seconds from 0 to 86400")


def checked_classes(where: str, classes: Collection[str | int] | None) -> frozenset[str | int] | None:
    """Return the wanted classes as a set; None for all. Raises `ConfigError` for a text or an empty list."""
    if classes is None:
        return None
    if isinstance(classes, str):
        raise ConfigError(f"{where}: classes is the text {classes!r}: expected a list of names or numbers")
    if not classes:
        raise ConfigError(f"{where}: classes is empty, so nothing could ever count: name one, or leave it out for all")
    return frozenset(classes)


def _pairs(where: str, points: Sequence[Sequence[float]], least: int) -> tuple[tuple[float, float], ...]:
    try:
        pairs = tuple((float(x), float(y)) for x, y in points)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: expected points as pairs of two numbers, got {points!r}") from error
    if not least <= len(pairs) <= MAX_POINTS:
        given = f"{len(pairs)} point" + ("" if len(pairs) == 1 else "s")
        raise ConfigError(f"{where}: it has {given}: expected {least} to {MAX_POINTS}")
    if not all(math.isfinite(value) for pair in pairs for value in pair):
        raise ConfigError(f"{where}: a coordinate is not a finite number: {pairs!r}")
    return pairs


def checked_points(
    where: str, points: Sequence[Sequence[float]], least: int, size_wh: Size | None = None
) -> tuple[tuple[float, float], ...]:
    """Return the points as pairs of floats.

    Raises:
        ConfigError: too few, not finite, negative, or neither fractions nor pixels.
    """
    pairs = _pairs(where, points, least)
    if size_wh is not None and not (len(size_wh) == 2 and all(side >= 1 for side in size_wh)):
        raise ConfigError(f"{where}: size_wh is {size_wh!r}: expected width and height of the image in pixels")
    if any(value < 0 for pair in pairs for value in pair):
        raise ConfigError(f"{where}: a coordinate is negative: expected fractions from 0 to 1, or pixels")
    largest = max(value for pair in pairs for value in pair)
    if size_wh is None and 1 < largest < _SMALLEST_PIXEL:
        raise ConfigError(f"{where}: {largest:g} is above 1, and too small for a pixel: expected fractions from 0 to 1")
    return pairs


def unit_of(points: Sequence[tuple[float, float]], size_wh: Size | None, frame_wh: Size) -> tuple[float, float]:
    """Return the factors that convert the points to pixels of a frame.

    >>> unit_of([(0.5, 1.0)], None, (640, 480))
    (640.0, 480.0)
    """
    width, height = frame_wh
    if size_wh is not None:
        return width / size_wh[0], height / size_wh[1]
    is_pixels = max(max(point) for point in points) > 1
    return (1.0, 1.0) if is_pixels else (float(width), float(height))
