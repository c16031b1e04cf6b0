"""The protocols of the pipeline's parts: sources, detectors, trackers, analysers and sinks.

Each protocol has a contract suite under `tests/contract/` that every implementation runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.clock import NS_PER_MS, SYSTEM_CLOCK
from engine.data import Detections, Frame, Packet, Run, SourceInfo, SourceStatus, TrackEvent, Tracks


class SourceListener(Protocol):
    """Receives a source's states and losses. Called on the source's thread."""

    def status(self, status: SourceStatus) -> None:
        """Handle a new state."""

    def lost(self, count: int, cause: str) -> None:
        """Handle frames that arrived but could not be delivered (they consumed `frame_id`s)."""


@runtime_checkable
class Source(Protocol):
    """A camera, stream or file.

    Iterating opens it, yields frames, and closes it, all on the iterating thread. The iteration ends at the end of
    the stream or after `interrupt()`; it raises `SourceError` if the source cannot be opened or read.
    """

    @property
    def info(self) -> SourceInfo:
        """Properties known so far."""

    def attach(self, listener: SourceListener) -> None:
        """Report states and losses to `listener`; call before iterating."""

    def __iter__(self) -> Iterator[Frame]:
        """Open, and yield frames in order."""

    def interrupt(self) -> None:
        """End the iteration soon (< 0.5 s); may be called on any thread, in any state, even before it began."""


class PendingDetections(Protocol):
    """Detections that are being computed."""

    def result(self) -> list[Detections]:
        """Wait, and return one `Detections` per submitted frame, in order. Call once."""

    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds spent per step, complete after `result()`."""


@dataclass(frozen=True, slots=True)
class DetectorFacts:
    """The device and backend that run a detector.

    Attributes:
        backend: name of the backend; `none` if there is none.
        device: device that it runs on.
        reason: why this backend was chosen, in a line.
    """

    backend: str = "none"
    device: str = "cpu"
    reason: str = ""


@runtime_checkable
class Detector(Protocol):
    """Finds objects on frames. `open`, `submit` and `close` are called on one thread, `result` on another."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name by class id."""

    @property
    def max_batch(self) -> int:
        """Maximum number of frames per `submit`."""

    @property
    def depth(self) -> int:
        """Submissions that may be in flight; results are taken in order of submission."""

    def open(self) -> None:
        """Load the model. Raises `ModelError`."""

    def submit(self, frames: Sequence[Frame]) -> PendingDetections:
        """Start the detection of 1 to `max_batch` frames of any sizes."""

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Detect on any number of frames and wait; opens the detector if needed."""

    def close(self) -> None:
        """Free the model; harmless when repeated."""


@runtime_checkable
class Tracker(Protocol):
    """Follows the objects of one source. These members are required; `CompleteTracker` has optional ones."""

    def update(self, detections: Detections | None, captured_ns: int) -> Tracks:
        """Return the tracks on this frame; `None` means that the detector did not run on it."""

    def reset(self) -> None:
        """Forget all tracks; ids continue counting."""

    def clone(self) -> Tracker:
        """Return a new tracker with the same parameters and no tracks, for another source."""


class CompleteTracker(Tracker, Protocol):
    """A tracker with the optional members; both `TrackerBase` and the pipeline have defaults for them."""

    @property
    def wants_frames(self) -> bool:
        """Whether `observe` is called with each frame before `update` (camera motion, appearance)."""

    def observe(self, frame: Frame) -> None:
        """Process the frame that the next `update` belongs to."""

    def events(self) -> Sequence[TrackEvent]:
        """Return the changes in the life of tracks since the last call; called after each `update`."""

    def clone(self) -> CompleteTracker:
        """Return a new tracker with the same parameters and no tracks, for another source."""


class JointTracker(Protocol):
    """Updates the trackers of several sources at once; a tracker that supports it returns one from `joint()`."""

    def update(
        self, trackers: Sequence[Tracker], detections: Sequence[Detections | None], captured_ns: Sequence[int]
    ) -> list[Tracks]:
        """Return the tracks of each, as `tracker.update(detections, captured_ns)` would one by one."""


class TrackClassifier(Protocol):
    """Classifies the tracks of one source by their pixels; all calls come from the tracking thread.

    These members are required; `CompleteClassifier` has an optional one.
    """

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name by class id of its own classes."""

    def open(self) -> None:
        """Load the model. Raises `ModelError`."""

    def update(self, frame: Frame, tracks: Tracks) -> Mapping[int, NDArray[np.float32]]:
        """Return, by track id, (K, 2) float32: class id and probability, best first."""

    def clone(self) -> TrackClassifier:
        """Return a new classifier for another source, on the same model."""

    def close(self) -> None:
        """Free the model; harmless when repeated."""


class CompleteClassifier(TrackClassifier, Protocol):
    """A second stage with the optional member."""

    def read_classes(self, class_names: Sequence[str]) -> None:
        """Use these names for the class ids of tracks from now on, because another model may make the tracks."""

    def clone(self) -> CompleteClassifier:
        """Return a new classifier for another source, on the same model."""


AnalyserReset = Literal["stream_restarted", "model_changed"]


@runtime_checkable
class Analyser(Protocol):
    """Adds facts to the tracked frames of one or several sources: zones, rules, or your own.

    All calls come from the tracking thread, which every source shares: `analyse` must be quick and must not wait.
    """

    @property
    def name(self) -> str:
        """Key of its results in `Packet.analyses`."""

    def analyse(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        """Return all packets of one inference, in order, with the results for them.

        Usually `[packet.with_analysis(self.name, found), ...]`. There is one packet for each source that shares this
        analyser and was part of the inference; a source has several if frames are tracked without detection.
        """

    def status(self, status: SourceStatus) -> SourceStatus:
        """Return a change in a source's state, with any results that follow from it; `ended` comes last."""

    def reset(self, source_id: str, reason: AnalyserReset) -> None:
        """Forget the objects of a source: its stream restarted, or its classes now belong to another model."""

    def close(self) -> None:
        """Free all resources: the run has ended, or no source uses it any more."""


@runtime_checkable
class Sink(Protocol):
    """An output. All calls come from one thread, between `open` and `close`.

    A sink with `blocking = False` never waits in `write`: it runs on the publishing thread, so that its output is as
    fresh as possible. The others have their own thread and channel. `SinkBase` has defaults for optional
    members: with `takes_packets = False` a sink receives only the states of sources, `use_stats` and `use_leases` give
    it figures and leases of the run before it is opened, and `outputs` lists its files for the summary.
    """

    @property
    def name(self) -> str:
        """Short name, for the summary and errors."""

    @property
    def blocking(self) -> bool:
        """Whether `write` may wait (disk, encoder, window)."""

    def open(self, run: Run) -> None:
        """Open the output. Raises `SinkError`."""

    def write(self, packet: Packet) -> None:
        """Handle one packet; its arrays are shared and read-only."""

    def status(self, status: SourceStatus) -> None:
        """Handle a change in a source's state; `ended` comes after the source's last packet."""

    def tick(self) -> None:
        """Do periodic work; called about once a second, even when nothing else happens."""

    def close(self) -> None:
        """Finish the output; harmless when repeated."""


class CompleteDetector(Detector, Protocol):
    """A detector with the optional members; both `DetectorBase` and the pipeline have defaults for them."""

    def describe(self) -> DetectorFacts:
        """Return the device and backend that run it."""

    def prepare(self) -> bool:
        """Return whether `open` can proceed without waiting for another process; polled until true, never blocks."""


class DetectorBase:
    """Defaults for your own detector: subclass and define `detect`.

    `submit` does not compute anything; `result` does the work, on the collecting thread.
    """

    name: str = "detector"
    class_names: tuple[str, ...] = ()
    max_batch: int = 1
    depth: int = 1

    def describe(self) -> DetectorFacts:
        """Return a runtime without a backend."""
        return DetectorFacts()

    def prepare(self) -> bool:
        """Return true: `open` waits for no other process."""
        return True

    def open(self) -> None:
        """Do nothing."""

    def submit(self, frames: Sequence[Frame]) -> PendingDetections:
        """Return a pending result that calls `detect(frames)`."""
        return _Deferred(self, frames)

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Return one `Detections` per frame."""
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing."""


class _Deferred:
    """`PendingDetections` of a detector that only has `detect`."""

    def __init__(self, detector: DetectorBase, frames: Sequence[Frame]) -> None:
        self._detector = detector
        self._frames = frames
        self.stage_ms: dict[str, float] = {}

    def result(self) -> list[Detections]:
        """Detect now."""
        started_ns = SYSTEM_CLOCK.monotonic_ns()
        found = self._detector.detect(self._frames)
        self.stage_ms["infer"] = (SYSTEM_CLOCK.monotonic_ns() - started_ns) / NS_PER_MS
        return found


class TrackerBase:
    """Defaults for the optional members of a tracker: subclass and define `update`, `reset` and `clone`."""

    wants_frames: bool = False

    def observe(self, frame: Frame) -> None:
        """Ignore the frame."""

    def update(self, detections: Detections | None, captured_ns: int) -> Tracks:
        """Return the tracks on this frame; `None` means that the detector did not run on it."""
        raise NotImplementedError

    def events(self) -> Sequence[TrackEvent]:
        """Return no events."""
        return ()

    def reset(self) -> None:
        """Forget all tracks."""
        raise NotImplementedError

    def clone(self) -> CompleteTracker:
        """Return a new tracker with the same parameters and no tracks."""
        raise NotImplementedError


class AnalyserBase:
    """Defaults for an analyser that only looks at packets: subclass and define `analyse`."""

    name: str = "analyser"

    def analyse(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        """Return the packets with results for them."""
        raise NotImplementedError

    def status(self, status: SourceStatus) -> SourceStatus:
        """Return the status unchanged."""
        return status

    def reset(self, source_id: str, reason: AnalyserReset) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that a sink writes.

    Attributes:
        path: of the file.
        frames: number of frames written to it.
        complete: whether it was finished; if not, it contains the frames written up to then.
    """

    path: str
    frames: int
    complete: bool


class SinkBase:
    """Defaults for a sink that only needs packets: subclass and define `write`."""

    name: str = "sink"
    blocking: bool = True
    takes_packets: bool = True

    def use_stats(self, stats: Any) -> None:
        """Ignore the run's `engine.stats.PipelineStats`; any thread may take a `snapshot()` of it."""

    def use_leases(self, leases: Any) -> None:
        """Ignore the run's `engine.leases.Leases`, which say what messages about a source may leave now."""

    def open(self, run: Run) -> None:
        """Do nothing."""

    def write(self, packet: Packet) -> None:
        """Handle one packet."""
        raise NotImplementedError

    def status(self, status: SourceStatus) -> None:
        """Ignore the state."""

    def tick(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def outputs(self) -> Sequence[OutputFile]:
        """Return the files that this sink has written so far; none by default. May be called on any thread."""
        return ()
