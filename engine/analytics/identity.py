"""Identities: births, stitching, shadows, parked objects, and eligibility for events."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from operator import sub

import numpy as np
from numpy.typing import NDArray

from engine.analytics.geometry import Flags, Floats, all_of, any_of
from engine.analytics.motion import SHORTEST_S, feet
from engine.analytics.table import Index, Rows
from engine.boxes import iou_matrix
from engine.errors import ConfigError

SHADOW_SHARE, SHADOW_SCORE, SHADOW_S = 0.1, 0.1, 1.0
FEW = 64
"""Maximum number of boxes to compare one by one."""
STITCH_S = 1.5
STITCH_HEIGHTS, STITCH_HEIGHTS_PER_S, STITCH_RATIO = 0.35, 0.5, 1.4
PARKED_AFTER_S = 60.0
PARKED_KEPT_S = 7 * 86_400.0
PARKED_MOST = 64
PARKED_IOU = 0.6
_ROUNDING_S = 1e-9


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Which objects may cause events.

    Attributes:
        min_score: least mean score of a track.
        min_seen_s: least time between the first and the last observation; two observations are needed in any case.
        min_height: least height as a fraction of the frame's; None: any.
        max_height: greatest height, likewise.
        ignore_parked: ignore objects that appear where one has been parked, until they move.

    Raises:
        ConfigError: no height is in range.
    """

    min_score: float = 0.4
    min_seen_s: float = 0.3
    min_height: float | None = None
    max_height: float | None = None
    ignore_parked: bool = True

    def __post_init__(self) -> None:
        low, high = self.min_height, self.max_height
        if low is not None and high is not None and low > high:
            raise ConfigError(f"min_height {low:g} is above max_height {high:g}: nothing could ever count")

    def note(
        self,
        rows: Rows,
        frame_height: int,
        now_s: float,
        *,
        newest_s: float,
        is_shadowed: bool,
        has_parked: bool,
    ) -> None:
        """Set which of the observed rows are eligible now.

        Args:
            rows: columns of the observed identities.
            frame_height: of the frame in pixels.
            now_s: time of the frame.
            newest_s: no object was first seen later.
            is_shadowed: whether any object may have been a shadow within `SHADOW_S`.
            has_parked: whether any object may be parked.
        """
        hits, eligible = rows["hits"], rows["eligible"]
        np.greater_equal(rows["score_sum"], self.min_score * hits, out=eligible)
        oldest_s = now_s - self.min_seen_s + _ROUNDING_S
        if newest_s > oldest_s:
            eligible &= rows["first_s"] <= oldest_s
        if self.min_seen_s <= 2 * _ROUNDING_S:  # otherwise `min_seen_s` already implies two observations
            eligible &= hits >= 2
        if is_shadowed:
            eligible &= rows["shadow_s"] < now_s - SHADOW_S
        if has_parked and self.ignore_parked:
            eligible &= ~rows["parked"]
        if self.min_height is not None or self.max_height is not None:
            share = (rows["bottom"] - rows["top"]) / frame_height
            eligible &= (share >= (self.min_height or 0)) & (share <= (self.max_height or np.inf))


def note_observed(rows: Rows, class_id: Floats, score: Floats) -> None:
    """Sum up the scores, and update each object's class by weighted vote: a new one must outweigh the current one.

    Args:
        rows: the N observed objects.
        class_id: (N,) of the detections.
        score: (N,) of the detections.
    """
    rows["score"][:] = score
    same = rows["class_id"] == class_id
    if all_of(same):
        weight, total = rows["class_weight"], rows["score_sum"]
        weight += score
        total += score
        return
    rows["score_sum"] += score
    weight = rows["class_weight"] + np.where(same, score, -score)
    rows["class_id"] = np.where(weight <= 0, class_id, rows["class_id"])
    rows["class_weight"] = np.abs(weight)


def shadows(box: Floats, class_id: Floats, score: Floats, edges: list[list[float]]) -> Flags | None:
    """Return (N,) bool, which of (4, N) boxes are a second box on part of the same object; None if there are none.

    A shadow is the smaller of two boxes of one class whose left, right, and upper or lower edges agree within 10 % of
    the larger box, unless it scores more than 0.1 higher.

    Args:
        box: (4, N) pixels.
        class_id: (N,).
        score: (N,).
        edges: the four rows of `box` as lists.
    """
    left, _, right, _ = edges
    if len(left) < 2:
        return None
    reach = SHADOW_SHARE * max(map(sub, right, left))
    if len(left) <= FEW:
        parts = _parts_of_few(class_id, score, edges, reach)
        if not parts:
            return None
        result = np.zeros(len(left), np.bool_)
        result[parts] = True
        return result
    one, two = _near(box[0], box[2], reach)
    size = (box[2] - box[0]) * (box[3] - box[1])
    whole = np.where(size[one] > size[two], one, two)
    return _are_parts(box, class_id, score, np.where(whole == one, two, one), whole)


def _parts_of_few(class_id: Floats, score: Floats, edges: list[list[float]], reach: float) -> list[int]:
    """Return which boxes are a shadow of another; for a few boxes, plain numbers are faster than columns.

    Args:
        class_id: (N,).
        score: (N,).
        edges: left, top, right and bottom of the boxes.
        reach: largest distance between the edges of two boxes that may be shadows of each other.
    """
    left, top, right, bottom = edges
    order, ordered = sorted(range(len(left)), key=left.__getitem__), sorted(left)
    gaps = map(sub, ordered[1:], ordered)
    parts = []
    for at in [at for at, gap in enumerate(gaps) if gap <= reach]:
        first = order[at]
        for second in order[at + 1 :]:
            if left[second] - left[first] > reach:
                break
            off = min(abs(top[first] - top[second]), abs(bottom[first] - bottom[second]))
            if abs(right[second] - right[first]) > reach or off > SHADOW_SHARE * max(
                bottom[first] - top[first], bottom[second] - top[second]
            ):
                continue
            sizes = [(right[n] - left[n]) * (bottom[n] - top[n]) for n in (first, second)]
            whole, part = (first, second) if sizes[0] > sizes[1] else (second, first)
            wide, tall = SHADOW_SHARE * (right[whole] - left[whole]), SHADOW_SHARE * (bottom[whole] - top[whole])
            if (
                abs(left[part] - left[whole]) <= wide
                and abs(right[part] - right[whole]) <= wide
                and off <= tall
                and class_id[part] == class_id[whole]
                and score[part] <= score[whole] + SHADOW_SCORE
            ):
                parts.append(part)
    return parts


def _near(left: Floats, right: Floats, reach: float) -> tuple[Index, Index]:
    """Return the pairs of boxes whose left and right edges are closer than `reach`, in order of the left edges."""
    order = left.argsort(kind="stable")
    sorted_left, sorted_right = left[order], right[order]
    pairs = [(order[:0], order[:0])]
    for apart in range(1, len(left)):
        near = (sorted_left[apart:] - sorted_left[:-apart] <= reach).nonzero()[0]
        if not len(near):
            break
        near = near[np.abs(sorted_right[near + apart] - sorted_right[near]) <= reach]
        pairs.append((order[near], order[near + apart]))
    return np.concatenate([one for one, _ in pairs]), np.concatenate([two for _, two in pairs])


def _are_parts(box: Floats, class_id: Floats, score: Floats, part: Index, whole: Index) -> Flags | None:
    """Return (N,) bool, which boxes are a shadow in one of the given pairs; None if there are none."""
    off = np.abs(box[:, part] - box[:, whole])
    wide, tall = (SHADOW_SHARE * (box[side + 2, whole] - box[side, whole]) for side in (0, 1))
    shadow = (off[0] <= wide) & (off[2] <= wide) & (np.minimum(off[1], off[3]) <= tall)
    shadow &= (class_id[part] == class_id[whole]) & (score[part] <= score[whole] + SHADOW_SCORE)
    if not any_of(shadow):
        return None
    result = np.zeros(box.shape[1], np.bool_)
    result[part[shadow]] = True
    return result


def stitched(rows: Rows, taken: Container[int], box: Floats, class_id: Floats, now_s: float) -> list[int]:
    """Return, for each of N new tracks, the row of the identity that it continues, or -1.

    A new track continues an identity that was unobserved for at most 1.5 s if it has the same class and a similar
    height, begins at the position predicted by constant velocity, and the match is unambiguous on both sides.

    Args:
        rows: the whole table.
        taken: rows of the identities observed on this frame.
        box: (4, N) boxes of the new tracks, in pixels.
        class_id: (N,) their classes.
        now_s: time of the frame.
    """
    count = len(class_id)
    old = [
        row
        for row, last_s in enumerate(rows["present_s"].tolist())
        if 0 < now_s - last_s <= STITCH_S and row not in taken
    ]
    if not old:
        return [-1] * count
    lost, classes = rows["place"].take(old, axis=1), rows["class_id"].take(old)
    if count * len(old) <= FEW:
        pairs = _few_fits(lost.T.tolist(), classes.tolist(), box.T.tolist(), class_id.tolist(), now_s)
    else:
        pairs = _many_fits(lost, classes, box, class_id, now_s)
    news, olds = Counter(new for new, _ in pairs), Counter(lost_at for _, lost_at in pairs)
    only = {new: old[at] for new, at in pairs if news[new] == olds[at] == 1}
    return [only.get(new, -1) for new in range(count)]


def _few_fits(
    lost: list[list[float]], classes: list[float], box: list[list[float]], class_id: list[float], now_s: float
) -> list[tuple[int, int]]:
    """Return the pairs of a new track and a lost identity that it may continue, computed one by one."""
    pairs = []
    for at, (older_s, older_x, older_y, x1, y1, x2, y2, box_s) in enumerate(lost):
        seconds, since_s, tall = now_s - box_s, box_s - older_s, y2 - y1
        x, y = (x1 + x2) * 0.5, y2
        speed_x, speed_y = ((x - older_x) / since_s, (y - older_y) / since_s) if since_s > SHORTEST_S else (0.0, 0.0)
        x, y = x + speed_x * seconds, y + speed_y * seconds
        reach = tall * (STITCH_HEIGHTS + STITCH_HEIGHTS_PER_S * seconds)
        for new, (left, top, right, bottom) in enumerate(box):
            ratio = (bottom - top) / tall
            if (
                math.hypot((left + right) * 0.5 - x, bottom - y) <= reach
                and 1 / STITCH_RATIO <= ratio <= STITCH_RATIO
                and class_id[new] == classes[at]
            ):
                pairs.append((new, at))
    return pairs


def _many_fits(lost: Floats, classes: Floats, box: Floats, class_id: Floats, now_s: float) -> list[tuple[int, int]]:
    """Return the same pairs as `_few_fits`, computed together; `lost` is (8, K), `box` (4, N)."""
    older_s, _, _, x1, y1, x2, y2, box_s = lost
    seconds, since_s, tall = now_s - box_s, box_s - older_s, y2 - y1
    foot = np.stack(((x1 + x2) * 0.5, y2))
    speed = np.where(since_s > SHORTEST_S, (foot - lost[1:3]) / np.maximum(since_s, SHORTEST_S), 0.0)
    reach = tall * (STITCH_HEIGHTS + STITCH_HEIGHTS_PER_S * seconds)
    offset = feet(box)[:, :, None] - (foot + speed * seconds)[:, None]
    ratio = (box[3] - box[1])[:, None] / tall
    fits = np.hypot(offset[0], offset[1]) <= reach
    fits &= (ratio <= STITCH_RATIO) & (ratio >= 1 / STITCH_RATIO)
    fits &= class_id[:, None] == classes
    new, at = fits.nonzero()
    return list(zip(new.tolist(), at.tolist(), strict=True))


class ParkedSpots:
    """Spots where objects have stood for a minute; an object that reappears there is the same one until it moves."""

    def __init__(self) -> None:
        self._boxes = np.zeros((0, 4), np.float32)
        self._numbers: list[int] = []
        self._seen_s: list[float] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def find(self, box: Floats) -> NDArray[np.int64]:
        """Return (N,), the number of the spot that each of (4, N) boxes occupies; -1 for none."""
        count = box.shape[1]
        if not self._numbers or not count:
            return np.full(count, -1)
        iou = iou_matrix(np.ascontiguousarray(box.T, np.float32), self._boxes)
        best = iou.argmax(axis=1)
        filled = iou[np.arange(count), best] >= PARKED_IOU
        return np.where(filled, np.array(self._numbers)[best], -1)

    def add(self, xyxy: Floats, now_s: float) -> int:
        """Add the spot of a (4,) box and return its number, evicting the least recently used one if full."""
        while len(self) >= PARKED_MOST or (self._seen_s and now_s - min(self._seen_s) > PARKED_KEPT_S):
            self.free(self._numbers[self._seen_s.index(min(self._seen_s))])
        number, self._next = self._next, self._next + 1
        self._boxes = np.concatenate((self._boxes, xyxy[None].astype(np.float32)))
        self._numbers.append(number)
        self._seen_s.append(now_s)
        return number

    def use(self, number: int, now_s: float) -> None:
        """Record that the spot is occupied now."""
        if number in self._numbers:
            self._seen_s[self._numbers.index(number)] = now_s

    def free(self, number: int) -> None:
        """Forget a spot; does nothing if it was already forgotten."""
        if number in self._numbers:
            at = self._numbers.index(number)
            self._boxes = np.delete(self._boxes, at, axis=0)
            del self._numbers[at], self._seen_s[at]

    def stretch(self, by_x: float, by_y: float) -> None:
        """Scale the boxes to a new frame size."""
        self._boxes = self._boxes * np.array([by_x, by_y, by_x, by_y], np.float32)

    def state(self, now_s: float) -> list[list[float]]:
        """Return rows of box and age in seconds."""
        ages = [now_s - seen_s for seen_s in self._seen_s]
        return [[*box, age] for box, age in zip(self._boxes.tolist(), ages, strict=True)]

    def restore(self, state: list[list[float]], now_s: float) -> None:
        """Restore what `state` returned."""
        for *box, age in state:
            self.add(np.array(box), now_s - age)


def note_parked(rows: Rows, spots: ParkedSpots, now_s: float) -> None:
    """Add spots for objects that have stood for a minute, and free the spots of objects that moved."""
    stand = now_s - rows["rest_s"] >= PARKED_AFTER_S
    parked, stood = rows["parked"], rows["stood"]
    for row in (stand & ~stood & ~parked).nonzero()[0].tolist():
        rows["stood"][row], rows["spot"][row] = True, spots.add(rows["box"][:, row], now_s)
    for row in ((parked & rows["moved"]) | (stood & ~stand)).nonzero()[0].tolist():
        spots.free(int(rows["spot"][row]))
        rows["parked"][row], rows["stood"][row], rows["spot"][row] = False, False, -1
