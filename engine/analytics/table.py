"""The stored state of one source's objects: one column per fact, one entry per identity.

Numbers lie in one block of memory and flags in another, and each column is contiguous over the objects. The entries of
the observed objects are taken out together, changed in place, and put back together. All numbers are float64: an
operation on a few contiguous numbers of one type costs a tenth of one that must stride, broadcast or convert. Times are
seconds since the first frame, exact to the nanosecond for months.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]

NEVER_S = -1e12
RING = 32
"""Number of filtered observations kept for the path across a line."""
GROUND_RING = 64
"""Number of ground positions kept to compute speed: one second at up to 64 fps."""
_NUMBER, _FLAG = 0, 1
Shape = tuple[int, ...]
Place = tuple[int, int | slice, Shape | None]
Blocks = tuple[NDArray[np.float64], NDArray[np.bool_]]


def columns_of(zones: int, lines: int) -> dict[str, tuple[int, Shape]]:
    """Return the kind and shape of each column; positions are pixels at the current frame size.

    `z_*` has one entry per zone, `l_*` one per line. An identity is outside a zone (neither `z_in` nor `z_moving`),
    entering it (`z_moving`), inside (`z_in`), or leaving it (both). `l_far` is the signed distance of the farthest
    point on the current side of a line, 0 before there is one; `l_point` is its box, time and observation number.
    Neighbours of `GROUPS` must stay neighbours; a view has a copy of the group `shown`, and of all flags.
    """
    return {
        "track_id": (_NUMBER, ()),
        "identity": (_NUMBER, ()),
        "row": (_NUMBER, ()),  # row in this frame's tracks, -1 if absent
        "class_id": (_NUMBER, ()),
        "score": (_NUMBER, ()),
        "first_s": (_NUMBER, ()),
        "last_s": (_NUMBER, ()),  # last plausible observation
        "present_s": (_NUMBER, ()),  # last observation or held frame
        "ended": (_FLAG, ()),
        "eligible": (_FLAG, ()),
        "parked": (_FLAG, ()),
        "older_s": (_NUMBER, ()),  # an earlier position and its time, for the velocity
        "older": (_NUMBER, (2,)),
        "left": (_NUMBER, ()),  # the filtered box
        "top": (_NUMBER, ()),
        "right": (_NUMBER, ()),
        "bottom": (_NUMBER, ()),
        "box_s": (_NUMBER, ()),
        "seq": (_NUMBER, ()),  # observations of this path so far
        "hits": (_NUMBER, ()),  # believed observations so far
        "one": (_NUMBER, ()),  # always 1, for the constant term of a linear function of a point
        "moved": (_FLAG, ()),
        "rest_s": (_NUMBER, ()),
        "plane": (_NUMBER, ()),
        "metres": (_NUMBER, (2,)),
        "ground_count": (_NUMBER, ()),
        "z_in": (_FLAG, (zones,)),
        "z_moving": (_FLAG, (zones,)),
        "z_since": (_NUMBER, (zones,)),
        "z_out": (_NUMBER, (zones,)),
        "z_told": (_FLAG, (zones,)),
        "rest": (_NUMBER, (2,)),
        "mark_s": (_NUMBER, ()),  # the position that becomes the earlier one next, and its time
        "mark": (_NUMBER, (2,)),
        "start": (_NUMBER, (2,)),
        "class_weight": (_NUMBER, ()),
        "score_sum": (_NUMBER, ()),
        "shadow_s": (_NUMBER, ()),  # last seen as a shadow of another box
        "absent": (_FLAG, ()),  # was not in the tracks of the previous frame
        "stood": (_FLAG, ()),  # its box is in the list of parked places
        "spot": (_NUMBER, ()),  # number of its parked spot, -1: none
        "jumps": (_NUMBER, ()),
        "oldest_box": (_NUMBER, (4,)),  # the last three boxes as observed, and their times
        "oldest_s": (_NUMBER, ()),
        "middle_box": (_NUMBER, (4,)),
        "middle_s": (_NUMBER, ()),
        "newest_box": (_NUMBER, (4,)),
        "newest_s": (_NUMBER, ()),
        "gap_seq": (_NUMBER, ()),  # the observation that ended an absence
        "l_far": (_NUMBER, (lines,)),
        "l_point": (_NUMBER, (6, lines)),
        "l_turns": (_NUMBER, (lines, 2)),
        "l_counted": (_FLAG, (lines, 2)),
    }


GROUPS = {
    "shown": ("track_id", "z_out"),
    "who": ("track_id", "score"),
    "seen_s": ("last_s", "present_s"),
    "place": ("older_s", "box_s"),
    "box": ("left", "bottom"),
    "lower": ("bottom", "box_s"),
    "placed": ("left", "box_s"),
    "point": ("left", "seq"),
    "affine": ("left", "one"),
    "oldest": ("oldest_box", "oldest_s"),
    "middle": ("middle_box", "middle_s"),
    "newest": ("newest_box", "newest_s"),
    "counts": ("seq", "hits"),
    "since": ("rest", "mark_s"),
    "marked": ("mark_s", "mark"),
    "marked_before": ("older_s", "older"),
}
"""Names of neighbouring columns, from the first to the last, that one operation changes or reads together."""
_AT_BIRTH: dict[str, float] = {
    **dict.fromkeys(("first_s", "last_s", "present_s", "shadow_s", "l_turns"), NEVER_S),
    **dict.fromkeys(("row", "spot", "gap_seq", "plane"), -1.0),
    **dict.fromkeys(("oldest_s", "middle_s", "newest_s"), -np.inf),
    "metres": np.nan,
    "one": 1.0,
}


def _layout(columns: dict[str, tuple[int, Shape]]) -> tuple[dict[str, Place], tuple[int, int]]:
    """Return the position of each column in its block, and the number of rows in each block."""
    at: dict[str, Place] = {}
    used = [0, 0]
    for name, (kind, shape) in columns.items():
        size = int(np.prod(shape))
        first = used[kind]
        used[kind] += size
        at[name] = kind, first if shape == () else slice(first, first + size), shape if len(shape) > 1 else None
    for name, (begin, end) in GROUPS.items():
        at[name] = at[begin][0], slice(_first(at[begin][1]), _first(at[end][1]) + int(np.prod(columns[end][1]))), None
    return at, (used[_NUMBER], used[_FLAG])


def _first(where: int | slice) -> int:
    return where if isinstance(where, int) else int(where.start)


class Rows(dict[str, NDArray[Any]]):
    """Columns by name: views of (N,), (K, N) or (K, L, N) arrays, created on first access.

    Assigning to a name writes into the column.

    Attributes:
        count: number of objects, N.
    """

    __slots__ = ("_at", "_blocks", "count")

    def __init__(self, at: dict[str, Place], blocks: Blocks) -> None:
        self._at = at
        self._blocks = blocks
        self.count: int = blocks[0].shape[1]

    def __missing__(self, name: str) -> NDArray[Any]:
        kind, where, shape = self._at[name]
        column: NDArray[Any] = self._blocks[kind][where]
        column = column if shape is None else column.reshape(*shape, self.count)
        dict.__setitem__(self, name, column)
        return column

    def __setitem__(self, name: str, value: Any) -> None:
        self[name][...] = value

    def take(self, index: Index, into: Rows | None = None) -> Rows:
        """Return a copy of the columns of (K,) objects; reuses `into` if its count and columns match."""
        numbers, flags = self._blocks
        if into is None or into.count != len(index) or into._at is not self._at:
            return Rows(self._at, (numbers.take(index, axis=1), flags.take(index, axis=1)))
        numbers.take(index, axis=1, out=into._blocks[0], mode="clip")
        flags.take(index, axis=1, out=into._blocks[1], mode="clip")
        return into

    def put(self, index: Index, rows: Rows) -> None:
        """Write back what `take` returned for the same (K,) objects."""
        if rows is self:
            return
        for block, other in zip(self._blocks, rows._blocks, strict=True):
            block[:, index] = other

    def frozen(self) -> Rows:
        """Return a read-only copy of the columns in the group `shown` and of all flags."""
        numbers, flags = self["shown"].copy(), self._blocks[1].copy()
        numbers.setflags(write=False)
        flags.setflags(write=False)
        return Rows(self._at, (numbers, flags))

    @property
    def blocks(self) -> Blocks:
        """The numbers and the flags."""
        return self._blocks

    def joined(self, new: Blocks, count: int) -> Rows:
        """Return these objects and `count` equal new ones, whose blocks have one column."""
        numbers, flags = (
            np.concatenate((block, *[more] * count), axis=1) for block, more in zip(self._blocks, new, strict=True)
        )
        return Rows(self._at, (numbers, flags))


@lru_cache(maxsize=32)
def _layout_of(zones: int, lines: int) -> tuple[dict[str, Place], tuple[int, int]]:
    return _layout(columns_of(zones, lines))


@lru_cache(maxsize=32)
def _at_birth(zones: int, lines: int) -> tuple[dict[str, Place], Blocks]:
    """Return the position of each column in the blocks, and the blocks of one new object."""
    at, (numbers, flags) = _layout_of(zones, lines)
    rows = Rows(at, (np.zeros((numbers, 1)), np.zeros((flags, 1), np.bool_)))
    for column, value in _AT_BIRTH.items():
        rows[column] = value
    return at, rows.blocks


def new_rows(zones: int, lines: int, count: int) -> Rows:
    """Return initial columns for `count` new objects."""
    at, (numbers, flags) = _at_birth(zones, lines)
    return Rows(at, (numbers.repeat(count, axis=1), flags.repeat(count, axis=1)))


class Ring:
    """Past values of objects: (…, K, S) with one slot for each object."""

    __slots__ = ("values",)

    def __init__(self, *shape: int) -> None:
        self.values = np.zeros((*shape, 0))

    @property
    def flat(self) -> NDArray[np.float64]:
        """The values with their last two axes flattened; a view."""
        return self.values.reshape(*self.values.shape[:-2], -1)

    def hold(self, slots: int) -> None:
        """Make room for this many slots at least."""
        before = self.values
        held = before.shape[-1]
        if slots > held:
            self.values = np.zeros((*before.shape[:-1], max(slots, 2 * held, 8)))
            self.values[..., :held] = before


class Paths:
    """Past positions of the table's objects, in rings of K entries.

    Each object has a slot in the rings, which does not change while it lives. Boxes wait in a list before they are
    written, many frames at once. Ground positions are recorded from the first time that they are read.
    """

    __slots__ = ("_boxes", "_freed", "_ground", "_ground_s", "_of_index", "_unused", "_used", "_waiting", "slot")

    def __init__(self) -> None:
        self.slot: Index = np.zeros(0, np.intp)  # of each of the table's rows; replaced, never changed
        self._boxes = Ring(5, RING)  # filtered boxes and their times
        self._ground: Ring | None = None
        self._ground_s = Ring(GROUND_RING)
        self._waiting: list[tuple[Index, NDArray[np.float64]]] = []  # slots and points
        self._of_index: tuple[Index, Index, Index] | None = None  # rows, all slots, and the slots of the rows
        self._used = 0  # number of slots
        self._unused: list[int] = []  # slots without an object
        self._freed: list[int] = []  # likewise, but boxes of objects that ended may be waiting for them

    @property
    def boxes(self) -> NDArray[np.float64]:
        """(5, K, S) filtered boxes and their times, by slot; observation number n, from 0, is at n % K."""
        if self._waiting:
            slot = np.concatenate([slot for slot, _ in self._waiting])
            points = np.concatenate([points for _, points in self._waiting], axis=1)
            self._waiting.clear()
            at = ((points[5] - 1) % RING).astype(np.intp)
            self._boxes.flat[:, at * self._boxes.values.shape[-1] + slot] = points[:5]
        self._unused += self._freed
        self._freed.clear()
        return self._boxes.values

    @property
    def ground(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(2, K, S) positions in metres and (K, S) their times, by slot, the newest last."""
        if self._ground is None:
            self._ground = Ring(2, GROUND_RING)
            self._ground.hold(self._used)
            self._ground_s.hold(self._used)
        return self._ground.values, self._ground_s.values

    def add(self, index: Index, point: NDArray[np.float64]) -> None:
        """Append one filtered box, its time and its number from 1, (6, N), for each object at `index`."""
        if len(self._waiting) >= RING:  # with more, two boxes of one object would share a place in the ring
            _ = self.boxes
        known = self._of_index
        if known is None or known[0] is not index or known[1] is not self.slot:
            known = self._of_index = index, self.slot, self.slot[index]
        self._waiting.append((known[2], point.copy()))

    @property
    def _rings(self) -> list[Ring]:
        return [self._boxes] if self._ground is None else [self._boxes, self._ground, self._ground_s]

    def bear(self, count: int) -> None:
        """Add new objects."""
        if len(self._unused) < count and self._freed:
            _ = self.boxes
        while len(self._unused) < count:
            self._unused.append(self._used)
            self._used += 1
        born = [self._unused.pop() for _ in range(count)]
        self.slot = np.concatenate((self.slot, np.array(born, np.intp)))
        for ring in self._rings:
            ring.hold(self._used)

    def keep(self, index: Index) -> None:
        """Forget all objects except those of (K,) rows."""
        slot, self.slot = self.slot, self.slot[index]
        self._freed += set(slot.tolist()).difference(self.slot.tolist())

    def stretch(self, by_box: NDArray[np.float64]) -> None:
        """Scale the boxes; `by_box` is (4, 1)."""
        self.boxes[:4] *= by_box[..., None]


class Table:
    """The objects, their paths, and a map from track id to row."""

    def __init__(self, zones: int, lines: int) -> None:
        self._places = zones, lines
        self.rows = new_rows(zones, lines, 0)
        self.paths = Paths()
        self.row_of: dict[int, int] = {}
        self._next_identity = 1

    def __len__(self) -> int:
        return self.rows.count

    def add(self, track_ids: list[int]) -> range:
        """Add one new identity per track id, and return their K rows."""
        first, count = self.rows.count, len(track_ids)
        self.rows = rows = self.rows.joined(_at_birth(*self._places)[1], count)
        rows["track_id"][first:] = track_ids
        rows["identity"][first:] = range(self._next_identity, self._next_identity + count)
        self._next_identity += count
        self.paths.bear(count)
        added = range(first, first + count)
        self.row_of.update(zip(track_ids, added, strict=True))
        return added

    def rename(self, row: int, track_id: int) -> None:
        """Assign the row of an identity to another track."""
        self.row_of.pop(int(self.rows["track_id"][row]), None)
        self.rows["track_id"][row] = track_id
        self.row_of[track_id] = row

    def remove(self, rows: Index) -> None:
        """Forget the identities of (K,) rows."""
        keep = np.ones(self.rows.count, np.bool_)
        keep[rows] = False
        index = keep.nonzero()[0]
        self.rows = self.rows.take(index)
        self.paths.keep(index)
        self.row_of = dict(zip(self.rows["track_id"].astype(np.int64).tolist(), range(len(index)), strict=True))

    def rearrange(self, zones: list[int], lines: list[int]) -> None:
        """Rearrange the places: each new one gives the index of the old one whose state it keeps, -1 for none."""
        self._places = len(zones), len(lines)
        rows = new_rows(len(zones), len(lines), self.rows.count)
        for column in columns_of(0, 0):
            kept = zones if column.startswith("z_") else lines if column.startswith("l_") else None
            if kept is None:
                rows[column] = self.rows[column]
                continue
            new = [index for index, old in enumerate(kept) if old >= 0]
            _by_place(rows, column)[new] = _by_place(self.rows, column)[[kept[index] for index in new]]
        self.rows = rows

    def stretch(self, by_x: float, by_y: float) -> None:
        """Scale every position to a new frame size."""
        by_box = np.array((by_x, by_y, by_x, by_y))[:, None]
        self.paths.stretch(by_box)
        self.rows["l_point"][:4] *= by_box[..., None]
        for column in ("oldest_box", "middle_box", "newest_box", "box"):
            self.rows[column] *= by_box
        for column in ("start", "rest", "mark", "older"):
            self.rows[column] *= by_box[:2]
        self.rows["l_far"] *= (by_x * by_y) ** 0.5


def _by_place(rows: Rows, column: str) -> NDArray[Any]:
    """Return a column whose first axis is the place."""
    return rows[column].swapaxes(0, 1) if column == "l_point" else rows[column]
