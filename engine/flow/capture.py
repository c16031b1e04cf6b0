"""Reading one source, counting every frame."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

from engine.clock import NS_PER_MS
from engine.data import Frame, SourceStatus
from engine.flow.attention.gate import NO_RULES, FrameGate, RateLimit
from engine.flow.channel import Channel, ChannelClosedError
from engine.flow.lane import FlowContext, Start
from engine.flow.stage import Stage
from engine.protocols import Source

logger = logging.getLogger(__name__)


class CaptureStage(Stage[Frame]):
    """Reads one source into its channel, counting every frame; it is also the source's listener.

    Frame numbers continue where an earlier source of the same name stopped, in a new stream epoch.
    """

    def __init__(
        self,
        source: Source,
        outbox: Channel[Frame],
        context: FlowContext,
        *,
        tell: Callable[[SourceStatus], None],
        may_begin: Callable[[], bool],
        start: Start,
    ) -> None:
        super().__init__(f"capture {source.info.source_id}")
        self.source = source
        self.ending = "end of stream"
        self.is_paused = False
        self.is_removed = False
        self.outbox = outbox
        self._context = context
        self._rate = RateLimit()
        self._checked: tuple[FrameGate, int, int] | None = None
        self._stats = stats = context.stats.source(source.info.source_id)
        self._first_id = stats.captured
        self._first_epoch = stats.reconnects + (stats.captured > 0)
        self._tell = tell
        self._may_begin = may_begin
        self._start = start
        self._frames: Iterator[Frame] | None = None
        source.attach(self)

    def status(self, status: SourceStatus) -> None:
        """Pass on a new state; `ended` is sent later, after the last frame."""
        status = replace(status, stream_epoch=self._first_epoch + status.stream_epoch)
        if status.state == "ended":
            self.ending = self.ending if self.is_removed else status.reason or self.ending
            return
        if self.is_removed:  # removed while it was opening: its end has already been reported
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
        """Wait until the model is loaded: frames captured earlier would only go stale.

        Raises:
            ChannelClosedError: the source was removed in the meantime.
        """
        self._start.wait(lambda: self.is_removed or self._may_begin())
        if self.is_removed:
            raise ChannelClosedError("the source was removed")

    def remove(self, reason: str = "removed") -> None:
        """End soon, from any state and any thread; waiting frames are dropped as `removed`."""
        self.is_removed, self.ending = True, reason
        self.source.interrupt()
        self._start.look()
        self.outbox.abort("removed")

    def inbox(self) -> Iterable[Frame]:
        """Yield the frames of the source; if it does not wait, time how long each took to arrive."""
        self._frames = iter(self.source)
        clock, stats = self._context.clock, self._context.stats
        started_ns = clock.monotonic_ns()
        try:
            for frame in islice(self._frames, self._context.options.max_frames):
                if not self.source.info.is_live:
                    stats.add_capture_ms((clock.monotonic_ns() - started_ns) / NS_PER_MS)
                yield self._numbered(frame)
                started_ns = clock.monotonic_ns()
        except Exception as error:  # any error is the reason why the source ended
            self.ending = f"failed: {error}"
            raise

    def _numbered(self, frame: Frame) -> Frame:
        if not self._first_id:
            return frame
        epoch = self._first_epoch + frame.stream_epoch
        numbered: Frame = frame.restamped(frame_id=self._first_id + frame.frame_id, stream_epoch=epoch)
        return numbered

    def work(self, item: Frame) -> None:
        """Put the frame into the channel under its overflow policy."""
        self._stats.add_captured(utc_ns=item.captured_utc_ns)
        if self.is_paused:
            self._stats.add_dropped("paused")
            return
        gate = self._context.rules.get(item.source_id, NO_RULES)
        if gate.max_fps is not None and not self._rate.admits(self._time_ns(item), gate.max_fps):
            self._stats.add_dropped("max_fps")
            return
        self._check_gate(gate, item)
        try:
            self.outbox.put(item)
        except ChannelClosedError:
            self._stats.add_dropped("removed" if self.is_removed else "shutdown")
            raise

    def _time_ns(self, frame: Frame) -> int:
        """Return when a frame was seen: its arrival for a camera, its own timestamp for a file."""
        return frame.captured_ns if self.source.info.is_live or frame.pts_ns is None else frame.pts_ns

    def _check_gate(self, gate: FrameGate, frame: Frame) -> None:
        """Warn once about polygons that lie outside frames of this size."""
        checked, size_wh = self._checked, (frame.width, frame.height)
        if checked is None or checked[0] is not gate or checked[1:] != size_wh:
            self._checked = gate, *size_wh
            for polygon in gate.outside(frame.width, frame.height):
                size = f"{frame.width}x{frame.height}"
                logger.warning("%s: polygon %s is outside its frames of %s", frame.source_id, polygon, size)

    def close(self) -> None:
        """Close the source on this thread, then the channel after it."""
        try:
            if self._frames is not None and hasattr(self._frames, "close"):
                self._frames.close()
        finally:
            self.outbox.close()
