"""Decides for each frame whether, and where, the detector runs: by the rate, the motion gate and the windows."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from engine.data import Frame
from engine.flow.attention.cover import Grid
from engine.flow.attention.gate import NO_RULES, FrameGate, RateLimit
from engine.flow.attention.geometry import Placement, Window
from engine.flow.attention.pace import EVERY_FRAME_HZ, Pace
from engine.flow.attention.planner import Plan
from engine.flow.attention.watch import PendingFound, Watches
from engine.protocols import Detector

logger = logging.getLogger(__name__)
WHOLE = Plan("whole")
PREDICTED = Plan("predicted")
HELD = Plan("held")


@runtime_checkable
class DetectsInWindows(Protocol):
    """A detector that can run on parts of a frame, such as `engine.detection.detector.ModelDetector`."""

    def window_grid(self, frame: Frame, *, wait: bool) -> tuple[Placement, Grid] | None:
        """Return the placement of a frame in the model's frame and the grid of windows; None: no windows (yet)."""

    def submit_windows(self, frame: Frame, windows: Sequence[Window] | None) -> PendingFound:
        """Start detection on windows of a frame; None: on the whole frame."""


class Attention:
    """Decides where the submitting stage of one model detects. Use it on that stage's thread.

    Args:
        rules: gate by source; changes while running.
        pace: how often the detector must run on sources with `detect_hz: auto`.
        watches: the planners of sources with windows.
        detect_every: detect on every n-th frame of sources without a rate.
    """

    def __init__(self, rules: Mapping[str, FrameGate], pace: Pace, watches: Watches, detect_every: int) -> None:
        self._rules, self._pace, self._watches = rules, pace, watches
        self._detect_every = detect_every
        self._rates: dict[str, RateLimit] = {}
        self._waited: dict[str, int] = {}
        self._has_warned = False

    def plan(self, frame: Frame, detector: Detector) -> tuple[Plan, bool]:
        """Return where to detect on a frame, and whether its planner awaits the results."""
        rule = self._rules.get(frame.source_id, NO_RULES)
        if not self._is_due(frame, rule):
            return PREDICTED, False
        if rule.windows is not None:
            place = self._place(frame, detector)
            if place is not None:
                return self._watches.plan(frame, *place, rule.windows), True
        gate, luma = rule.motion_gate, frame.luma
        if gate is not None and not gate.is_due(frame.image if luma is None else luma, frame.scene_ns):
            return HELD, False
        return WHOLE, False

    def _place(self, frame: Frame, detector: Detector) -> tuple[Placement, Grid] | None:
        """Return the placement of a frame in the model's frame and the grid of windows; None: no windows (yet)."""
        if isinstance(detector, DetectsInWindows):
            return detector.window_grid(frame, wait=frame.captured_source == "file")
        if not self._has_warned:
            logger.warning("detector %s cannot run on windows: it always runs on the whole frame", detector.name)
        self._has_warned = True
        return None

    def _is_due(self, frame: Frame, rule: FrameGate) -> bool:
        """Return whether the detector may run on a frame: the first, then at the source's rate or every n-th."""
        detect_hz = rule.detect_hz
        if detect_hz == "auto":
            detect_hz = self._pace.hz(frame.source_id, frame.scene_ns) or EVERY_FRAME_HZ
        if detect_hz is not None:
            return self._rates.setdefault(frame.source_id, RateLimit()).admits(frame.scene_ns, detect_hz)
        waited = self._waited.get(frame.source_id, self._detect_every - 1) + 1
        self._waited[frame.source_id] = waited
        return waited >= self._detect_every

    def looked(self, frames: Iterable[Frame]) -> None:
        """Restart the interval until the next detection: the detector runs on these frames."""
        self._waited.update({frame.source_id: 0 for frame in frames})

    def forget(self, source_id: str) -> None:
        """Run the detector on the source's next frame, even if nothing moves."""
        self._waited.pop(source_id, None)
        self._rates.pop(source_id, None)
        self._watches.forget(source_id)
        gate = self._rules.get(source_id, NO_RULES).motion_gate
        if gate is not None:
            gate.reset()

    def forget_all(self) -> None:
        """Run the detector on the next frame of every source, because the model has changed."""
        for source_id in (*self._waited, *self._rules):
            self.forget(source_id)
