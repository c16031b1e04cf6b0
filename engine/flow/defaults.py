"""The single place that adds default members to objects that have only the required members of their protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engine.data import Detections, Frame, TrackEvent, Tracks
from engine.leases import Leases
from engine.protocols import (
    CompleteClassifier,
    CompleteDetector,
    CompleteTracker,
    Detector,
    DetectorFacts,
    JointTracker,
    OutputFile,
    Sink,
    SinkBase,
    TrackClassifier,
    Tracker,
    TrackerBase,
)
from engine.stats import PipelineStats


class _TrackerWithDefaults(TrackerBase):
    """A tracker that does not look at frames and reports no events."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def update(self, detections: Detections | None, captured_ns: int) -> Tracks:
        return self._tracker.update(detections, captured_ns)

    def reset(self) -> None:
        self._tracker.reset()

    def clone(self) -> CompleteTracker:
        return complete_tracker(self._tracker.clone())


class _WithEvents(_TrackerWithDefaults):
    """A tracker that reports events and does not look at frames."""

    def events(self) -> Sequence[TrackEvent]:
        return cast("CompleteTracker", self._tracker).events()


class _WithFrames(_TrackerWithDefaults):
    """A tracker that looks at frames and reports no events."""

    @property
    def wants_frames(self) -> bool:  # type: ignore[override]
        return cast("CompleteTracker", self._tracker).wants_frames

    def observe(self, frame: Frame) -> None:
        cast("CompleteTracker", self._tracker).observe(frame)


def complete_tracker(tracker: Tracker) -> CompleteTracker:
    """Return the tracker, with the defaults of `TrackerBase` for missing members."""
    has_events, has_frames = hasattr(tracker, "events"), hasattr(tracker, "wants_frames")
    if has_events and has_frames:
        return cast("CompleteTracker", tracker)
    return (_WithEvents if has_events else _WithFrames if has_frames else _TrackerWithDefaults)(tracker)


class _OneByOne:
    """Updates one by one the trackers that do not support a joint update."""

    def update(
        self, trackers: Sequence[Any], detections: Sequence[Detections | None], captured_ns: Sequence[int]
    ) -> list[Tracks]:
        return [one.update(*given) for one, *given in zip(trackers, detections, captured_ns, strict=True)]


def joint_of(tracker: Tracker) -> JointTracker:
    """Return the updater of a tracker's clones: joint if the tracker supports it, else one by one."""
    make = getattr(tracker, "joint", None)
    return _OneByOne() if make is None else cast("JointTracker", make())


class _ClassifierWithDefaults:
    """A second stage that looks at objects of all classes."""

    def __init__(self, classifier: TrackClassifier) -> None:
        self._classifier = classifier
        self.class_names = classifier.class_names

    def open(self) -> None:
        self._classifier.open()

    def read_classes(self, class_names: Sequence[str]) -> None:
        """The class names do not matter."""

    def update(self, frame: Frame, tracks: Tracks) -> Mapping[int, NDArray[np.float32]]:
        return self._classifier.update(frame, tracks)

    def clone(self) -> CompleteClassifier:
        return complete_classifier(self._classifier.clone())

    def close(self) -> None:
        self._classifier.close()


def complete_classifier(classifier: TrackClassifier) -> CompleteClassifier:
    """Return the second stage, with defaults for missing members."""
    if hasattr(classifier, "read_classes"):
        return cast("CompleteClassifier", classifier)
    return _ClassifierWithDefaults(classifier)


def describe(detector: Detector) -> DetectorFacts:
    """Return the facts of what runs a detector; without them it counts as running without a backend."""
    if hasattr(detector, "describe"):
        return cast("CompleteDetector", detector).describe()
    return DetectorFacts()


def is_prepared(detector: Detector) -> bool:
    """Return whether a detector can be opened without waiting for another process; true by default."""
    if hasattr(detector, "prepare"):
        return cast("CompleteDetector", detector).prepare()
    return True


def show_stats(sink: Sink, stats: PipelineStats) -> None:
    """Give a sink access to the run's statistics, if it wants them."""
    use = getattr(sink, "use_stats", None)
    if use is not None:
        use(stats)


def show_leases(sink: Sink, leases: Leases) -> None:
    """Tell a sink which sources may be published, if it sends messages about them."""
    use = getattr(sink, "use_leases", None)
    if use is not None:
        use(leases)


def address_of(sink: Sink) -> str:
    """Return where a sink publishes; empty for one without an `address`."""
    return str(getattr(sink, "address", ""))


def files_of(sink: Sink) -> Sequence[OutputFile]:
    """Return the files that a sink has written so far; none by default."""
    list_files = getattr(sink, "outputs", None)
    return () if list_files is None else cast("Sequence[OutputFile]", list_files())


def takes_packets(sink: Sink) -> bool:
    """Return whether a sink wants packets, not only the states of sources; true by default."""
    return bool(getattr(sink, "takes_packets", SinkBase.takes_packets))
