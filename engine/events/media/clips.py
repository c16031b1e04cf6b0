"""Schedules due clips and reports how each turned out. Used by one thread."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.events.media.jobs import Answer, MediaProcess
from engine.events.media.names import clip_name, facts_text, snapshot_name
from engine.events.store.rows import ClipState, EventRow

logger = logging.getLogger(__name__)
LOOK_AGAIN_NS = NS_PER_S
SETTLE_NS = NS_PER_S // 2  # a fragment of a recording is on disk within a second
PATIENCE_S = 30.0  # wait for the keyframe after the end: smart codecs send one every 10 s or less often
LOST_PATIENCE_S = 3.0  # how long to wait for a camera that is no longer being recorded
MAX_TRIES = 3
MAX_WAITING = 10_000
MAX_FACTS = 30_000
NOT_RECORDED = "the source is not recorded (sources[].record)"


@dataclass(frozen=True, slots=True)
class ClipOptions:
    """What clips contain.

    Attributes:
        before_s: seconds before the event begins.
        after_s: seconds after it ends.
        max_s: longest clip.
    """

    before_s: float = 5.0
    after_s: float = 5.0
    max_s: float = 300.0


class Recorded(NamedTuple):
    """Where a source is recorded, whether the recording is of its main stream, and whether it is running now."""

    folder: Path
    is_main: bool
    is_running: bool


class Made(NamedTuple):
    """A finished clip: its state, files relative to the folder of events, and the times of its first and last frame."""

    event: EventRow
    state: ClipState
    reason: str
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    began_ns: int = 0
    ended_ns: int = 0
    sync: str = ""


class StillMade(NamedTuple):
    """An image cut from a recording: its name, size and capture time."""

    event: EventRow
    name: str
    bytes: int
    utc_ns: int


@dataclass(eq=False)
class _Due:
    """A job that waits for its time."""

    event: EventRow
    kind: str
    start_ns: int
    end_ns: int
    reason: str = ""
    tries: int = 0


def wanted_span(event: EventRow, options: ClipOptions, told_ns: int | None) -> tuple[int, int, str]:
    """Return the start and end of an event's clip, and why it is shorter than requested.

    A rule may be satisfied long after its conditions began (`for_s`): the clip always contains that moment.
    """
    ended_ns = event.ended_utc_ns if event.ended_utc_ns is not None else event.began_utc_ns
    start_ns = event.began_utc_ns - int(options.before_s * NS_PER_S)
    end_ns = ended_ns + int(options.after_s * NS_PER_S)
    longest_ns = int(options.max_s * NS_PER_S)
    if end_ns - start_ns <= longest_ns:
        return start_ns, end_ns, ""
    told_ns = min(told_ns or event.began_utc_ns, ended_ns)
    start_ns = max(start_ns, told_ns + int(options.after_s * NS_PER_S) - longest_ns)
    return start_ns, start_ns + longest_ns, f"limited to {options.max_s:g} s (clips.max_s)"


class ClipQueue:
    """Cuts clips, and stills of main streams, one after the other in the media process.

    Args:
        folder: of events.
        options: what clips contain.
        recorded: says where a source is recorded, None if it is not.
        made: receives every finished clip.
        still_made: receives every finished still.
        process: for tests.
        clock: time.

    Attributes:
        results: finished clips by source and state.
    """

    def __init__(
        self,
        folder: Path,
        options: ClipOptions,
        recorded: Callable[[str], Recorded | None],
        made: Callable[[Made], None],
        still_made: Callable[[StillMade], None],
        process: MediaProcess | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._folder = folder
        self._options = options
        self._recorded = recorded
        self._made = made
        self._still_made = still_made
        self.process = process or MediaProcess(clock=clock)
        self._clock = clock
        self._waiting: list[tuple[int, int, _Due]] = []
        self._order = count()
        self._running: _Due | None = None
        self.results: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return len(self._waiting) + (self._running is not None)

    def add(self, event: EventRow, told_ns: int | None = None) -> None:
        """Schedule the clip of an event that has ended, to be cut once its recording is complete.

        Args:
            event: the event.
            told_ns: wall clock of the frame that satisfied the rule; None: unknown.
        """
        start_ns, end_ns, reason = wanted_span(event, self._options, told_ns)
        due = _Due(event, "clip", start_ns, end_ns, reason)
        if self._recorded(event.source_id) is None:
            self._finish(due, Made(event, "none", NOT_RECORDED))
        elif len(self._waiting) >= MAX_WAITING:
            self._finish(due, Made(event, "none", "too many clips are waiting"))
        else:
            self._put(due, end_ns + SETTLE_NS)

    def add_still(self, event: EventRow, utc_ns: int) -> None:
        """Replace the best image of an event with the same moment from the recording, if that is a different stream."""
        place = self._recorded(event.source_id)
        if place is not None and place.is_main and len(self._waiting) < MAX_WAITING:
            self._put(_Due(event, "still", utc_ns, utc_ns), utc_ns + 3 * NS_PER_S)

    def work(self) -> float:
        """Start what is due without waiting for it; return the seconds after which to call again."""
        if self._running is not None:
            answer = self.process.poll()
            if answer is None:
                return 0.05
            due, self._running = self._running, None
            self._take(due, answer)
        if not self._waiting:
            return 1.0
        wait_ns = self._waiting[0][0] - self._clock.utc_ns()
        if wait_ns > 0:
            return min(wait_ns / NS_PER_S, 1.0)
        due = heapq.heappop(self._waiting)[2]
        self._begin(due)
        return 0.01

    def close(self) -> None:
        """Stop; clips that are still due stay due in the store and are cut after the next start."""
        self.process.close()
        self._waiting.clear()
        self._running = None

    def _put(self, due: _Due, at_ns: int) -> None:
        heapq.heappush(self._waiting, (at_ns, next(self._order), due))

    def _is_patient(self, due: _Due) -> bool:
        """Return whether to wait longer for the end of the recording."""
        place = self._recorded(due.event.source_id)
        patience_s = PATIENCE_S if place is not None and place.is_running else LOST_PATIENCE_S
        return self._clock.utc_ns() - due.end_ns < patience_s * NS_PER_S

    def _begin(self, due: _Due) -> None:
        place = self._recorded(due.event.source_id)
        if place is None:
            self._finish(due, Made(due.event, "none", NOT_RECORDED))
            return
        try:
            self.process.begin(due.kind, self._job(due, place.folder))
        except OSError as error:
            self._again(due, f"no media process can be started ({error})")
        else:
            self._running = due

    def _job(self, due: _Due, folder: Path) -> Mapping[str, Any]:
        facts = facts_text(due.event)
        common = {"folder": str(folder), "facts": facts if len(facts) < MAX_FACTS else ""}
        if due.kind == "still":
            path = self._folder / snapshot_name(due.event, "best")
            return {**common, "utc_ns": due.start_ns, "path": str(path), "max_side": 8192}
        path = self._folder / clip_name(due.event)
        span = {"start_ns": due.start_ns, "end_ns": due.end_ns}
        return {**common, **span, "path": str(path), "wait": self._is_patient(due)}

    def _take(self, due: _Due, answer: Answer) -> None:
        result = answer.result
        if answer.error:
            self._again(due, answer.error)
        elif due.kind == "still":
            if result["bytes"]:
                name = snapshot_name(due.event, "best")
                self._still_made(StillMade(due.event, name, result["bytes"], result["utc_ns"]))
        elif not result["is_final"] and self._is_patient(due):
            self._put(due, self._clock.utc_ns() + LOOK_AGAIN_NS)
        else:
            self._finish(due, self._clip(due, result))

    def _clip(self, due: _Due, result: Mapping[str, Any]) -> Made:
        reasons = [text for text in (result["reason"], due.reason) if text]
        state: ClipState = "partial" if due.reason and result["state"] == "exact" else result["state"]
        names = tuple(str(Path(path).relative_to(self._folder)) for path in result["paths"])
        times = result["began_ns"], result["ended_ns"]
        return Made(due.event, state, "; ".join(reasons), names, tuple(result["sizes"]), *times, result["sync"])

    def _again(self, due: _Due, reason: str) -> None:
        due.tries += 1
        if due.tries < MAX_TRIES:
            self._put(due, self._clock.utc_ns() + LOOK_AGAIN_NS * 5**due.tries)
        elif due.kind == "clip":
            self._finish(due, Made(due.event, "none", reason))

    def _finish(self, due: _Due, made: Made) -> None:
        self.results[made.event.source_id, made.state] += 1
        self._made(made)
