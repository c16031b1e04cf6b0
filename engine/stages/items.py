"""What is handed from stage to stage between capture and publishing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.data import Detections, Frame, Run
from engine.protocols import PendingDetections


@dataclass(slots=True)
class InFlight:
    """Frames whose detection has been started, or (`pending` is None) that are only to be tracked."""

    frames: Sequence[Frame]
    pending: PendingDetections | None
    submitted_ns: int
    run: Run


@dataclass(slots=True)
class Detected:
    """One frame on the way to its tracker, with its detections (None where the detector did not run)."""

    frame: Frame
    detections: Detections | None
    run: Run
    stage_ms: dict[str, float] = field(default_factory=dict)
