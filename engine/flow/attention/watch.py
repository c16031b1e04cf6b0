"""Carries a frame's plan, detections and tracks between the stages of a source with `windows`.

The plan of a frame needs the tracks of the previous one. Each source therefore has one planned frame in flight at a
time, so that its results do not depend on the speed of the machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from engine.clock import NS_PER_S
from engine.data import Detections, Frame, Tracks
from engine.flow.attention.cover import Grid
from engine.flow.attention.geometry import Placement
from engine.flow.attention.known import Found
from engine.flow.attention.planner import Plan, Planner, RegionWindows

MAX_WAIT_S = 10.0
"""A frame whose results have not arrived after this time is given up; the source begins again with a whole frame."""


class PendingFound(Protocol):
    """The pending detections on one frame."""

    def result(self) -> list[Found]:
        """Wait, and return what was found in each window, or on the whole frame. Call once."""

    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds spent per step, complete after `result()`."""


class Watches:
    """The planners of all sources with windows. `plan` and `forget` belong to the submitting threads.

    `merge` is called on the collecting thread of the source's model, `note` on the tracking thread, `lost` on any.
    """

    def __init__(self) -> None:
        self._planners: dict[str, Planner] = {}
        self._under_way: dict[str, tuple[Frame, Planner]] = {}
        self._former: dict[str, dict[str, int]] = {}
        self._changed = threading.Condition()

    def plan(self, frame: Frame, placement: Placement, grid: Grid, options: RegionWindows) -> Plan:
        """Return where to detect on a frame, once the results of the source's previous frame have arrived."""
        source_id = frame.source_id
        with self._changed:
            if not self._changed.wait_for(lambda: source_id not in self._under_way, MAX_WAIT_S):
                self._planners.pop(source_id, None)
            planner = self._planners.get(source_id)
            if planner is None or (planner.placement, planner.grid, planner.options) != (placement, grid, options):
                self._keep_counts(source_id)
                planner = self._planners[source_id] = Planner(placement, grid, options)
            self._under_way[source_id] = frame, planner
        luma = frame.luma
        return planner.plan(frame.image if luma is None else luma, frame.scene_ns / NS_PER_S)

    def merge(self, frame: Frame, parts: Sequence[Found], keep: Callable[[Detections], Detections]) -> Detections:
        """Return all boxes of a source after a detection; `keep` chooses those of interest."""
        planner = self._planner_of(frame)
        kept = [Found(part.window, _kept(part.detections, keep), part.weak) for part in parts]
        if planner is None:  # the plan was abandoned: the results are valid but incomplete
            return Detections.joined(*(part.detections for part in kept)) or Detections.empty()
        return planner.merge(kept)

    def note(self, frame: Frame, detections: Detections | None, tracks: Tracks) -> None:
        """Read the tracks of a frame; the source's next frame may then be planned."""
        planner = self._planner_of(frame)
        if planner is not None:
            planner.note(detections, tracks)
            self._done(frame)

    def lost(self, frame: Frame) -> None:
        """Give up the results of a frame."""
        planner = self._planner_of(frame)
        if planner is not None:
            planner.forget()
            self._done(frame)

    def forget(self, source_id: str) -> None:
        """Begin again with a whole frame: the source or its model has changed. A frame in flight is finished."""
        with self._changed:
            self._keep_counts(source_id)
            self._planners.pop(source_id, None)

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return by source how many frames were `windows`, `held`, `predicted`, and `whole_` for each reason."""
        with self._changed:
            sources = dict.fromkeys((*self._former, *self._planners))
            return {source_id: self._counts_of(source_id) for source_id in sources}

    def _counts_of(self, source_id: str) -> dict[str, int]:
        counts = dict(self._former.get(source_id, {}))
        planner = self._planners.get(source_id)
        for name, count in () if planner is None else dict(planner.counts).items():
            counts[name] = counts.get(name, 0) + count
        return counts

    def _keep_counts(self, source_id: str) -> None:
        if source_id in self._planners:
            self._former[source_id] = self._counts_of(source_id)

    def _planner_of(self, frame: Frame) -> Planner | None:
        """Return the planner that waits for the results of a frame."""
        if not self._under_way:  # a run without windows, which costs nothing
            return None
        with self._changed:
            awaited, planner = self._under_way.get(frame.source_id, (None, None))
            return planner if awaited is frame else None

    def _done(self, frame: Frame) -> None:
        with self._changed:
            if self._under_way.get(frame.source_id, (None, None))[0] is frame:
                del self._under_way[frame.source_id]
            self._changed.notify_all()


def _kept(detections: Detections, keep: Callable[[Detections], Detections]) -> Detections:
    """Return the detections of interest; privacy must also see the others."""
    kept = keep(detections)
    dropped = detections if len(kept) < len(detections) else None
    kept.unreported = Detections.joined(dropped, detections.unreported)
    return kept
