"""Reading one source, counting every frame."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

from engine.clock import NS_PER_MS, Clock
from engine.data import Frame, SourceStatus
from engine.flow.channel import Channel, ChannelClosedError
from engine.flow.stage import Stage
from engine.protocols import Source
from engine.stats import SourceStats


class Start:
    """Lets all captures begin once the model is loaded; one that is removed before need not wait for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_set = False

    def set(self) -> None:
        """Let all begin."""
        with self._changed:
            self._is_set = True
            self._changed.notify_all()

    def look(self) -> None:
        """Make those who wait look whether they still have to."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, is_idle: Callable[[], bool]) -> None:
        """Wait until all may begin, or until `is_idle`, which changes before a call of `look`."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_set or is_idle())


class CaptureStage(Stage[Frame]):
    """Reads one source into its channel, counting every frame; it is also the source's listener.

    Numbers go on where a former source of the same name stopped, in a new stream epoch.
    """

    def __init__(
        self,
        source: Source,
        outbox: Channel[Frame],
        stats: SourceStats,
        *,
        tell: Callable[[SourceStatus], None],
        capture_ms: Callable[[float], None],
        max_frames: int | None,
        ready: Start,
        clock: Clock,
    ) -> None:
        super().__init__(f"capture {source.info.source_id}")
        self.source = source
        self.ending = "end of stream"
        self.is_paused = False
        self.is_removed = False
        self.outbox = outbox
        self._stats = stats
        self._first_id = stats.captured
        self._first_epoch = stats.reconnects + (stats.captured > 0)
        self._tell = tell
        self._capture_ms = capture_ms
        self._max_frames = max_frames
        self._ready = ready
        self._clock = clock
        self._frames: Iterator[Frame] | None = None
        source.attach(self)

    def status(self, status: SourceStatus) -> None:
        """Pass on a new state; the end is told later, behind the last frame."""
        status = replace(status, stream_epoch=self._first_epoch + status.stream_epoch)
        if status.state == "ended":
            self.ending = self.ending if self.is_removed else status.reason or self.ending
            return
        if self.is_removed:  # while it was opened: its end has been told
            return
        self._stats.set_state(status.state, status.reason, status.stream_epoch)
        self._tell(status)

    def end(self) -> SourceStatus:
        """Return the status that follows the last frame."""
        return SourceStatus(self.source.info, "ended", self.ending, self._stats.reconnects)

    def lost(self, count: int, cause: str) -> None:
        """Count frames that arrived and could not be delivered."""
        self._stats.add_captured(count)
        self._stats.add_dropped(cause, count)

    def open(self) -> None:
        """Wait until the model is loaded: frames captured before could only grow old."""
        self._ready.wait(lambda: self.is_removed)
        if self.is_removed:
            raise ChannelClosedError("the source was removed")

    def remove(self) -> None:
        """End soon, from any state and any thread; the frames that wait are dropped as `removed`."""
        self.is_removed, self.ending = True, "removed"
        self.source.interrupt()
        self._ready.look()
        self.outbox.abort("removed")

    def inbox(self) -> Iterable[Frame]:
        """Yield the frames of the source, timing how long each took to come where the source does not wait."""
        self._frames = iter(self.source)
        started_ns = self._clock.monotonic_ns()
        try:
            for frame in islice(self._frames, self._max_frames):
                if not self.source.info.is_live:
                    self._capture_ms((self._clock.monotonic_ns() - started_ns) / NS_PER_MS)
                yield self._numbered(frame)
                started_ns = self._clock.monotonic_ns()
        except Exception as error:  # whatever it is, it is the reason that the source ended
            self.ending = f"failed: {error}"
            raise

    def _numbered(self, frame: Frame) -> Frame:
        if not self._first_id:
            return frame
        epoch = self._first_epoch + frame.stream_epoch
        return replace(frame, frame_id=self._first_id + frame.frame_id, stream_epoch=epoch)

    def work(self, item: Frame) -> None:
        """Hand the frame over as the channel's policy says."""
        self._stats.add_captured()
        if self.is_paused:
            self._stats.add_dropped("paused")
            return
        try:
            self.outbox.put(item)
        except ChannelClosedError:
            self._stats.add_dropped("removed" if self.is_removed else "shutdown")
            raise

    def close(self) -> None:
        """Close the source on this thread, then the channel behind it."""
        try:
            if self._frames is not None and hasattr(self._frames, "close"):
                self._frames.close()
        finally:
            self.outbox.close()
