"""Candidates for deletion, oldest first, read in portions because a log may have a million events. Imports no numpy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from engine.clock import NS_PER_S
from engine.events.media.deletion import NeededSpans
from engine.events.media.inventory import GROWING_S, Inventory
from engine.events.store.writer import StoreWriter

NS_PER_HOUR = 3600 * NS_PER_S
PORTION = 2000
ORDER = ("loose", "tracks", "info", "needed", "notice", "alert")
"""The order of deletion: recordings that no event needs, paths, events, recordings of events, more events."""
_RECORDINGS, _EVENTS = ("loose", "needed"), ("info", "notice", "alert")


class Candidate(NamedTuple):
    """One thing to delete as a whole: an event with its images and clips, or a recording.

    `kind` is one of `ORDER`, `name` the event's id or the recording's name, `at_ns` the wall clock at its start.
    """

    kind: str
    name: str
    at_ns: int
    bytes: int

    @property
    def is_event(self) -> bool:
        """Whether the candidate is an event."""
        return self.kind in _EVENTS


class Candidates:
    """Reads what may be deleted.

    This never includes kept events, their recordings, open events, or files being written.

    Args:
        writer: of the store.
        inventory: what is on disk.
        engine_id: only events of this engine; empty: of all.
        now_ns: wall clock.
    """

    def __init__(self, writer: StoreWriter, inventory: Inventory, engine_id: str, now_ns: int) -> None:
        self._database = writer.database
        self._writer = writer
        self._inventory = inventory
        self._engine_id = engine_id
        self._now_ns = now_ns

    def count_events(self, severity: str = "", before_ns: int = 2**62) -> int:
        """Return how many events there are of a severity (empty: of any) that began before a time."""
        where, given = self._where(severity, 0, before_ns)
        return int(self._database.execute(f"SELECT COUNT(*) FROM event e WHERE {where}", given)[0][0])

    def events(self, severity: str, from_ns: int, to_ns: int) -> Iterator[Candidate]:
        """Yield the events of a severity that began in a span of time, oldest first."""
        after = (from_ns - 1, "~")
        while True:
            found = self._portion(severity, after, to_ns)
            for event_id, began_ns, size in found:
                yield Candidate(severity, event_id, began_ns, int(size))
            if len(found) < PORTION:
                return
            after = (found[-1][1], found[-1][0])

    def in_order(self) -> Iterator[Candidate]:
        """Yield everything that has a size: first what is older than an hour, then the rest, each in order."""
        hour_ago_ns = self._now_ns - NS_PER_HOUR
        for low_ns, high_ns in ((0, hour_ago_ns), (hour_ago_ns, 2**62)):
            for kind in ORDER:
                if kind in _EVENTS:
                    yield from (each for each in self.events(kind, low_ns, high_ns) if each.bytes)
                elif kind in _RECORDINGS:
                    yield from (each for each in self._recordings[kind] if low_ns <= each.at_ns < high_ns)

    def _where(self, severity: str, from_ns: int, to_ns: int) -> tuple[str, dict[str, Any]]:
        where = "e.kept = 0 AND e.ended_utc_ns IS NOT NULL AND e.began_utc_ns >= :low AND e.began_utc_ns < :high"
        given: dict[str, Any] = {"low": from_ns, "high": to_ns}
        if severity:
            where, given["severity"] = f"{where} AND e.severity = :severity", severity
        if self._engine_id:
            where, given["engine_id"] = f"{where} AND e.engine_id = :engine_id", self._engine_id
        return where, given

    def _portion(self, severity: str, after: tuple[int, str], to_ns: int) -> list[Any]:
        where, given = self._where(severity, after[0], to_ns)
        given |= {"after_ns": after[0], "after_id": after[1]}
        return list(
            self._database.execute(
                "SELECT e.event_id, e.began_utc_ns, "
                "COALESCE((SELECT SUM(m.bytes) FROM media m WHERE m.event_id = e.event_id), 0) "
                f"FROM event e WHERE {where} AND (e.began_utc_ns, e.event_id) > (:after_ns, :after_id) "
                f"ORDER BY e.began_utc_ns, e.event_id LIMIT {PORTION}",
                given,
            )
        )

    @cached_property
    def _recordings(self) -> dict[str, list[Candidate]]:
        """The recordings, grouped by whether an event needs them, oldest first."""
        rows = self._database.execute(
            "SELECT path, source_id, began_utc_ns, ended_utc_ns FROM media WHERE kind = 'recording' AND state = '' "
            "ORDER BY began_utc_ns"
        )
        files = self._inventory.files
        newest: dict[str, float] = {}
        for name, source_id, _, _ in rows:
            if name in files:
                newest[source_id] = max(newest.get(source_id, 0.0), files[name].mtime)
        needed = NeededSpans(self._writer, rows[0][2] if rows else 0)
        chosen: dict[str, list[Candidate]] = {kind: [] for kind in (*_RECORDINGS, "kept")}
        for name, source_id, began_ns, ended_ns in rows:
            found = files.get(name)
            if found is None or (found.mtime >= newest[source_id] and self._is_growing(found.mtime)):
                continue
            kind = needed.kind(source_id, began_ns, ended_ns)
            chosen[kind].append(Candidate(kind, name, began_ns, found.bytes))
        return chosen

    def _is_growing(self, mtime: float) -> bool:
        return self._now_ns / NS_PER_S - mtime < GROWING_S
