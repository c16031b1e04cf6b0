"""Giving detections an identity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_MS
from engine.data import NO_IDENTITY, Detections, Frame, Packet, SourceStatus, TrackEvent, Tracks
from engine.flow.analyse import AnalyseStep
from engine.flow.attention.gate import NO_RULES
from engine.flow.channel import Channel
from engine.flow.defaults import complete_classifier, complete_tracker, joint_of
from engine.flow.items import Detected, scene_ns
from engine.flow.lane import FlowContext
from engine.flow.stage import Stage
from engine.protocols import CompleteClassifier, CompleteTracker, TrackClassifier, Tracker


class TrackStage(Stage["list[Detected] | SourceStatus"]):
    """Gives every detection an identity with one tracker per source, then runs the analysers, all on this thread."""

    def __init__(
        self,
        tracker: Tracker,
        inbox: Channel[list[Detected] | SourceStatus],
        outbox: Channel[list[Packet] | SourceStatus],
        context: FlowContext,
        *,
        second_stage: TrackClassifier | None,
        analyse: AnalyseStep,
    ) -> None:
        super().__init__("track")
        self._prototype = complete_tracker(tracker)
        self._joint = joint_of(self._prototype)
        self._trackers: dict[str, CompleteTracker] = {}
        self._found: dict[str, Detections] = {}
        self._class_names: dict[str, tuple[str, ...]] = {}
        self._second_stage = None if second_stage is None else complete_classifier(second_stage)
        self._classifiers: dict[str, CompleteClassifier] = {}
        self._unnamed = NO_IDENTITY
        self._analyse = analyse
        self._inbox = inbox
        self._outbox = outbox
        self._context = context
        self._clock = context.clock

    def open(self) -> None:
        """Load the second stage."""
        if self._second_stage is not None:
            self._second_stage.open()

    def inbox(self) -> Iterable[list[Detected] | SourceStatus]:
        """Yield the frames of each inference, and states of sources, in order."""
        return self._inbox

    def work(self, item: list[Detected] | SourceStatus) -> None:
        """Update the trackers and pass packets on; states go through the analysers."""
        if isinstance(item, SourceStatus):
            if item.state == "ended":
                self._end(item.source_id)
            self._outbox.put(self._analyse.status(item))
            return
        try:
            self._outbox.put(self._packets(item))
        except BaseException:
            for detected in item:
                self._context.lose(detected.frame, "shutdown")
            raise

    def _packets(self, items: list[Detected]) -> list[Packet]:
        """Return the packets of one inference, in order."""
        packets = [packet for group in _distinct(items) for packet in self._track(group)]
        return packets if self._analyse.is_idle else self._analyse(packets)

    def _end(self, source_id: str) -> None:
        """Forget the tracks of an ended source; if it returns, its ids continue, because ids are never reused."""
        self._found.pop(source_id, None)
        self._context.pace.forget(source_id)
        if source_id in self._trackers:
            self._trackers[source_id].reset()

    def _change_classes(self, source_id: str, class_names: tuple[str, ...]) -> None:
        """Forget the tracks of the previous model: its class ids would be read with the new names."""
        if source_id in self._class_names:
            self._end(source_id)
        if source_id in self._classifiers:
            self._classifiers[source_id].read_classes(class_names)
        self._class_names[source_id] = class_names

    def _track(self, items: list[Detected]) -> list[Packet]:
        """Update the trackers of several sources in one step."""
        started_ns = self._clock.monotonic_ns()
        trackers = [self._tracker(item) for item in items]
        found = [self._detections(item) for item in items]
        tracks = self._joint.update(trackers, found, [scene_ns(item.frame) for item in items])
        events = [tracker.events() for tracker in trackers]
        spent_ms = (self._clock.monotonic_ns() - started_ns) / NS_PER_MS / len(items)
        for item in items:
            item.stage_ms["track"] = spent_ms
        self._note_pace(items, found, tracks)
        return list(map(self._packet, items, found, tracks, events))

    def _note_pace(self, items: list[Detected], found: list[Detections | None], tracks: list[Tracks]) -> None:
        """Report positions and motion of tracks to the submitting stage, for sources whose plans depend on them."""
        rules = self._context.rules
        for item, seen, followed in zip(items, found, tracks, strict=True):
            source_id = item.frame.source_id
            self._context.watches.note(item.frame, seen, followed)
            if seen is not None and not item.is_held and rules.get(source_id, NO_RULES).detect_hz == "auto":
                self._context.pace.note(source_id, followed, seen, scene_ns(item.frame))

    def _tracker(self, item: Detected) -> CompleteTracker:
        """Return the tracker of a frame's source, after it has looked at the frame if it wants frames."""
        frame = item.frame
        if item.run.class_names != self._class_names.get(frame.source_id):
            self._change_classes(frame.source_id, item.run.class_names)
        tracker = self._trackers.get(frame.source_id)
        if tracker is None:
            tracker = self._trackers.setdefault(frame.source_id, self._prototype.clone())
        if tracker.wants_frames:
            tracker.observe(frame)
        return tracker

    def _packet(self, item: Detected, found: Detections | None, tracks: Tracks, events: Sequence[TrackEvent]) -> Packet:
        if item.is_held:
            tracks = Tracks(tracks.xyxy, tracks.score, tracks.class_id, tracks.track_id, tracks.age)
        known: NDArray[np.float32] | None = None
        shown = Detections.empty() if found is None or item.is_held else found
        if self._second_stage is not None:
            started_ns = self._clock.monotonic_ns()
            known = self._classes(self._second_stage, item.frame, tracks)
            shown = _with_classes(shown, tracks, known)
            item.stage_ms["second"] = (self._clock.monotonic_ns() - started_ns) / NS_PER_MS
        shown.unreported = _unreported(item.detections, found)
        return Packet(
            item.frame,
            shown,
            tracks,
            item.run,
            item.stage_ms,
            is_detected=item.detections is not None,
            is_held=item.is_held,
            events=tuple(events),
            track_classes=known,
        )

    def _detections(self, item: Detected) -> Detections | None:
        """Return the detections to pass to the tracker; for a motionless frame, the previous ones."""
        source_id = item.frame.source_id
        if item.is_held:
            return self._found.get(source_id)
        if item.detections is None:
            return None
        rule = self._context.rules.get(source_id)
        found = item.detections if rule is None else rule.keep(item.detections, item.run.class_names)
        self._found[source_id] = found
        return found

    def _classes(self, second_stage: CompleteClassifier, frame: Frame, tracks: Tracks) -> NDArray[np.float32] | None:
        """Return the (N, K, 2) second-stage results of the tracks, NaN if unknown; None if no track has any."""
        source_id = frame.source_id
        if source_id not in self._classifiers:
            self._classifiers[source_id] = second_stage.clone()
            self._classifiers[source_id].read_classes(self._class_names[source_id])
        if (tracks.track_id == NO_IDENTITY).any():  # without a tracker each row is a separate object, seen once
            ids = np.arange(self._unnamed - len(tracks), self._unnamed)
            self._unnamed -= len(tracks)
            tracks = Tracks(tracks.xyxy, tracks.score, tracks.class_id, ids, tracks.age, tracks.detection_index)
        known = self._classifiers[source_id].update(frame, tracks)
        if not known:
            return None
        rows = np.full((len(tracks), *next(iter(known.values())).shape), np.nan, np.float32)
        for row, track_id in enumerate(tracks.track_id.tolist()):
            if track_id in known:
                rows[row] = known[track_id]
        return rows

    def close(self) -> None:
        """Free the second stage and the analysers, and signal the end to the publishing stage."""
        try:
            if self._second_stage is not None:
                self._second_stage.close()
            self._analyse.close()
        finally:
            self._outbox.close()


def _unreported(detections: Detections | None, kept: Detections | None) -> Detections | None:
    """Return the other objects that privacy must see: those the gate dropped, and those the detector did not report."""
    if detections is None or kept is None:
        return None
    is_complete = kept is detections or len(kept) == len(detections)
    if is_complete and detections.unreported is None:
        return None
    return Detections.joined(None if is_complete else detections, detections.unreported)


def _with_classes(detections: Detections, tracks: Tracks, known: NDArray[np.float32] | None) -> Detections:
    """Return the detections with a column `classes`: the second stage's result for each one's track."""
    if known is None or not len(detections):
        return detections
    column = np.full((len(detections), *known.shape[1:]), np.nan, np.float32)
    seen = tracks.detection_index >= 0
    column[tracks.detection_index[seen]] = known[seen]
    extra = {**detections.extra, "classes": column}
    return Detections(detections.xyxy, detections.score, detections.class_id, extra)


def _distinct(items: list[Detected]) -> Iterator[list[Detected]]:
    """Yield the frames in order, in groups that contain each source at most once."""
    group: list[Detected] = []
    sources: set[str] = set()
    for item in items:
        if item.frame.source_id in sources:
            yield group
            group, sources = [], set()
        group.append(item)
        sources.add(item.frame.source_id)
    if group:
        yield group
