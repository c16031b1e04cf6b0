"""Giving detections an identity."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.channel import Channel
from engine.clock import NS_PER_MS, Clock
from engine.data import Detections, Frame, Packet, SourceStatus
from engine.protocols import Tracker
from engine.stage import Stage
from engine.stages.items import Detected


class TrackStage(Stage["Detected | SourceStatus"]):
    """Gives every detection an identity: one tracker per source, all on this thread."""

    def __init__(
        self,
        tracker: Tracker,
        inbox: Channel[Detected | SourceStatus],
        outbox: Channel[Packet | SourceStatus],
        *,
        on_lost: Callable[[Frame, str], None],
        clock: Clock,
    ) -> None:
        super().__init__("track")
        self._prototype = tracker
        self._trackers: dict[str, Tracker] = {}
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
            self._end(item.source_id)
            self._outbox.put(item)
            return
        try:
            self._outbox.put(self._track(item))
        except BaseException:
            self._on_lost(item.frame, "shutdown")
            raise

    def _end(self, source_id: str) -> None:
        """Forget the tracks of a source that ended; if it comes back its ids go on, as ids are never used again."""
        if source_id in self._trackers:
            self._trackers[source_id].reset()

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
            item.run,
            item.stage_ms,
            is_detected=item.detections is not None,
            events=tuple(events),
        )

    def close(self) -> None:
        """Tell the publishing stage that nothing more comes."""
        self._outbox.close()


def scene_ns(frame: Frame) -> int:
    """Return when the frame's scene happened: stream time for a file, capture time for a camera.

    A file may be read faster or slower than it was recorded; its motion goes by its own time.
    """
    return frame.pts_ns if frame.captured_source == "file" and frame.pts_ns is not None else frame.captured_ns
