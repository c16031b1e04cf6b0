"""Totals that continue across a move: the counts of a fleet's other engines, from their shared event log.

Engines write counts per minute to a server (`events.store`). An engine to which a source is assigned adds what the
others have counted since the last reset to its own counts. It reads in the background and more than once, because the
former owner may write its last counts a moment after its release.
"""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from engine.analytics.rules.schedule import minute_of_day
from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.errors import EngineError
from pipelines.build.events import events_place
from pipelines.build.scene import scene_of

if TYPE_CHECKING:
    from engine.flow.pipeline import Pipeline
    from pipelines.config.models import Config

logger = logging.getLogger(__name__)
READ_AFTER_S = (0.2, 2.0, 10.0)
IDLE_S = 60.0
Counts = dict[tuple[str, str, str], int]


@dataclass(slots=True)
class _Added:
    """The counts added to a source's totals since the last reset."""

    since_ns: int
    counts: Counts = field(default_factory=dict)


class SharedTotals:
    """Reads on its own thread, which ends with the process.

    Args:
        read: takes source_id and the start and end of a span (UTC ns), and returns the others' counts in it.
        add: takes source_id, further counts, and since when they count.
        since_ns: takes the wall clock and returns the time of the last reset; 0: never.
        after_s: when to read after `begin`.
    """

    def __init__(
        self,
        read: Callable[[str, int, int], Counts],
        add: Callable[[str, Counts, int | None], None],
        since_ns: Callable[[int], int],
        after_s: tuple[float, ...] = READ_AFTER_S,
    ) -> None:
        self._read, self._add, self._since_ns, self._after_s = read, add, since_ns, after_s
        self._added: dict[str, _Added] = {}
        self._due: list[tuple[int, str]] = []
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self, source_id: str) -> None:
        """Continue the totals of an assigned source; returns at once."""
        now_ns = SYSTEM_CLOCK.monotonic_ns()
        with self._lock:
            self._due += [(now_ns + int(after * NS_PER_S), source_id) for after in self._after_s]
            self._due.sort()
        self._changed.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shared totals", daemon=True)
            self._thread.start()

    def take(self, source_id: str) -> None:
        """Read once, and add the new counts."""
        now_ns = SYSTEM_CLOCK.utc_ns()
        since_ns = self._since_ns(now_ns)
        known = self._added.get(source_id)
        if known is None or known.since_ns != since_ns:
            known = self._added[source_id] = _Added(since_ns)
        found = self._read(source_id, since_ns, now_ns)
        news = {key: n - known.counts.get(key, 0) for key, n in found.items() if n > known.counts.get(key, 0)}
        known.counts |= {key: max(n, known.counts.get(key, 0)) for key, n in found.items()}
        if news:
            self._add(source_id, news, since_ns or None)

    def _run(self) -> None:
        while True:
            with self._lock:
                due_ns, source_id = self._due[0] if self._due else (None, "")
            now_ns = SYSTEM_CLOCK.monotonic_ns()
            if due_ns is None or due_ns > now_ns:
                SYSTEM_CLOCK.wait(self._changed, IDLE_S if due_ns is None else (due_ns - now_ns) / NS_PER_S)
                self._changed.clear()
                continue
            with self._lock:
                self._due.remove((due_ns, source_id))
            try:
                self.take(source_id)
            except EngineError as error:
                logger.warning(
                    "the totals of %s begin at zero for now: the event log cannot be read: %s", source_id, error
                )


def shared_totals(pipeline: Pipeline, config: Config) -> SharedTotals | None:
    """Return the object that continues totals from the event log's server; None if there is no server."""
    if config.events.store is None:
        return None
    place, run_epoch = events_place(config), pipeline.run_facts.run_epoch

    def read(source_id: str, from_ns: int, to_ns: int) -> Counts:
        from engine.events.store.reader import EventReader

        with EventReader(place) as reader:
            return reader.summed_counts(source_id, from_ns, to_ns + 60 * NS_PER_S, run_epoch)

    def add(source_id: str, counts: Mapping[Any, int], since_ns: int | None) -> None:
        scene = scene_of(pipeline)
        if scene is not None:
            scene.add_counts(source_id, counts, since_ns)

    zone, reset_at = ZoneInfo(config.site.timezone), config.analytics.reset_at
    return SharedTotals(read, add, lambda now_ns: last_reset_ns(now_ns, reset_at, zone))


def last_reset_ns(now_utc_ns: int, reset_at: str | None, zone: ZoneInfo) -> int:
    """Return the wall clock of the last daily reset; 0 if there is none.

    >>> last_reset_ns(1_700_000_000 * 10**9, "04:00", ZoneInfo("UTC")) // 10**9  # 2023-11-14T22:13:20
    1699934400
    """
    if reset_at is None:
        return 0
    shift = datetime.timedelta(minutes=minute_of_day("analytics: reset_at", reset_at))
    day = (datetime.datetime.fromtimestamp(now_utc_ns / NS_PER_S, zone) - shift).date()
    begin = datetime.datetime.combine(day, datetime.time(), zone) + shift
    return int(begin.timestamp()) * NS_PER_S
