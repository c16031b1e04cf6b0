"""Decides for each frame of one camera where the detector runs: on the whole frame, in windows, or nowhere.

Boxes are held while nothing changes at their place. The detector runs again where pixels changed, where no track
follows a box yet, where a score is low or a track vanished, and on the whole frame every few seconds, after a change of
light, and when windows would cost as much. Measured in `docs/performance.md`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.boxes import Boxes, iou_matrix
from engine.data import Detections, Tracks
from engine.errors import ConfigError
from engine.flow.attention.change import CELL, Change, ChangeMap
from engine.flow.attention.cover import Grid, cover
from engine.flow.attention.follow import Followed
from engine.flow.attention.geometry import Placement, Window, in_model
from engine.flow.attention.known import Found, Known

Reason = Literal["first", "timer", "light", "crowd", "shake"]
"""Why the detector looked at a whole frame."""
Action = Literal["whole", "windows", "held", "predicted"]

MIN_CELLS = 4
"""Changed cells below which nothing moves."""
MOVING_SHARE = 0.03
MARGIN_SHARE = 0.2
LOW_SCORES = ((0.35, 0.5), (0.5, 2.0))
"""A box below this score is looked at again after so many seconds."""
WEAK_S = 0.5
MAX_WEAK = 12
WEAK_MARGIN, GROW_SHARE, GROW_LEAST = 16.0, 0.6, 64.0
SHAKE_S = 5.0
"""If every look within this time was at the whole frame, the next ones of as long a time are too, without comparing."""
MAX_GAP_S = 10.0
MAX_STEP_S = 0.5
FOUND_AGAIN_IOU = 0.4


@dataclass(frozen=True, slots=True)
class RegionWindows:
    """When the detector may run on parts of the frames of a source.

    Attributes:
        whole_s: detect on the whole frame at least this often.
        whole_quiet_s: the same while no object is known.
        min_difference: grey levels by which the average of 4 x 4 pixels of the model's frame must change.
        margin: pixels of the model's frame around the place of a change or object.
        max_hz: whole frames per second while windows do not pay off; tracks are predicted in between. None: every
            frame.
        ignore: polygons in pixels of the frame where changes do not count, such as trees and clocks.
    """

    whole_s: float = 5.0
    whole_quiet_s: float = 10.0
    min_difference: float = 10.0
    margin: float = 24.0
    max_hz: float | None = 7.5
    ignore: Sequence[Sequence[tuple[float, float]]] = ()

    def __post_init__(self) -> None:
        if min(self.whole_s, self.whole_quiet_s) <= 0 or not 0 < self.min_difference < 256 or self.margin < 0:
            raise ConfigError("windows: whole_s and whole_quiet_s must be above 0, min_difference in 1..255, margin 0+")
        if self.max_hz is not None and not self.max_hz > 0:
            raise ConfigError("windows: max_hz must be above 0")


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the detector runs on a frame.

    Attributes:
        action: `whole`, `windows`, `held` (nothing has changed: the previous boxes still hold), or `predicted`.
        windows: of `windows`, in pixels of the model's frame.
        reason: why it is `whole`.
    """

    action: Action
    windows: tuple[Window, ...] = ()
    reason: Reason | None = None


class Planner:
    """The state of one camera. For each frame, call `plan`, then `merge` unless the detector did not run, then `note`.

    Args:
        placement: of its frames in the model's frame.
        grid: of the model's frame.
        options: when to detect.
    """

    def __init__(self, placement: Placement, grid: Grid, options: RegionWindows) -> None:
        self.placement, self.grid, self.options = placement, grid, options
        self.counts: Counter[str] = Counter()
        self._change = ChangeMap(placement, options.min_difference, options.ignore)
        self._known: Known | None = None
        self._followed = Followed()
        self._cut: list[Boxes] = []
        self._weak: Boxes = np.zeros((0, 4), np.float32)
        self._weak_s = self._whole_s = self._looked_s = self._now_s = 0.0
        self._parts_s: float | None = None
        self._plain_until_s = 0.0

    def plan(self, image: NDArray[np.uint8], now_s: float) -> Plan:
        """Return where to detect on the next frame.

        Args:
            image: (H, W, 3) BGR, or (H, W) brightness.
            now_s: its time.
        """
        before_s, self._now_s = self._now_s, now_s
        made = self._made(image, now_s - before_s)
        if made.action in ("held", "windows"):
            self._parts_s = now_s
        self.counts[made.action if made.reason is None else f"whole_{made.reason}"] += 1
        return made

    def _made(self, image: NDArray[np.uint8], step_s: float) -> Plan:
        known, now_s = self._known, self._now_s
        if known is None or not 0 <= step_s <= MAX_GAP_S:
            self._known = None
            self._change.look(image)
            self._parts_s, self._plain_until_s = now_s, now_s
            return Plan("whole", reason="first")
        if now_s < self._plain_until_s:
            return self._whole_unless_recent("shake", step_s)
        change = self._change.look(image)
        if change is None:
            return Plan("whole", reason="first")
        if now_s - self._whole_s >= (self.options.whole_s if len(known) else self.options.whole_quiet_s):
            return Plan("whole", reason="timer")
        if change.is_light:
            return Plan("whole", reason="light")
        needed = self._needed(known, change, min(step_s, MAX_STEP_S))
        if not needed.any():
            return Plan("held")
        windows = cover(needed, self.grid)
        if windows is not None:
            return Plan("windows", tuple(windows))
        if self._parts_s is not None and now_s - self._parts_s >= SHAKE_S:
            self._plain_until_s, self._parts_s = now_s + SHAKE_S, None
        return self._whole_unless_recent("crowd", step_s)

    def _whole_unless_recent(self, reason: Reason, step_s: float) -> Plan:
        """Return the whole frame, or a prediction if the last detection is more recent than `max_hz` allows."""
        max_hz = self.options.max_hz
        if max_hz is not None and self._now_s - self._looked_s + step_s / 2 < 1 / max_hz:
            return Plan("predicted")
        return Plan("whole", reason=reason)

    def _needed(self, known: Known, change: Change, step_s: float) -> NDArray[np.uint8]:
        """Return the (rows, columns) cells of the grid on which to detect."""
        needed, grid, margin = self.grid.nothing(), self.grid, self.options.margin
        boxes = in_model(known.xyxy, self.placement)
        moves = _moves(boxes, change)
        for place in _unexplained(change, boxes[moves]):
            grid.mark(needed, place, margin)
        due = moves | known.is_new
        for score, after_s in LOW_SCORES:
            due |= (known.score < score) & (self._now_s - known.looked_s >= after_s - 1e-6)
        for box, velocity in zip(boxes[due], known.velocity[due], strict=True):
            moved = box + np.tile(velocity * step_s, 2)
            grid.mark(needed, moved.tolist(), max(margin, MARGIN_SHARE * float((box[2:] - box[:2]).min())))
        for box in self._followed.doubts(self._now_s):
            grid.mark(needed, box.tolist(), margin)
        for box in self._cut:
            grid.mark(needed, box[0].tolist(), 0.0)
        if len(self._weak) and self._now_s - self._weak_s >= WEAK_S - 1e-6:
            self._weak_s = self._now_s
            for box in in_model(self._weak, self.placement):
                grid.mark(needed, box.tolist(), WEAK_MARGIN)
        return needed

    def merge(self, parts: Sequence[Found]) -> Detections:
        """Merge the results of the last planned frame, and return all boxes of the camera."""
        now_s, known = self._now_s, self._known
        self._looked_s, self._cut = now_s, []
        for part in parts:
            if part.window is None or known is None:
                known = self._known = Known(part.detections, now_s)
                self._whole_s = self._weak_s = now_s
                self._weak = _unknown(part.weak, known)
            else:
                self._cut += map(_grown, known.replace_inside(part, self.placement, now_s))
            self._change.accept(part.window)
        if known is None:
            return Detections.empty()
        if len(parts) > 1:
            known.drop_doubles()
        return known.detections(now_s)

    def note(self, detections: Detections | None, tracks: Tracks) -> None:
        """Read the tracks on the last planned frame; `detections` are those that the tracker got, None if none."""
        if self._known is None or detections is None:
            return
        if len(detections) != len(self._known):  # the rules of the source have since changed
            self._known = None
            return
        self._followed.note(self._known, tracks, self.placement, self._now_s)

    def forget(self) -> None:
        """Begin again with a whole frame: the results of the last planned one are lost."""
        self._known = None


def _moves(boxes: Boxes, change: Change) -> NDArray[np.bool_]:
    """Return (N,) whether enough pixels of each box have changed."""
    if change.count < MIN_CELLS or not len(boxes):
        return np.zeros(len(boxes), np.bool_)
    rows, columns = change.cells.shape
    total = cv2.integral(change.cells // 255)
    corners = np.concatenate((boxes[:, :2] // CELL, -(-boxes[:, 2:] // CELL)), axis=1).astype(np.intp)
    left, top, right, bottom = np.clip(corners, 0, [columns, rows] * 2).T
    changed = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
    least = np.maximum(2, MOVING_SHARE * np.maximum((right - left) * (bottom - top), 1))
    moves: NDArray[np.bool_] = changed >= least
    return moves


def _unexplained(change: Change, moving: Boxes) -> list[tuple[int, int, int, int]]:
    """Return places, in pixels of the model's frame, with changes that no known moving object explains."""
    if change.count < MIN_CELLS:
        return []
    rest = change.cells.copy()
    for x1, y1, x2, y2 in moving.tolist():
        aside = 8 + 0.15 * (x2 - x1)
        rows = slice(int(max(0, y1 - 8)) // CELL, int(y2 + 8) // CELL + 1)
        rest[rows, int(max(0, x1 - aside)) // CELL : int(x2 + aside) // CELL + 1] = 0
    if cv2.countNonZero(rest) < MIN_CELLS:
        return []
    _, _, stats, _ = cv2.connectedComponentsWithStats(rest, connectivity=8)
    return [
        (CELL * x, CELL * y, CELL * (x + width), CELL * (y + height))
        for x, y, width, height, count in stats[1:].tolist()
        if count >= MIN_CELLS
    ]


def _unknown(weak: Boxes, known: Known) -> Boxes:
    """Return the weak boxes that are not part of a known object."""
    if len(weak) and len(known):
        weak = weak[iou_matrix(weak, known.xyxy).max(axis=1) <= FOUND_AGAIN_IOU]
    return weak[:MAX_WEAK]


def _grown(box: Boxes) -> Boxes:
    """Return a (1, 4) box that a window cut, grown so that the object fits."""
    side = max(GROW_LEAST, GROW_SHARE * float((box[0, 2:] - box[0, :2]).max()))
    grown: Boxes = box + np.array([-side, -side, side, side], np.float32)
    return grown
