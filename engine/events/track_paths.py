"""Compact paths of tracks: sampled a few times a second, thinned where the object moved evenly, ten bytes per point.

A point is milliseconds since the previous one, the middle of the box's lower edge, its width and its height; the last
four in 1/65535 of the frame. Between two points the object moved evenly, to within `TOLERANCE` of its height. A point
of height 0 says that the object was not seen from there to the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_MS, NS_PER_S

SAMPLE_NS = NS_PER_S // 5
BREAK_NS = NS_PER_S
"""An object unseen for longer than this is not assumed to have moved evenly."""
TOLERANCE = 0.03
MAX_POINTS = 600
MAX_PIECE_NS = 120 * NS_PER_S
_POINT = np.dtype([("ms", "<u2"), ("x", "<u2"), ("y", "<u2"), ("w", "<u2"), ("h", "<u2")])
_FULL = 65535
_FULL_MS = 65535
Floats = NDArray[np.float64]
Times = NDArray[np.int64]


@dataclass(slots=True)
class LivePath:
    """The part of a track's path that is not stored yet.

    Attributes:
        piece: its number among the pieces of the track, from 0.
        times: (N,) ns, in parts.
        boxes: (N, 4) x, y, width and height in shares of the frame, in parts.
        count: number of points.
    """

    piece: int = 0
    times: list[Times] = field(default_factory=list)
    boxes: list[Floats] = field(default_factory=list)
    count: int = 0

    def add(self, times: Times, boxes: Floats) -> None:
        """Add (N,) times in ns and (N, 4) boxes; times must increase, including from one call to the next."""
        self.times.append(times)
        self.boxes.append(boxes)
        self.count += len(times)

    @property
    def first_ns(self) -> int:
        """Time of the first point."""
        return int(self.times[0][0])

    @property
    def last_ns(self) -> int:
        """Time of the last point."""
        return int(self.times[-1][-1])

    @property
    def is_full(self) -> bool:
        """Whether this piece is due to be stored."""
        return self.count >= MAX_POINTS or (self.count > 1 and self.last_ns - self.first_ns >= MAX_PIECE_NS)

    def next_piece(self) -> LivePath:
        """Return the path that continues this one; it begins with this one's last point."""
        return LivePath(self.piece + 1, [self.times[-1][-1:]], [self.boxes[-1][-1:]], 1)


def pack(path: LivePath, aspect: float = 1.0) -> bytes:
    """Return the bytes of a path, thinned; `aspect` is the width of the frame divided by its height."""
    return pack_all([path], [aspect])[0]


def pack_all(paths: Sequence[LivePath], aspects: Sequence[float]) -> list[bytes]:
    """Return the bytes of paths, thinned together, which costs little more than one.

    Args:
        paths: at least one, each with at least one point.
        aspects: the width of the frame divided by its height, for each path.
    """
    times = np.concatenate([part for path in paths for part in path.times])
    boxes = np.concatenate([part for path in paths for part in path.boxes])
    path_of = np.repeat(np.arange(len(paths)), [path.count for path in paths])
    times, boxes, path_of = _with_breaks(times, boxes, path_of)
    is_first = _differ(path_of)
    since_ns = times - times[is_first][path_of]
    scale = np.ones((len(times), 4))
    scale[:, 0] = scale[:, 2] = np.asarray(aspects, np.float64)[path_of]
    keep = _thinned(since_ns / NS_PER_S, boxes * scale, is_first)
    ms = np.rint(since_ns[keep] / NS_PER_MS).astype(np.int64)
    steps = np.where(is_first[keep], 0, ms - np.roll(ms, 1))
    points = _points(steps, boxes[keep])
    begins = is_first[keep].nonzero()[0].tolist()
    spans = zip(begins, [*begins[1:], len(keep)], strict=True)
    return [_with_pauses(points[begin:end], steps[begin:end]).tobytes() for begin, end in spans]


def _points(steps: Times, boxes: Floats) -> NDArray[np.void]:
    """Return the points, with steps beyond 16 bits clipped."""
    points = np.zeros(len(steps), _POINT)
    points["ms"] = np.minimum(steps, _FULL_MS)
    whole = np.clip(np.rint(boxes * _FULL), 0, _FULL)
    whole[:, 3] = np.where(boxes[:, 3] > 0, np.maximum(whole[:, 3], 1), 0)
    for column, name in enumerate(("x", "y", "w", "h")):
        points[name] = whole[:, column]
    return points


def _with_breaks(times: Times, boxes: Floats, path_of: Times) -> tuple[Times, Floats, Times]:
    """Insert a point of height 0 where an object was not seen for a while."""
    gone = ((times[1:] - times[:-1] > BREAK_NS) & (path_of[1:] == path_of[:-1])).nonzero()[0]
    if not len(gone):
        return times, boxes, path_of
    after = gone + 1
    return (
        np.insert(times, after, times[gone] + NS_PER_MS),
        np.insert(boxes, after, 0.0, axis=0),
        np.insert(path_of, after, path_of[gone]),
    )


def _with_pauses(points: NDArray[np.void], steps: Times) -> NDArray[np.void]:
    """Repeat points before steps that do not fit into 16 bits; an object unseen for so long is at a break anyway."""
    if steps.max() <= _FULL_MS:
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


def _thinned(seconds: Floats, boxes: Floats, is_first: NDArray[np.bool_]) -> Times:
    """Return the points to keep (Douglas-Peucker, all spans at once); the others lie between two of these."""
    seen = boxes[:, 3] > 0
    is_edge = ~seen | is_first
    is_edge[1:] |= ~seen[:-1]
    is_edge[:-1] |= ~seen[1:] | is_first[1:]
    is_edge[-1] = True
    per_height = np.where(seen, 1 / np.maximum(boxes[:, 3], 1e-9), 0.0)
    columns = np.concatenate((seconds[None], boxes.T, per_height[None]))
    is_kept, kept = is_edge, is_edge.nonzero()[0]
    first, last = kept[:-1], kept[1:]
    while True:
        is_open = last - first > 1
        first, last = first[is_open], last[is_open]
        if not len(first):
            break
        middle, is_split = _worst(columns, first, last)
        first, middle, last = first[is_split], middle[is_split], last[is_split]
        is_kept[middle] = True
        first, last = np.concatenate((first, middle)), np.concatenate((middle, last))
    result: Times = is_kept.nonzero()[0]
    return result


def _worst(columns: Floats, first: Times, last: Times) -> tuple[Times, NDArray[np.bool_]]:
    """Return which point of each span is farthest from the line between its ends, and whether it is too far.

    Args:
        columns: (6, N) time, x, y, width, height, and the weight of a distance, of all points.
        first: (S,) the point before each span; the span is not empty.
        last: (S,) the point after it.
    """
    ends = columns[:5].take(last, axis=1)
    line = columns[:5].take(first, axis=1)
    ends -= line
    np.maximum(ends[0], 1e-9, out=ends[0])
    counts = last - first - 1
    begins = counts.cumsum() - counts
    span = np.arange(len(first)).repeat(counts)
    points = np.arange(len(span)) + (first + 1 - begins)[span]
    off, vector = columns.take(points, axis=1), ends.take(span, axis=1)
    off[:5] -= line.take(span, axis=1)
    off[0] /= vector[0]
    vector[1:] *= off[0]
    off[1:5] -= vector[1:]
    np.abs(off[1:5], out=off[1:5])
    away = np.maximum.reduce(off[1:5])
    away *= off[5]
    worst = np.maximum.reduceat(away, begins)
    candidates = (away == worst[span]).nonzero()[0][::-1]
    worst_at = first + 1
    worst_at[span[candidates]] = points[candidates]  # of equals, the first one, which is assigned last
    return worst_at, worst > TOLERANCE


def _differ(numbers: Times) -> NDArray[np.bool_]:
    """Return (N,) bool, whether each number differs from the previous one; True for the first."""
    found = np.ones(len(numbers), np.bool_)
    np.not_equal(numbers[1:], numbers[:-1], out=found[1:])
    return found


def unpack(path: bytes) -> tuple[Floats, Floats]:
    """Return the (P,) seconds since the path began and the (P, 4) boxes: x, y, width, height as fractions of the frame.

    x and y are the middle of the lower edge. From a point of height 0 to the next one, the object was not seen.
    """
    seconds, boxes, _ = unpack_all([path])
    return seconds, boxes


def unpack_all(paths: Sequence[bytes]) -> tuple[Floats, Floats, list[int]]:
    """Return seconds and boxes of several paths, one after the other, and how many points each has."""
    size = _POINT.itemsize
    counts = [len(path) // size for path in paths]
    whole = b"".join(path[: count * size] for path, count in zip(paths, counts, strict=True))
    points = np.frombuffer(whole, _POINT)
    boxes = np.empty((len(points), 4))
    for column, name in enumerate(("x", "y", "w", "h")):
        boxes[:, column] = points[name]
    boxes /= _FULL
    ms = np.cumsum(points["ms"], dtype=np.int64)
    begins = np.cumsum([0, *counts])[:-1]
    before = np.concatenate(([0], ms))[begins]  # of the paths before
    return (ms - np.repeat(before, counts)) / 1000.0, boxes, counts


def box_at(seconds: Floats, boxes: Floats, at_s: float) -> Floats | None:
    """Return the (4,) x, y, width and height at a time; None where the object was not seen.

    Args:
        seconds: (N,) times of the path, increasing.
        boxes: (N, 4) x, y, width and height at these times; a height of 0 where the object was not seen.
        at_s: the wanted time.
    """
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
