"""One object on a frame, as the wire represents it."""

from __future__ import annotations

from typing import Annotated

import msgspec

UNTRACKED = -1

Four = Annotated[list[float], msgspec.Meta(min_length=4, max_length=4)]
Counter = Annotated[int, msgspec.Meta(ge=0)]


class Rle(msgspec.Struct, frozen=True, gc=False):
    """A mask as run lengths in COCO's uncompressed form: column by column, starting with a run of zeros.

    Attributes:
        size: [height, width] of the source frame.
        counts: lengths of alternating runs of 0 and 1; they add up to height * width.
    """

    size: Annotated[list[Counter], msgspec.Meta(min_length=2, max_length=2)]
    counts: list[Counter]


class ClassScore(msgspec.Struct, frozen=True, gc=False):
    """One of the most likely classes of an object or frame."""

    class_id: int
    class_name: str
    score: float


class TrackedObject(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One object on one frame.

    Attributes:
        track_id: unique per source and run, never reused; -1 if no tracker runs.
        class_id: number of the class in the model.
        class_name: its name.
        score: 0 to 1, of the last detection.
        xyxy: [x1, y1, x2, y2] pixels of the source frame, to a hundredth of a pixel.
        age: frames since the track began.
        predicted: whether the box is the tracker's prediction, because the detector did not find the object on this
            frame.
        mask: the object's pixels, for segmentation models.
        keypoints: [x, y, score] per keypoint, for pose models.
        xyxyxyxy: the four corners [x, y] of an oriented box.
        classes: the most likely classes, best first; those of a second stage even if the box is predicted.
        zones: names of the zones that it counts as inside.
        kmh: its speed on the ground, for zones that measure it.
        identity: number that survives changes of `track_id`, if zones, lines or rules are configured.
        parked: whether it appeared where an object had been parked, and has not moved since.
        held: whether its box is that of an earlier frame: nothing has changed at its place since the detector looked
            there (`windows` of a source).

    The fields from `predicted` on are omitted if they have their default.
    """

    track_id: int
    class_id: int
    class_name: str
    score: float
    xyxy: Four
    age: int = 1
    predicted: bool = False
    mask: Rle | None = None
    keypoints: list[list[float]] | None = None
    xyxyxyxy: list[list[float]] | None = None
    classes: list[ClassScore] | None = None
    zones: list[str] = []
    kmh: float | None = None
    identity: int | None = None
    parked: bool = False
    held: bool = False
