"""The stages of the pipeline, in the order in which a frame meets them.

    CaptureStage (one per source) → Batcher → SubmitStage → CollectStage → TrackStage → PublishStage → SinkStage (each)

Submitting and collecting are two threads so that several inferences are in flight while frames are letterboxed and
results decoded. `SubmitStage` first waits for a free slot and only then takes the freshest frames.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

from engine.channel import Channel, ChannelClosedError, ChannelTimeoutError
from engine.clock import NS_PER_MS, NS_PER_S, Clock
from engine.data import Detections, Frame, Packet, Run, SourceStatus
from engine.errors import SourceError
from engine.protocols import Detector, PendingDetections, Sink, Source, Tracker
from engine.stage import Batcher, Stage
from engine.stats import PipelineStats, SourceStats

logger = logging.getLogger(__name__)
T = TypeVar("T")
TICK_S = 1.0


@dataclass(slots=True)
class InFlight:
    """Frames whose detection has been started, or (`pending` is None) that are only to be tracked."""

    frames: Sequence[Frame]
    pending: PendingDetections | None
    submitted_ns: int


@dataclass(slots=True)
class Detected:
    """One frame on the way to its tracker, with its detections (None where the detector did not run)."""

    frame: Frame
    detections: Detections | None
    stage_ms: dict[str, float] = field(default_factory=dict)


class CaptureStage(Stage[Frame]):
    """Reads one source into its channel, counting every frame; it is also the source's listener."""

    def __init__(
        self,
        source: Source,
        outbox: Channel[Frame],
        stats: SourceStats,
        *,
        tell: Callable[[SourceStatus], None],
        capture_ms: Callable[[float], None],
        max_frames: int | None,
        ready: threading.Event,
        clock: Clock,
    ) -> None:
        super().__init__(f"capture {source.info.source_id}")
        self.source = source
        self.ending = "end of stream"
        self._outbox = outbox
        self._stats = stats
        self._tell = tell
        self._capture_ms = capture_ms
        self._max_frames = max_frames
        self._ready = ready
        self._clock = clock
        self._frames: Iterator[Frame] | None = None
        source.attach(self)

    def status(self, status: SourceStatus) -> None:
        """Pass on a new state; the end is told later, behind the last frame."""
        if status.state == "ended":
            self.ending = status.reason or self.ending
            return
        self._stats.set_state(status.state, status.reason, status.stream_epoch)
        self._tell(status)

    def lost(self, count: int, cause: str) -> None:
        """Count frames that arrived and could not be delivered."""
        self._stats.add_captured(count)
        self._stats.add_dropped(cause, count)

    def open(self) -> None:
        """Wait until the model is loaded: frames captured before could only grow old."""
        self._ready.wait()

    def inbox(self) -> Iterable[Frame]:
        """Yield the frames of the source, timing how long each took to come where the source does not wait."""
        self._frames = iter(self.source)
        started_ns = self._clock.monotonic_ns()
        try:
            for frame in islice(self._frames, self._max_frames):
                if not self.source.info.is_live:
                    self._capture_ms((self._clock.monotonic_ns() - started_ns) / NS_PER_MS)
                yield frame
                started_ns = self._clock.monotonic_ns()
        except SourceError as error:
            self.ending = f"failed: {error}"
            raise

    def work(self, item: Frame) -> None:
        """Hand the frame over as the channel's policy says."""
        self._stats.add_captured()
        try:
            self._outbox.put(item)
        except ChannelClosedError:
            self._stats.add_dropped("shutdown")
            raise

    def close(self) -> None:
        """Close the source on this thread, then the channel behind it."""
        try:
            if self._frames is not None and hasattr(self._frames, "close"):
                self._frames.close()
        finally:
            self._outbox.close()


class SubmitStage(Stage[InFlight]):
    """Owns the detector: takes the freshest frames when a slot is free, and starts their detection."""

    def __init__(
        self,
        detector: Detector,
        batcher: Batcher,
        outbox: Channel[InFlight | SourceStatus],
        *,
        slots: Channel[None],
        ending: Callable[[str], SourceStatus],
        on_lost: Callable[[Frame, str], None],
        wait_for_collector: Callable[[], object],
        ready: threading.Event,
        detect_every: int,
        clock: Clock,
    ) -> None:
        super().__init__("detect")
        self._detector = detector
        self._batcher = batcher
        self._outbox = outbox
        self._slots = slots
        self._ending = ending
        self._on_lost = on_lost
        self._wait_for_collector = wait_for_collector
        self._ready = ready
        self._detect_every = detect_every
        self._seen: Counter[str] = Counter()
        self._clock = clock

    def open(self) -> None:
        """Load the model and offer its slots."""
        self._detector.open()
        self._ready.set()
        for _ in range(self._detector.depth):
            self._slots.put(None)

    def inbox(self) -> Iterator[InFlight]:
        """Yield submissions, each as soon as there is a slot and then a frame."""
        while True:
            self._slots.get()
            batch = self._batcher.get()
            due = [frame for frame in batch.frames if self._is_due(frame)]
            only_tracked = batch.older + [frame for frame in batch.frames if frame not in due]
            if only_tracked:
                yield InFlight(only_tracked, None, self._clock.monotonic_ns())
            if due:
                yield self._submit(due)
            else:
                self._slots.put(None)
            for source_id in batch.ended:
                self._outbox.put(self._ending(source_id))

    def _is_due(self, frame: Frame) -> bool:
        """Return whether the detector is to run on a frame: on the first, and each n-th after it."""
        self._seen[frame.source_id] += 1
        return (self._seen[frame.source_id] - 1) % self._detect_every == 0

    def work(self, item: InFlight) -> None:
        """Pass the submission on to the collecting thread."""
        try:
            self._outbox.put(item)
        except ChannelClosedError:
            self._lose(item.frames)
            raise

    def close(self) -> None:
        """Free the model, after the results in flight have been collected."""
        self._outbox.close()
        self._wait_for_collector()
        self._detector.close()

    def _submit(self, frames: Sequence[Frame]) -> InFlight:
        submitted_ns = self._clock.monotonic_ns()
        try:
            return InFlight(frames, self._detector.submit(frames), submitted_ns)
        except BaseException:
            self._lose(frames)
            raise

    def _lose(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._on_lost(frame, "shutdown")


class CollectStage(Stage["InFlight | SourceStatus"]):
    """Waits for each detection in order of submission and hands on frame by frame."""

    def __init__(
        self,
        inbox: Channel[InFlight | SourceStatus],
        outbox: Channel[Detected | SourceStatus],
        *,
        slots: Channel[None],
        on_lost: Callable[[Frame, str], None],
    ) -> None:
        super().__init__("collect")
        self._inbox = inbox
        self._outbox = outbox
        self._slots = slots
        self._on_lost = on_lost

    def inbox(self) -> Iterable[InFlight | SourceStatus]:
        """Yield submissions and ends of sources in order."""
        return self._inbox

    def work(self, item: InFlight | SourceStatus) -> None:
        """Wait for the result, free the slot, hand on."""
        if isinstance(item, SourceStatus):
            self._outbox.put(item)
            return
        left = list(item.frames)
        try:
            for detections in self._results(item):
                frame = left[0]
                queue_ms = (item.submitted_ns - frame.captured_ns) / NS_PER_MS
                spent = {} if item.pending is None else item.pending.stage_ms
                self._outbox.put(Detected(frame, detections, {"queue": queue_ms, **spent}))
                del left[0]
        finally:
            for frame in left:
                self._on_lost(frame, "shutdown")

    def _results(self, item: InFlight) -> Sequence[Detections | None]:
        if item.pending is None:
            return [None] * len(item.frames)
        found = item.pending.result()
        with suppress(ChannelClosedError):
            self._slots.put(None)
        return found

    def close(self) -> None:
        """Tell the tracking stage that nothing more comes, and the submitting stage that nobody collects."""
        self._slots.close()
        self._outbox.close()


class TrackStage(Stage["Detected | SourceStatus"]):
    """Gives every detection an identity: one tracker per source, all on this thread."""

    def __init__(
        self,
        tracker: Tracker,
        run: Run,
        inbox: Channel[Detected | SourceStatus],
        outbox: Channel[Packet | SourceStatus],
        *,
        on_lost: Callable[[Frame, str], None],
        clock: Clock,
    ) -> None:
        super().__init__("track")
        self._prototype = tracker
        self._trackers: dict[str, Tracker] = {}
        self._run_facts = run
        self._inbox = inbox
        self._outbox = outbox
        self._on_lost = on_lost
        self._clock = clock

    def inbox(self) -> Iterable[Detected | SourceStatus]:
        """Yield detected frames and ends of sources in order."""
        return self._inbox

    def work(self, item: Detected | SourceStatus) -> None:
        """Update the source's tracker and hand on a packet."""
        if isinstance(item, SourceStatus):
            self._trackers.pop(item.source_id, None)
            self._outbox.put(item)
            return
        try:
            self._outbox.put(self._track(item))
        except BaseException:
            self._on_lost(item.frame, "shutdown")
            raise

    def _track(self, item: Detected) -> Packet:
        frame = item.frame
        tracker = self._trackers.get(frame.source_id)
        if tracker is None:
            tracker = self._trackers.setdefault(frame.source_id, self._prototype.clone())
        started_ns = self._clock.monotonic_ns()
        if getattr(tracker, "wants_frames", False):
            tracker.observe(frame)  # type: ignore[attr-defined]
        tracks = tracker.update(item.detections, scene_ns(frame))
        events = tracker.events() if hasattr(tracker, "events") else ()
        item.stage_ms["track"] = (self._clock.monotonic_ns() - started_ns) / NS_PER_MS
        return Packet(
            frame,
            Detections.empty() if item.detections is None else item.detections,
            tracks,
            self._run_facts,
            item.stage_ms,
            is_detected=item.detections is not None,
            events=tuple(events),
        )

    def close(self) -> None:
        """Tell the publishing stage that nothing more comes."""
        self._outbox.close()


class PublishStage(Stage["Packet | SourceStatus"]):
    """The end of the pipeline: numbers and times each packet, feeds quick sinks, hands on to slow ones."""

    def __init__(
        self,
        run: Run,
        inbox: Channel[Packet | SourceStatus],
        sinks: Sequence[Sink],
        outlets: Sequence[Channel[Packet | SourceStatus]],
        *,
        stats: PipelineStats,
        clock: Clock,
    ) -> None:
        super().__init__("publish")
        self._run_facts = run
        self._inbox = inbox
        self._sinks = sinks
        self._outlets = outlets
        self._stats = stats
        self._clock = clock
        self._opened: list[Sink] = []

    def open(self) -> None:
        """Open the quick sinks on this thread."""
        for sink in self._sinks:
            self._opened.append(sink)
            sink.open(self._run_facts)

    def inbox(self) -> Iterator[Packet | SourceStatus]:
        """Yield packets and states, with a tick to the sinks each second."""
        return ticking(self._inbox, self._tick, self._clock)

    def work(self, item: Packet | SourceStatus) -> None:
        """Publish one packet or state."""
        if isinstance(item, SourceStatus):
            self._publish_status(item)
            return
        try:
            packet = self._publish(item)
        except BaseException:
            self._stats.source(item.frame.source_id).add_dropped("shutdown")
            raise
        for outlet in self._outlets:
            outlet.put(packet)

    def close(self) -> None:
        """Close the quick sinks, and let the slow ones finish."""
        try:
            for sink in self._opened:
                sink.close()
        finally:
            for outlet in self._outlets:
                outlet.close()

    def _publish(self, item: Packet) -> Packet:
        stats = self._stats.source(item.frame.source_id)
        started_ns = self._clock.monotonic_ns()
        packet = replace(
            item,
            seq=stats.published,
            published_utc_ns=self._clock.utc_ns(),
            latency_ms=(started_ns - item.frame.captured_ns) / NS_PER_MS,
            dropped=stats.take_dropped(),
        )
        for sink in self._sinks:
            sink.write(packet)
        now_ns = self._clock.monotonic_ns()
        latency_ms = (now_ns - item.frame.captured_ns) / NS_PER_MS
        stats.add_published(latency_ms, len(packet.tracks), now_ns)
        self._stats.latency.add(latency_ms)
        self._stats.add_stage_ms({**packet.stage_ms, "publish": (now_ns - started_ns) / NS_PER_MS})
        return packet

    def _publish_status(self, status: SourceStatus) -> None:
        if status.state == "ended":
            self._stats.source(status.source_id).set_state("ended", status.reason, status.stream_epoch)
        for sink in self._sinks:
            sink.status(status)
        for outlet in self._outlets:
            outlet.put(status)

    def _tick(self) -> None:
        for sink in self._sinks:
            sink.tick()


class SinkStage(Stage["Packet | SourceStatus"]):
    """Runs one sink that may wait (disk, encoder, window) on a thread and a channel of its own."""

    def __init__(self, sink: Sink, run: Run, inbox: Channel[Packet | SourceStatus], *, clock: Clock) -> None:
        super().__init__(sink.name)
        self._sink = sink
        self._run_facts = run
        self._inbox = inbox
        self._clock = clock

    def open(self) -> None:
        """Open the sink on this thread."""
        self._sink.open(self._run_facts)

    def inbox(self) -> Iterator[Packet | SourceStatus]:
        """Yield packets and states, with a tick to the sink each second."""
        return ticking(self._inbox, self._sink.tick, self._clock)

    def work(self, item: Packet | SourceStatus) -> None:
        """Write one packet or state."""
        if isinstance(item, SourceStatus):
            self._sink.status(item)
        else:
            self._sink.write(item)

    def close(self) -> None:
        """Finish the output; what could not be written is counted by the channel."""
        try:
            self._sink.close()
        finally:
            self._inbox.abort("failed")


def scene_ns(frame: Frame) -> int:
    """Return when the frame's scene happened: stream time for a file, capture time for a camera.

    A file may be read faster or slower than it was recorded; its motion goes by its own time.
    """
    return frame.pts_ns if frame.captured_source == "file" and frame.pts_ns is not None else frame.captured_ns


def ticking(inbox: Channel[T], tick: Callable[[], None], clock: Clock) -> Iterator[T]:
    """Yield from `inbox` until it is closed and empty, calling `tick` about once a second in between."""
    due_ns = clock.monotonic_ns()
    while True:
        if clock.monotonic_ns() >= due_ns:
            tick()
            due_ns = clock.monotonic_ns() + int(TICK_S * NS_PER_S)
        try:
            item = inbox.get(max((due_ns - clock.monotonic_ns()) / NS_PER_S, 0.0))
        except ChannelTimeoutError:
            continue
        except ChannelClosedError:
            return
        yield item
