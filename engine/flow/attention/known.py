"""The objects found at each place of a camera's view when the detector last ran there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.boxes import Boxes, area, iou_matrix
from engine.data import Detections
from engine.flow.attention.geometry import Placement, Window, in_model, is_inside

BORDER = 2.0
"""A box that ends this close to a border of its window is cut there; in pixels of the model's frame."""
INSIDE = 4.0
"""A known box this far inside a window is replaced by what is found there now."""
SAME_IOU, TWICE_IOU = 0.5, 0.7
SURE = 0.35
"""Score from which a cut box is looked at again in a larger window."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What the detector found in one window, or on the whole frame.

    Attributes:
        window: in pixels of the model's frame; None: the whole frame.
        detections: in pixels of the frame.
        weak: (N, 4) boxes of the frame that score a little less than the threshold.
    """

    window: Window | None
    detections: Detections
    weak: Boxes


class Known:
    """Boxes of one camera, each as it was when the detector last ran there.

    Attributes:
        xyxy: (N, 4) float32 pixels of the frame.
        score: (N,) float32.
        class_id: (N,) int32.
        looked_s: (N,) float64 time of that detection.
        is_new: (N,) whether no track follows the box yet; such places are examined on every frame.
        velocity: (N, 2) float32 pixels of the model's frame per second.
        unreported: additional objects that privacy must hide.
    """

    def __init__(self, detections: Detections, now_s: float) -> None:
        count = len(detections)
        self.xyxy, self.score, self.class_id = detections.xyxy, detections.score, detections.class_id
        self.looked_s: NDArray[np.float64] = np.full(count, now_s)
        self.is_new: NDArray[np.bool_] = np.ones(count, np.bool_)
        self.velocity: NDArray[np.float32] = np.zeros((count, 2), np.float32)
        self.unreported = detections.unreported

    def __len__(self) -> int:
        return len(self.score)

    def detections(self, now_s: float) -> Detections:
        """Return the boxes; the column `held` marks those from an earlier detection."""
        found = Detections(self.xyxy, self.score, self.class_id, {"held": self.looked_s < now_s})
        found.unreported = self.unreported
        return found

    def replace_inside(self, found: Found, placement: Placement, now_s: float) -> list[Boxes]:
        """Merge the results of a window, and return the (1, 4) boxes that it cut, in pixels of the model's frame.

        Boxes across its border stay as they are, unless they were found again. Cut boxes are left out: the whole object
        must be detected again.
        """
        assert found.window is not None
        here = found.detections
        there = in_model(here.xyxy, placement)
        is_cut = ~is_inside(there, found.window, placement.target_wh, BORDER)
        outside = ~is_inside(in_model(self.xyxy, placement), found.window, placement.target_wh, INSIDE)
        kept = np.flatnonzero(outside)
        cut = [there[row : row + 1] for row in np.flatnonzero(is_cut) if self._is_unknown(here, int(row), kept)]
        whole = here[~is_cut]
        if len(whole) and len(kept):
            same = iou_matrix(whole.xyxy, self.xyxy[kept]) > SAME_IOU
            same &= whole.class_id[:, None] == self.class_id[kept][None]
            kept = kept[~same.any(axis=0)]
        self._hide(here, found.window, placement)
        self._take(kept, Known(whole, now_s))
        return cut

    def drop_doubles(self) -> None:
        """Keep the better one of two boxes of a class that two windows found on one frame."""
        if len(self) < 2:
            return
        order = np.argsort(-self.score, kind="stable")
        same = (iou_matrix(self.xyxy, self.xyxy) > TWICE_IOU) & (self.class_id[:, None] == self.class_id[None])
        kept: list[int] = []
        for row in order.tolist():
            if not same[row, kept].any():
                kept.append(row)
        if len(kept) < len(self):
            self._take(np.sort(np.array(kept, np.intp)))

    def _is_unknown(self, here: Detections, row: int, kept: NDArray[np.intp]) -> bool:
        """Return whether a confident box that a window cut does not belong to a known box."""
        if here.score[row] < SURE:
            return False
        if not len(kept):
            return True
        box, others = here.xyxy[row], self.xyxy[kept]
        inner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
        shared = np.maximum(inner, 0).prod(axis=1)
        return bool((shared <= SAME_IOU * max(float(area(box[None])[0]), 1.0)).all())

    def _hide(self, here: Detections, window: Window, placement: Placement) -> None:
        """Replace the additional objects that privacy must hide in a window."""
        earlier = self.unreported
        if earlier is not None:
            earlier = earlier[~is_inside(in_model(earlier.xyxy, placement), window, placement.target_wh, INSIDE)]
        self.unreported = Detections.joined(earlier, here.unreported)

    def _take(self, kept: NDArray[np.intp], added: Known | None = None) -> None:
        for name in ("xyxy", "score", "class_id", "looked_s", "is_new", "velocity"):
            column = getattr(self, name)[kept]
            setattr(self, name, column if added is None else np.concatenate((column, getattr(added, name))))
