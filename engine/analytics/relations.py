"""Relations between the objects of a frame: near, inside, on, carried by. Pure functions of their boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.analytics.geometry import Flags, Floats
from engine.analytics.motion import feet

NEAR_HEIGHTS = 1.0
"""Two objects whose feet are closer than this, in mean heights of their boxes, are near."""
INSIDE_SHARE = 0.9
ON_SHARE = 0.5
CARRIED_SHARE, CARRIED_SIZE = 0.5, 0.6
CARRIED_SPEED, CARRIED_DIFFERENCE = 0.15, 0.35


@dataclass(frozen=True, slots=True, eq=False)
class Relations:
    """Relations between M objects; each is an (M, M) matrix, from row i to column j.

    Attributes:
        heights: float64, distance between their feet in mean heights of the two boxes; 0 on the diagonal.
        near: bool, closer than `NEAR_HEIGHTS`.
        inside: bool, at least 90 % of the box of i lies within that of a larger j (a face, a driver).
        on: bool, i stands or sits on j: its top is above j, its bottom is within j, and j supports half of its width.
        carried_by: bool, i is smaller, overlaps j by half of its own area, and moves along with j.
    """

    heights: Floats
    near: Flags
    inside: Flags
    on: Flags
    carried_by: Flags

    @classmethod
    def of(cls, xyxy: Floats, velocity: Floats) -> Relations:
        """Return the relations of M objects.

        Args:
            xyxy: (M, 4) pixels.
            velocity: (M, 2) pixels per second.
        """
        apart = ~np.eye(len(xyxy), dtype=bool)
        heights = distances_in_heights(xyxy)
        share, larger = _shares(xyxy)
        tall = np.maximum(xyxy[:, 3] - xyxy[:, 1], 1e-6)
        above = (xyxy[:, None, 1] < xyxy[:, 1]) & (xyxy[:, None, 3] > xyxy[:, 1]) & (xyxy[:, None, 3] <= xyxy[:, 3])
        supported = np.minimum(xyxy[:, None, 2], xyxy[:, 2]) - np.maximum(xyxy[:, None, 0], xyxy[:, 0])
        width = np.maximum(xyxy[:, 2] - xyxy[:, 0], 1e-6)
        speed = np.hypot(velocity[:, 0], velocity[:, 1])
        drift = np.hypot(*(velocity[:, None, :] - velocity).transpose(2, 0, 1))
        together = (speed > CARRIED_SPEED * tall) & (drift <= CARRIED_DIFFERENCE * speed)
        small = (larger > 0) & (_ratio(xyxy) <= CARRIED_SIZE)
        return cls(
            heights=heights,
            near=apart & (heights <= NEAR_HEIGHTS),
            inside=apart & (larger > 0) & (share >= INSIDE_SHARE),
            on=apart & above & (supported >= ON_SHARE * width[:, None]),
            carried_by=apart & small & (share >= CARRIED_SHARE) & together,
        )


def distances_in_heights(xyxy: Floats) -> Floats:
    """Return (M, M) distances between the feet of boxes, in units of the mean height of the two."""
    anchor, tall = feet(xyxy.T), xyxy[:, 3] - xyxy[:, 1]
    gap = np.hypot(*(anchor[:, :, None] - anchor[:, None]))
    result: Floats = gap / np.maximum((tall[:, None] + tall) / 2, 1e-6)
    return result


def _areas(xyxy: Floats) -> Floats:
    area: Floats = np.maximum((xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1]), 1e-6)
    return area


def _ratio(xyxy: Floats) -> Floats:
    area = _areas(xyxy)
    ratio: Floats = area[:, None] / area
    return ratio


def _shares(xyxy: Floats) -> tuple[Floats, Floats]:
    """Return (M, M) fractions of box i that lie within box j, and (M, M) by how much j is larger."""
    area = _areas(xyxy)
    wide = np.minimum(xyxy[:, None, 2], xyxy[:, 2]) - np.maximum(xyxy[:, None, 0], xyxy[:, 0])
    tall = np.minimum(xyxy[:, None, 3], xyxy[:, 3]) - np.maximum(xyxy[:, None, 1], xyxy[:, 1])
    return np.maximum(wide, 0) * np.maximum(tall, 0) / area[:, None], area - area[:, None]
