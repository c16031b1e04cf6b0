"""The batcher: where the frames of several cameras become batches, fairly and never waiting for a dead camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.clock import NS_PER_MS, SYSTEM_CLOCK, Clock
from engine.data import Frame
from engine.errors import ConfigError
from engine.flow.channel import Channel, ChannelClosedError

RUN_DRY_S = 5.0
LIVE_IN_A_ROW = 9  # live frames that a waiting file lets go first: files get one frame in ten at least


@dataclass(frozen=True, slots=True)
class Batch:
    """What the detecting stage is to do next.

    Attributes:
        frames: to detect on together, at most one per source.
        older: frames that came before them and are only tracked (`Batcher(keep_older=True)`).
        ended: sources that ended behind them.
    """

    frames: list[Frame]
    ended: list[str]
    older: list[Frame]


class Batcher:
    """Takes frames from one channel per source, fairly: the freshest of each, never waiting for a dead camera.

    A batch is complete when it has `max_batch` frames, when every open source has given one, or `wait_s` after its
    first frame. Frames older than `max_age_ms` (live sources) are not handed on. Live sources come before files, which
    can wait: a file gets the places that they leave, and one frame after `LIVE_IN_A_ROW` of theirs in any case.

    Args:
        max_batch: frames per batch at most.
        wait_s: how long a first frame waits for others.
        keep_older: take all waiting frames of a source, the newest to detect on, the older ones to track only.
        on_old: called with each frame dropped for its age.
        clock: monotonic clock for the age.
    """

    def __init__(
        self,
        max_batch: int,
        wait_s: float,
        *,
        keep_older: bool = False,
        on_old: Callable[[Frame, str], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.condition = threading.Condition()
        self.max_batch = max_batch
        self._wait_s = wait_s
        self.keep_older = keep_older
        self._older: list[Frame] = []
        self._on_old = on_old
        self._clock = clock
        self._inlets: dict[str, tuple[Channel[Frame], float | None]] = {}
        self._files: set[str] = set()
        self._order: list[str] = []
        self._live_in_a_row = 0
        self._sealed = False
        self._ended = False

    def add(self, source_id: str, channel: Channel[Frame], max_age_ms: float | None, *, is_live: bool = True) -> None:
        """Take frames from `channel` too; it must have been made with this batcher's `condition`.

        Raises:
            ConfigError: an earlier source of this name has not run dry yet, or all have ended, which was told.
        """
        with self.condition:
            deadline = time.monotonic() + RUN_DRY_S
            while source_id in self._inlets:
                if time.monotonic() >= deadline:
                    raise ConfigError(f"source {source_id} cannot be added: frames of the former one are still waiting")
                self.condition.wait(RUN_DRY_S)
            if self._ended:
                raise ConfigError(f"source {source_id} cannot be added: all others have ended, and so does the run")
            self._inlets[source_id] = (channel, max_age_ms)
            self._order.append(source_id)
            if not is_live:
                self._files.add(source_id)
            self.condition.notify_all()

    def seal(self) -> None:
        """Add no more sources: when all channels have ended, `get` ends too."""
        with self.condition:
            self._sealed = True
            self.condition.notify_all()

    def get(self) -> Batch:
        """Wait for the next batch: up to `max_batch` frames in a fair order, or the news that a source ended.

        Raises:
            ChannelClosedError: all sources have ended, which was told, and no more can be added.
        """
        while True:
            self._wait_for_first()
            frames = self._take(self.max_batch, set())
            deadline = time.monotonic() + self._wait_s
            while frames and len(frames) < self._wanted() and self._wait_until(deadline):
                frames += self._take(self.max_batch - len(frames), {frame.source_id for frame in frames})
            ended = self._remove_ended()
            older, self._older = self._older, []
            if frames or ended:
                return Batch(frames, ended, older)

    def _wanted(self) -> int:
        """Frames that are worth waiting for: one of each open source."""
        with self.condition:
            return min(self.max_batch, sum(not channel.closed for channel, _ in self._inlets.values()))

    def _wait_for_first(self) -> None:
        with self.condition:
            while not any(len(channel) or channel.closed for channel, _ in self._inlets.values()):
                if self._sealed and not self._inlets:
                    self._ended = True
                    raise ChannelClosedError("all sources have ended")
                self.condition.wait()

    def _remove_ended(self) -> list[str]:
        """Forget the sources that are closed and empty, and return their names."""
        with self.condition:
            ended = [name for name, (channel, _) in self._inlets.items() if channel.closed and not len(channel)]
            for source_id in ended:
                del self._inlets[source_id]
                self._order.remove(source_id)
                self._files.discard(source_id)
            if ended:
                self.condition.notify_all()
        return ended

    def _wait_until(self, deadline: float) -> bool:
        with self.condition:
            remaining = deadline - time.monotonic()
            if remaining > 0:
                self.condition.wait(remaining)
        return remaining > 0

    def _take(self, count: int, served: set[str]) -> list[Frame]:
        """Take up to `count` frames, one of each source not yet served; who was served goes to the end."""
        frames: list[Frame] = []
        with self.condition:
            for source_id in self._turns(served):
                if len(frames) == count:
                    break
                channel, max_age_ms = self._inlets[source_id]
                waiting = [channel.get()]
                while self.keep_older and len(channel):
                    waiting.append(channel.get())
                self._order.remove(source_id)
                self._order.append(source_id)
                fresh = [frame for frame in waiting if not self._is_old(frame, max_age_ms)]
                if fresh:
                    self._older += fresh[:-1]
                    frames.append(fresh[-1])
                    self._live_in_a_row = 0 if source_id in self._files else self._live_in_a_row + 1
        return frames

    def _turns(self, served: set[str]) -> list[str]:
        """Return the sources that have a frame and are not yet served, in the order in which they are."""
        waiting = [name for name in self._order if len(self._inlets[name][0]) and name not in served]
        live = [name for name in waiting if name not in self._files]
        files = [name for name in waiting if name in self._files]
        if not files:
            self._live_in_a_row = 0
        before_file = max(LIVE_IN_A_ROW - self._live_in_a_row, 0)
        return [*live[:before_file], *files[:1], *live[before_file:], *files[1:]]

    def _is_old(self, frame: Frame, max_age_ms: float | None) -> bool:
        if max_age_ms is None or self._clock.monotonic_ns() - frame.captured_ns <= max_age_ms * NS_PER_MS:
            return False
        if self._on_old is not None:
            self._on_old(frame, "age")
        return True
