"""Paths of tracks, small: sampled a few times a second, thinned where the object moved evenly, ten bytes a point.

A point is milliseconds since the previous one, the middle of the box's lower edge, its width and its height; the last
four in 1/65535 of the frame. Between two points the object moved evenly, to within `TOLERANCE` of its height. A point
of height 0 says that the object was not seen from there to the next one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_MS, NS_PER_S

SAMPLE_NS = NS_PER_S // 5
BREAK_NS = NS_PER_S
"""Unseen for longer, an object is not assumed to have moved evenly."""
TOLERANCE = 0.03
MAX_POINTS = 600
MAX_PIECE_NS = 120 * NS_PER_S
_POINT = np.dtype([("ms", "<u2"), ("x", "<u2"), ("y", "<u2"), ("w", "<u2"), ("h", "<u2")])
_FULL = 65535
_FULL_MS = 65535
Floats = NDArray[np.float64]


@dataclass(slots=True)
class LivePath:
    """The part of a track's path that is not stored yet: times in ns and (x, y, width, height) in shares of the frame.

    A None in `boxes` means that it was not seen from that time on.
    """

    piece: int = 0
    times: list[int] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float] | None] = field(default_factory=list)

    def add(self, scene_ns: int, box: tuple[float, float, float, float]) -> None:
        """Add where it was at a time."""
        if self.times and scene_ns - self.times[-1] > BREAK_NS and self.boxes[-1] is not None:
            self.times.append(self.times[-1] + NS_PER_MS)
            self.boxes.append(None)
        self.times.append(scene_ns)
        self.boxes.append(box)

    @property
    def is_full(self) -> bool:
        """Whether it is time to store this piece."""
        return len(self.times) >= MAX_POINTS or (len(self.times) > 1 and self.times[-1] - self.times[0] >= MAX_PIECE_NS)

    def next_piece(self) -> LivePath:
        """Return the path that continues this one; it begins with this one's last point."""
        return LivePath(self.piece + 1, self.times[-1:], self.boxes[-1:])


def pack(path: LivePath, aspect: float = 1.0) -> bytes:
    """Return the bytes of a path, thinned; `aspect` is the width of the frame by its height."""
    times = np.array(path.times, np.int64)
    boxes = np.array([box or (0.0, 0.0, 0.0, 0.0) for box in path.boxes], np.float64).reshape(-1, 4)
    keep = _thinned((times - times[0]) / NS_PER_S, boxes * (aspect, 1.0, aspect, 1.0))
    ms = np.rint((times[keep] - times[0]) / NS_PER_MS).astype(np.int64)
    steps = np.diff(ms, prepend=0)
    points = np.zeros(len(keep), _POINT)
    points["ms"] = np.minimum(steps, _FULL_MS)
    whole = np.clip(np.rint(boxes[keep] * _FULL), 0, _FULL)
    whole[boxes[keep][:, 3] > 0, 3] = np.maximum(whole[boxes[keep][:, 3] > 0, 3], 1)
    points["x"], points["y"], points["w"], points["h"] = whole.T
    return _with_pauses(points, steps).tobytes()


def _with_pauses(points: NDArray[np.void], steps: NDArray[np.int64]) -> NDArray[np.void]:
    """Repeat points before steps that do not fit into 16 bits; an object unseen for so long is at a break anyway."""
    if not len(steps) or steps.max() <= _FULL_MS:
        return points
    parts = []
    for at, step in enumerate(steps.tolist()):
        while step > _FULL_MS:
            pause = points[max(at - 1, 0)].copy()
            pause["ms"] = _FULL_MS
            parts.append(pause)
            step -= _FULL_MS
        point = points[at].copy()
        point["ms"] = step
        parts.append(point)
    return np.array(parts, _POINT)


def _thinned(seconds: Floats, boxes: Floats) -> list[int]:
    """Return the points to keep: from each one, go as far as the points in between lie on the way (Douglas-Peucker)."""
    seen = boxes[:, 3] > 0
    edges = np.flatnonzero(~seen | np.append(True, ~seen[:-1]) | np.append(~seen[1:], True)).tolist()
    keep = set(edges)
    stack = list(itertools.pairwise(edges))
    while stack:
        first, last = stack.pop()
        if last - first < 2 or not seen[first]:
            continue
        inner = slice(first + 1, last)
        share = (seconds[inner] - seconds[first]) / max(seconds[last] - seconds[first], 1e-9)
        on_the_way = boxes[first] + share[:, None] * (boxes[last] - boxes[first])
        off = np.abs(boxes[inner] - on_the_way).max(axis=1) / np.maximum(boxes[inner, 3], 1e-9)
        worst = int(off.argmax())
        if off[worst] > TOLERANCE:
            middle = first + 1 + worst
            keep.add(middle)
            stack += [(first, middle), (middle, last)]
    return sorted(keep)


def unpack(path: bytes) -> tuple[Floats, Floats]:
    """Return the (P,) seconds since the path's begin and the (P, 4) boxes: x, y, width, height in shares of the frame.

    x and y are the middle of the lower edge. From a point of height 0 to the next one, the object was not seen.
    """
    points = np.frombuffer(path[: len(path) - len(path) % _POINT.itemsize], _POINT)
    boxes = np.stack([points[name].astype(np.float64) / _FULL for name in ("x", "y", "w", "h")], axis=1)
    return np.cumsum(points["ms"].astype(np.int64)) / 1000.0, boxes


def box_at(seconds: Floats, boxes: Floats, at_s: float) -> Floats | None:
    """Return x, y, width and height at a time; None where the object was not seen."""
    if not len(seconds) or not seconds[0] - 1e-3 <= at_s <= seconds[-1] + 1e-3:
        return None
    after = int(np.clip(np.searchsorted(seconds, at_s), 1, max(len(seconds) - 1, 1)))
    if len(seconds) == 1:
        return boxes[0] if boxes[0, 3] > 0 else None
    before = after - 1
    if boxes[before, 3] <= 0 or boxes[after, 3] <= 0:
        nearest = before if at_s <= seconds[before] else after
        return boxes[nearest] if boxes[nearest, 3] > 0 and abs(at_s - seconds[nearest]) < 1e-3 else None
    share = np.clip((at_s - seconds[before]) / max(seconds[after] - seconds[before], 1e-9), 0.0, 1.0)
    found: Floats = boxes[before] + share * (boxes[after] - boxes[before])
    return found
