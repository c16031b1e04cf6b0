"""The items that stages pass on between capture and publishing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.data import Detections, Frame, Packet, Run, SourceStatus
from engine.flow.attention.watch import PendingFound
from engine.protocols import PendingDetections


@dataclass(slots=True)
class InFlight:
    """Frames whose detection has started, or, if `pending` is None, frames to track only.

    `is_held`: nothing has changed on them. `looks` replaces `pending` for a frame whose source has `windows`.
    """

    frames: Sequence[Frame]
    pending: PendingDetections | None
    submitted_ns: int
    run: Run
    is_held: bool = False
    looks: PendingFound | None = None


@dataclass(slots=True)
class Detected:
    """One frame on the way to its tracker, with its detections (None where the detector did not run)."""

    frame: Frame
    detections: Detections | None
    run: Run
    stage_ms: dict[str, float] = field(default_factory=dict)
    is_held: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class HandOver:
    """Follows the last frame of a source that moves to another model; `arrive` is called once that is collected."""

    arrive: Callable[[], None]


def scene_ns(frame: Frame) -> int:
    """Return `frame.scene_ns`: when the scene happened."""
    return frame.scene_ns


def frames_of(item: InFlight | list[Detected] | list[Packet] | Packet | SourceStatus | HandOver) -> Sequence[Frame]:
    """Return the frames of any item that stages pass on."""
    if isinstance(item, list):
        return [one.frame for one in item]
    if isinstance(item, SourceStatus | HandOver):
        return ()
    return item.frames if isinstance(item, InFlight) else (item.frame,)
