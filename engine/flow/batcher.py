"""The batcher groups frames of several cameras into batches, fairly and without waiting for a dead camera."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.clock import NS_PER_MS, NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Frame
from engine.errors import ConfigError
from engine.flow.channel import Arrivals, Channel, ChannelClosedError

logger = logging.getLogger(__name__)
RUN_DRY_S = 5.0
LATE_IN_A_ROW, LATE_S = 5, 5.0
"""Frames dropped for their age, and for how long, before this is a warning: a stall of the network ends sooner."""
LIVE_IN_A_ROW = 9  # live frames served before a waiting file: files get at least one frame in ten


Arrive = Callable[["Inlet"], None]


@dataclass(frozen=True, slots=True, eq=False)
class Inlet:
    """Where the frames of one source come from.

    Attributes:
        source_id: the source.
        channel: made with the batcher's `condition`.
        max_age_ms: frames older than this are dropped; None: no limit.
        is_live: whether the source keeps producing frames that cannot wait.
    """

    source_id: str
    channel: Channel[Frame]
    max_age_ms: float | None = None
    is_live: bool = True


@dataclass(frozen=True, slots=True)
class Batch:
    """The next work of the detecting stage.

    Attributes:
        frames: for one inference, at most one per source.
        older: frames that came before them and are only tracked (`Batcher(keep_older=True)`).
        ended: sources that ended after them.
        released: sources that left this batcher after them, each with the callable that takes it over.
    """

    frames: list[Frame]
    ended: list[str]
    older: list[Frame]
    released: list[tuple[Inlet, Arrive]]


class Batcher:
    """Takes the freshest frame of each source's channel, fairly and without waiting for a dead camera.

    A batch is complete when it has `max_batch` frames, when each open source contributed one, or `wait_s` after its
    first frame. Frames older than `max_age_ms` (live sources) are dropped. Live sources come before files, which
    can wait: a file gets the free slots, and at least one frame after every `LIVE_IN_A_ROW` live ones.

    Args:
        max_batch: maximum frames per batch.
        wait_s: how long a first frame waits for others.
        keep_older: take all waiting frames of a source, the newest to detect on, the older ones to track only.
        on_old: called with each frame dropped for its age.
        clock: monotonic clock for the age.
        condition: shared by all batchers between which a source may move.
    """

    def __init__(
        self,
        max_batch: int,
        wait_s: float,
        *,
        keep_older: bool = False,
        on_old: Callable[[Frame, str], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        condition: Arrivals | None = None,
    ) -> None:
        self.condition = condition or Arrivals()
        self._max_batch = max_batch
        self._wait_s = wait_s
        self._keep_older = keep_older
        self._older: list[Frame] = []
        self._late: dict[str, tuple[int, int]] = {}
        self._warned: set[str] = set()
        self._on_old = on_old
        self._clock = clock
        self._inlets: dict[str, Inlet] = {}
        self._expected: set[str] = set()
        self._released: list[tuple[Inlet, Arrive]] = []
        self._order: list[str] = []
        self._live_in_a_row = 0
        self._is_nudged = False
        self._sealed = False
        self._aborted = False
        self._ended = False

    def add(self, inlet: Inlet) -> None:
        """Take frames of another source.

        Raises:
            ConfigError: an earlier source of this name still has frames, or all sources and this batcher have ended.
        """
        source_id = inlet.source_id
        with self.condition:
            deadline = time.monotonic() + RUN_DRY_S
            while source_id in self._inlets:
                if time.monotonic() >= deadline:
                    raise ConfigError(
                        f"source {source_id} cannot be added: frames of the previous one are still waiting"
                    )
                self.condition.wait(RUN_DRY_S)
            if self._ended:
                raise ConfigError(
                    f"source {source_id} cannot be added: all other sources have ended, so the run is ending"
                )
            self._inlets[source_id] = inlet
            self._expected.discard(source_id)
            self._order.append(source_id)
            self.condition.notify_all()

    def expect(self, source_id: str) -> None:
        """Stay open until this source has been added: it is moving here from another batcher."""
        with self.condition:
            self._expected.add(source_id)

    def forget(self, source_id: str) -> None:
        """Stop expecting a source."""
        with self.condition:
            self._expected.discard(source_id)
            self.condition.notify_all()

    def release(self, source_id: str, arrive: Arrive) -> bool:
        """Release a source: the next batch passes its inlet to `arrive`.

        Returns:
            whether the source was here and had not ended.
        """
        with self.condition:
            inlet = self._inlets.get(source_id)
            if inlet is None or self._ended or self._aborted:
                return False
            self._drop(source_id)
            self._released.append((inlet, arrive))
            self.condition.notify_all()
        return True

    def change(self, *, max_batch: int | None = None, keep_older: bool | None = None) -> None:
        """Change the frames per batch, or whether older frames are kept, from the next batch on."""
        with self.condition:
            self._max_batch = self._max_batch if max_batch is None else max_batch
            self._keep_older = self._keep_older if keep_older is None else keep_older

    def nudge(self) -> None:
        """Wake a waiting `get`; it returns an empty batch if there is nothing else."""
        with self.condition:
            self._is_nudged = True
            self.condition.notify_all()

    def abort(self) -> None:
        """End immediately: `get` returns no further batch."""
        with self.condition:
            self._aborted = True
            self.condition.notify_all()

    def seal(self) -> None:
        """Accept no more sources: `get` ends when all channels have ended."""
        with self.condition:
            self._sealed = True
            self.condition.notify_all()

    def get(self) -> Batch:
        """Wait for the next batch: up to `max_batch` frames in a fair order, or for a source to end or leave.

        Raises:
            ChannelClosedError: all sources have ended and been reported, and no more can be added; or it was aborted.
        """
        while True:
            self._wait_for_first()
            frames = self._take(self._max_batch, set())
            deadline = time.monotonic() + self._wait_s
            while frames and len(frames) < self._wanted() and self._wait_until(deadline):
                frames += self._take(self._max_batch - len(frames), {frame.source_id for frame in frames})
            ended, released, is_nudged = self._take_news()
            older, self._older = self._older, []
            if frames or ended or released or is_nudged:
                return Batch(frames, ended, older, released)

    def _wanted(self) -> int:
        """Return how many frames are worth waiting for: one per open source."""
        with self.condition:
            return min(self._max_batch, sum(not inlet.channel.closed for inlet in self._inlets.values()))

    def _wait_for_first(self) -> None:
        with self.condition:
            while self._aborted or not self._has_news:
                if self._is_over:
                    self._ended = True
                    raise ChannelClosedError("all sources have ended")
                self.condition.wait()

    @property
    def _is_over(self) -> bool:
        has_sources = self._inlets or self._expected or self._released
        return self._aborted or (self._sealed and not has_sources and not self._is_nudged)

    @property
    def _has_news(self) -> bool:
        """Whether a frame waits, or a source has ended or left."""
        return bool(self._released) or self._is_nudged or any(map(_is_ready, self._inlets.values()))

    def _take_news(self) -> tuple[list[str], list[tuple[Inlet, Arrive]], bool]:
        """Remove closed, empty sources; return their names, the sources that left, and any nudge."""
        with self.condition:
            ended = [name for name, inlet in self._inlets.items() if inlet.channel.closed and not len(inlet.channel)]
            for source_id in ended:
                self._drop(source_id)
            if ended:
                self.condition.notify_all()
            released, self._released = self._released, []
            is_nudged, self._is_nudged = self._is_nudged, False
        return ended, released, is_nudged

    def _drop(self, source_id: str) -> None:
        del self._inlets[source_id]
        self._order.remove(source_id)
        self._late.pop(source_id, None)
        self._warned.discard(source_id)

    def _wait_until(self, deadline: float) -> bool:
        with self.condition:
            remaining = deadline - time.monotonic()
            if remaining > 0:
                self.condition.wait(remaining)
        return remaining > 0

    def _take(self, count: int, served: set[str]) -> list[Frame]:
        """Take up to `count` frames, one per source not yet served; a served source moves to the back."""
        frames: list[Frame] = []
        with self.condition:
            for source_id in self._turns(served):
                if len(frames) == count:
                    break
                inlet = self._inlets[source_id]
                waiting = [inlet.channel.get()]
                while self._keep_older and len(inlet.channel):
                    waiting.append(inlet.channel.get())
                self._order.remove(source_id)
                self._order.append(source_id)
                fresh = [frame for frame in waiting if not self._is_old(frame, inlet.max_age_ms)]
                self._note(inlet, waiting, fresh)
                if fresh:
                    self._older += fresh[:-1]
                    frames.append(fresh[-1])
                    self._live_in_a_row = self._live_in_a_row + 1 if inlet.is_live else 0
        return frames

    def _turns(self, served: set[str]) -> list[str]:
        """Return the sources that have a frame and are not yet served, in the order in which they are served."""
        waiting = [name for name in self._order if len(self._inlets[name].channel) and name not in served]
        live = [name for name in waiting if self._inlets[name].is_live]
        files = [name for name in waiting if not self._inlets[name].is_live]
        if not files:
            self._live_in_a_row = 0
        before_file = max(LIVE_IN_A_ROW - self._live_in_a_row, 0)
        return [*live[:before_file], *files[:1], *live[before_file:], *files[1:]]

    def _note(self, inlet: Inlet, waiting: Sequence[Frame], fresh: Sequence[Frame]) -> None:
        """Warn once of a source whose every frame is too old: it looks live but contributes nothing."""
        name, now_ns = inlet.source_id, self._clock.monotonic_ns()
        if fresh:
            self._late.pop(name, None)
            return
        count, since_ns = self._late.get(name, (0, now_ns))
        self._late[name] = count + len(waiting), since_ns
        if count < LATE_IN_A_ROW or now_ns - since_ns < LATE_S * NS_PER_S or name in self._warned:
            return
        self._warned.add(name)
        logger.warning(
            "%s: every frame is too old when its turn comes (%.1f s, at most %.1f s is allowed), so none is published: "
            "use a smaller stream of the camera or a faster model, or raise pipeline.max_age_ms",
            *(name, (now_ns - waiting[-1].captured_ns) / NS_PER_S, (inlet.max_age_ms or 0) / 1000),
        )

    def _is_old(self, frame: Frame, max_age_ms: float | None) -> bool:
        if max_age_ms is None or self._clock.monotonic_ns() - frame.captured_ns <= max_age_ms * NS_PER_MS:
            return False
        if self._on_old is not None:
            self._on_old(frame, "age")
        return True


def _is_ready(inlet: Inlet) -> bool:
    """Return whether a source has a frame waiting, or has ended."""
    return bool(len(inlet.channel)) or inlet.channel.closed
