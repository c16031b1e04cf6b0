"""A source that may hang, stall, fail and come back: the state machine of cameras and network streams.

connecting ──first frame──▶ live ◀──▶ stalled (no frame, still connected)
    ▲                         │
    └──── wait, doubling ◀── offline (failed, with the reason)          ended (interrupted, given up, complete)
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Frame, SourceInfo
from engine.errors import SourceError
from engine.redaction import public_address
from engine.sources.base import SourceBase
from engine.sources.live.reader_events import ArrivedFrame, Event, Finished, FrameReader, Opened
from engine.video.address import VideoAddress
from engine.video.backoff import Backoff
from engine.video.coded.feed import VideoFeed
from engine.video.decode import KEYFRAME_WAIT_S
from engine.video.frames import MissingFrames
from engine.video.network import SEGMENTS_S
from engine.video.options import SourceOptions
from engine.video.playlist.renewal import BEGINS_AGAIN
from engine.video.uri import is_playlist

logger = logging.getLogger(__name__)
_STOPPED_S = 0.5  # a wait exceeds its limit by more than this only if this process was stopped
_KILL_AFTER_S = 1.0  # a reader gets this much longer than its own limit
_STALL_INTERVALS = 4.0
STABLE_S = 5.0  # a connection that has lasted this long works
WHOLE_S = 2 * KEYFRAME_WAIT_S  # extra time for a reader that reports only losses: it may be waiting for a keyframe
KEYFRAMES_S = 20.0  # time between two keyframes: cameras that save bandwidth send one every 10 s


def patient(url: str, options: SourceOptions) -> SourceOptions:
    """Return the options with time limits for streams with infrequent frames: HLS segments, or keyframes only.

    >>> patient("http://cam/live.m3u8", SourceOptions()).stall_s, patient("rtsp://cam/1", SourceOptions()).stall_s
    (20.0, 2.0)
    """
    least_s = max(SEGMENTS_S * is_playlist(url), KEYFRAMES_S * options.keyframes_only)
    read_s, stall_s = max(options.read_timeout_s, least_s), max(options.stall_s, least_s)
    return replace(options, read_timeout_s=read_s, stall_s=stall_s)


class Watch:
    """Distinguishes a stall and a dead reader from a slow camera by the time since the last sign of life."""

    def __init__(self, options: SourceOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._last_ns = self._whole_ns = clock.monotonic_ns()
        self._interval_s = 0.0
        self._limit_s = options.connect_timeout_s + options.open_timeout_s
        self._captured_ns: int | None = None
        self._first_ns: int | None = None

    def opened(self) -> None:
        """Record that the connection is established; a keyframe may take a while."""
        self.resume()
        self._limit_s = max(self._options.read_timeout_s, KEYFRAME_WAIT_S)

    def alive(self, captured_ns: int | None = None) -> None:
        """Record that a frame arrived, intact or damaged (no capture time)."""
        if captured_ns is not None:
            if self._captured_ns is not None:
                interval_s = (captured_ns - self._captured_ns) / NS_PER_S
                weight = 0.2 if self._interval_s else 1.0
                self._interval_s += weight * (min(interval_s, self._options.read_timeout_s) - self._interval_s)
            self._captured_ns = captured_ns
            self._whole_ns = self._clock.monotonic_ns()
            self._first_ns = self._first_ns or self._whole_ns
        self._limit_s = self._options.read_timeout_s
        self._last_ns = self._clock.monotonic_ns()

    def wait(self, reader: FrameReader) -> Event | None:
        """Return the next event, or None if there is none in time."""
        limit_s, begun_ns = self.timeout_s, self._clock.monotonic_ns()
        event = reader.next(limit_s)
        if event is not None and self._clock.monotonic_ns() - begun_ns > (limit_s + _STOPPED_S) * NS_PER_S:
            self.resume()  # this process was stopped meanwhile, but the camera was not
        return event

    def resume(self) -> None:
        """Restart the count: the consumer was away, or a new wait begins."""
        self._last_ns = self._whole_ns = self._clock.monotonic_ns()

    @property
    def frames_s(self) -> float:
        """Seconds since the first intact frame of the connection, 0 before it."""
        return 0.0 if self._first_ns is None else (self._clock.monotonic_ns() - self._first_ns) / NS_PER_S

    @property
    def idle_s(self) -> float:
        """Seconds since the last intact frame."""
        return (self._clock.monotonic_ns() - self._whole_ns) / NS_PER_S

    @property
    def is_stalled(self) -> bool:
        """Whether frames are overdue."""
        return self._captured_ns is not None and self.idle_s >= self._stall_s

    @property
    def is_dead(self) -> bool:
        """Whether the reader exceeded its own time limit, or has reported only losses for too long."""
        return self._silent_s >= self._limit_s + _KILL_AFTER_S or self.idle_s >= self._limit_s + WHOLE_S

    @property
    def timeout_s(self) -> float:
        """How long to wait before checking again."""
        waits = [self._limit_s + _KILL_AFTER_S - self._silent_s]
        if self._captured_ns is not None and not self.is_stalled:
            waits.append(self._stall_s - self.idle_s)
        return max(min(waits), 0.001)

    @property
    def _silent_s(self) -> float:
        """Seconds since the last sign of life."""
        return (self._clock.monotonic_ns() - self._last_ns) / NS_PER_S

    @property
    def _stall_s(self) -> float:
        return max(self._options.stall_s, _STALL_INTERVALS * self._interval_s)


class LiveSource(SourceBase):
    """Frames of a camera or stream; it reconnects indefinitely unless the options limit that.

    Args:
        target: what to open.
        make_reader: returns its reader, which runs in a process or on the iterating thread.
        source_id: its name.
        options: reconnecting and time limits.
        clock: time, for tests.
        rng: jitter, for tests.

    Attributes:
        feed: its coded video; None if its reader offers none.
    """

    feed: VideoFeed | None = None

    def __init__(
        self,
        target: VideoAddress,
        make_reader: Callable[[], FrameReader],
        source_id: str,
        options: SourceOptions,
        *,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(SourceInfo(source_id, public_address(target.url), is_live=target.live), clock)
        self._make_reader = make_reader
        self._reader: FrameReader | None = None
        self._options = patient(target.url, options)
        self._backoff = Backoff(options, rng or random.Random())
        self._has_been_live = False
        self._failed = 0
        self._is_playlist = is_playlist(target.url)
        self._grows = False
        self._seen_ns: int | None = None

    def interrupt(self) -> None:
        """End the iteration soon; callable from any thread, in any state, even before it begins."""
        super().interrupt()
        reader = self._reader
        if reader is not None:
            reader.wake()

    def _frames(self) -> Iterator[Frame]:
        reader = self._made_reader()
        if reader is None:
            return
        try:
            while not self._interrupted.is_set():
                finished = yield from self._connection(reader)
                if finished.is_end or self._interrupted.is_set():
                    self._ending = finished.reason
                    return
                if BEGINS_AGAIN in finished.reason:
                    self._seen_ns = None
                if finished.is_fault:
                    raise SourceError(f"cannot read {self.info.uri}: {finished.reason}")
                self._wait_offline(finished.reason)
        finally:
            reader.close()

    def _made_reader(self) -> FrameReader | None:
        """Return the reader; if descriptors or memory run out, retry until it succeeds or is interrupted."""
        while not self._interrupted.is_set():
            try:
                self._reader = self._make_reader()
                return self._reader
            except OSError as error:
                self._wait_offline(f"cannot create a reader ({error}): raise the limit of open files")
        return None

    def _connection(self, reader: FrameReader) -> Generator[Frame, None, Finished]:
        """Open once, yield frames, and return how it ended."""
        watch = Watch(self._options, self._clock)
        is_first = True
        reader.open()
        while not self._interrupted.is_set():
            event = watch.wait(reader)
            if isinstance(event, Finished):
                return event
            if isinstance(event, ArrivedFrame):
                watch.alive(event.stamp.captured_ns)
                if is_first and self._is_repeated(event.stamp.pts_ns):
                    self._lose(1, "stale")
                    continue
                self._seen_ns = event.stamp.pts_ns
                self._begin_epoch(is_first)
                is_first = False
                if watch.frames_s >= STABLE_S:
                    self._backoff.reset()
                yield self._frame(event.image, event.stamp, is_turned=event.is_turned)
                watch.resume()
                continue
            if isinstance(event, MissingFrames):
                watch.alive()
                self._lose(event.count, event.cause)
            elif isinstance(event, Opened):
                watch.opened()
                if self._is_over(event.facts["duration_s"]):
                    reader.abandon()
                    self._seen_ns = None  # whatever follows is new, even if its time begins at 0
                    return Finished("the camera has ended the stream: its playlist is complete")
                self._describe(**{key: value for key, value in event.facts.items() if key != "duration_s"})
            if watch.is_dead:
                reader.abandon()
                return Finished(f"no frame for {watch.idle_s:.1f} s: the reader was stopped")
            elif watch.is_stalled and self._state == "live":
                self._report("stalled", f"no frame for {watch.idle_s:.1f} s")
        return Finished("interrupted", is_end=True)

    def _is_over(self, duration_s: float | None) -> bool:
        """Return whether a playlist that was live is complete: reading it would repeat its last frames."""
        self._grows = self._grows or (self._is_playlist and duration_s is None)
        return self._grows and duration_s is not None

    def _is_repeated(self, pts_ns: int | None) -> bool:
        """Return whether a frame already arrived before the reconnect: HLS restarts at the newest segment's start."""
        if not self._is_playlist or pts_ns is None or self._seen_ns is None:
            return False
        return 0 <= self._seen_ns - pts_ns <= SEGMENTS_S * NS_PER_S

    def _begin_epoch(self, is_first: bool) -> None:
        """Record the first frame of a connection: every connection but the first starts a new epoch of the stream."""
        if not is_first:
            return
        self._epoch += self._has_been_live
        self._has_been_live = True
        self._failed = 0

    def _wait_offline(self, reason: str) -> None:
        """Report the failure and wait before the next attempt.

        Raises:
            SourceError: no further attempt is allowed.
        """
        wait_s = self._backoff.next_s(reason)
        self._failed += 1
        limit = self._options.max_attempts
        if not self._options.reconnect or (limit is not None and self._failed >= limit):
            verb = "read" if self._has_been_live else "open"
            raise SourceError(f"cannot {verb} {self.info.uri}: {reason}")
        level = logging.WARNING if self._backoff.attempts == 1 else logging.INFO
        logger.log(level, "%s is offline: %s; next attempt in %.1f s", self.info.source_id, reason, wait_s)
        self._report("offline", reason)
        if not self._clock.wait(self._interrupted, wait_s):
            self._report("connecting", f"attempt {self._backoff.attempts + 1}, after: {reason}")
