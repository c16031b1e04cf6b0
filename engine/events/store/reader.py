"""Reads the store: pages of events with filters, counts per period, paths of tracks, and what is due.

It has its own read-only connection. Any thread may use a reader, one at a time.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, TypeVar

from engine.errors import ConfigError
from engine.events.store.place import StorePlace
from engine.events.store.rows import (
    CountRow,
    EventRow,
    FactRow,
    GapRow,
    HeatRow,
    MediaRow,
    OccupancyRow,
    OutboxRow,
    SnoozeRow,
    SourceRunRow,
    TrackRow,
)
from engine.events.store.statements import columns

PAGE = 50
MAX_PAGE = 1000
MAX_PIECE_NS = 600 * 1_000_000_000
"""Maximum length of a piece of a track's path, so that the tracks of a time span can be found by their start."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to read; None: any.

    Attributes:
        source_id: of this source.
        rule: of this rule.
        severity: of this severity.
        class_name: about this class.
        place: at this zone or line.
        from_utc_ns: that began at this time or later.
        to_utc_ns: that began before this time.
        kept: only kept ones, or only others.
        reviewed_by: seen by this person.
        not_reviewed_by: not seen by this person.
        is_open: only open ones, or only those that have ended.
    """

    source_id: str | None = None
    rule: str | None = None
    severity: str | None = None
    class_name: str | None = None
    place: str | None = None
    from_utc_ns: int | None = None
    to_utc_ns: int | None = None
    kept: bool | None = None
    reviewed_by: str | None = None
    not_reviewed_by: str | None = None
    is_open: bool | None = None

    def where(self) -> tuple[list[str], dict[str, Any]]:
        """Return the conditions and their parameters."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        equal = ("source_id", "rule", "severity", "class_name", "place")
        found = [f"{name} = :{name}" for name in equal if name in given]
        for name, text in _CONDITIONS.items():
            if name in given:
                found.append(text)
        if "is_open" in given:
            found.append(f"ended_utc_ns IS {'' if given.pop('is_open') else 'NOT '}NULL")
        if "kept" in given:
            found.append(f"kept = {int(given.pop('kept'))}")  # as text, so that the query uses its index
        return found, given


_CONDITIONS = {
    "from_utc_ns": "began_utc_ns >= :from_utc_ns",
    "to_utc_ns": "began_utc_ns < :to_utc_ns",
    "reviewed_by": "event_id IN (SELECT event_id FROM review WHERE person = :reviewed_by)",
    "not_reviewed_by": "NOT EXISTS (SELECT 1 FROM review "
    "WHERE review.event_id = event.event_id AND person = :not_reviewed_by)",
}


@dataclass(frozen=True, slots=True)
class Page:
    """Some events, newest first. `cursor` continues after the last one; None: there are no more."""

    events: list[EventRow]
    cursor: str | None


class EventReader:
    """Reads the store of a place.

    Args:
        place: where the store is.

    Raises:
        StoreError: there is none, or it cannot be opened.
    """

    def __init__(self, place: StorePlace) -> None:
        self.place = place
        self.database = place.open_to_read()

    def __enter__(self) -> EventReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.database.close()

    # --- events ---

    def page(self, wanted: EventFilter | None = None, cursor: str | None = None, limit: int = PAGE) -> Page:
        """Return the next page of events, the latest to begin first. New events never shift the pages after a cursor.

        Raises:
            ConfigError: the cursor is not one that `page` returned.
        """
        conditions, given = (wanted or EventFilter()).where()
        limit = min(max(limit, 1), MAX_PAGE)
        if cursor is not None:
            given["at_utc_ns"], given["at_id"] = _position(cursor)
            conditions.append("(began_utc_ns, event_id) < (:at_utc_ns, :at_id)")
        found = self._rows(
            EventRow, "event", conditions, given, f"ORDER BY began_utc_ns DESC, event_id DESC LIMIT {limit + 1}"
        )
        events = found[:limit]
        return Page(events, _cursor(events[-1]) if len(found) > limit else None)

    def events(self, wanted: EventFilter | None = None) -> Iterator[EventRow]:
        """Yield all matching events, newest first."""
        cursor: str | None = None
        while True:
            page = self.page(wanted, cursor, MAX_PAGE)
            yield from page.events
            cursor = page.cursor
            if cursor is None:
                return

    def event(self, event_id: str) -> EventRow | None:
        """Return an event; None if there is none with this id."""
        found = self._rows(EventRow, "event", ["event_id = :event_id"], {"event_id": event_id})
        return found[0] if found else None

    def changes(self, since: Mapping[str, int] | None = None, limit: int = MAX_PAGE) -> list[EventRow]:
        """Return the events that were added or changed, in that order for each writer.

        Args:
            since: the last change already read, by `changed_by`; start with `now()`.
            limit: maximum number per writer.
        """
        found: list[EventRow] = []
        for writer, changed in self.now().items():
            seen = (since or {}).get(writer, 0)
            if seen < changed:
                given = {"writer": writer, "seen": seen}
                found += self._rows(
                    EventRow,
                    "event",
                    ["changed_by = :writer", "changed > :seen"],
                    given,
                    f"ORDER BY changed LIMIT {limit}",
                )
        return found

    def now(self) -> dict[str, int]:
        """Return the number of the last change by engine, to pass to `changes` later."""
        return {row[0]: row[1] for row in self.database.execute("SELECT engine_id, changed FROM writer")}

    def reviewed(self, person: str, event_ids: Iterable[str]) -> set[str]:
        """Return which of these events a person has seen."""
        given = {"person": person}
        wanted = set(event_ids)
        found = self.database.execute("SELECT event_id FROM review WHERE person = :person", given)
        return {row[0] for row in found} & wanted

    def totals(self, wanted: EventFilter | None = None) -> dict[tuple[str, str, str], int]:
        """Return the number of events by source, rule and severity."""
        conditions, given = (wanted or EventFilter()).where()
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        found = self.database.execute(
            f"SELECT source_id, rule, severity, COUNT(*) FROM event{where} GROUP BY source_id, rule, severity", given
        )
        return {(row[0], row[1], row[2]): row[3] for row in found}

    # --- what is due ---

    def due_clips(self, engine_id: str, limit: int = PAGE) -> list[EventRow]:
        """Return ended events that wait for their clip, oldest first."""
        conditions = ["clip_state = 'due'", "ended_utc_ns IS NOT NULL", "engine_id = :engine_id"]
        given = {"engine_id": engine_id}
        return self._rows(EventRow, "event", conditions, given, f"ORDER BY ended_utc_ns LIMIT {limit}")

    def due_actions(
        self, engine_id: str, now_utc_ns: int, limit: int = PAGE, *, action: str | None = None
    ) -> list[OutboxRow]:
        """Return messages to deliver now, of one action or of all, oldest first."""
        conditions = ["state = 'due'", "engine_id = :engine_id", "due_utc_ns <= :now"]
        given: dict[str, Any] = {"engine_id": engine_id, "now": now_utc_ns}
        if action is not None:
            conditions.append("action = :action")
            given["action"] = action
        return self._rows(OutboxRow, "outbox", conditions, given, f"ORDER BY due_utc_ns LIMIT {limit}")

    def count_actions(self, engine_id: str, action: str) -> int:
        """Return how many messages of an action are not delivered yet."""
        where = "state = 'due' AND engine_id = :engine_id AND action = :action"
        given = {"engine_id": engine_id, "action": action}
        return int(self.database.execute(f"SELECT COUNT(*) FROM outbox WHERE {where}", given)[0][0])

    def next_action_ns(self, engine_id: str, action: str) -> int | None:
        """Return when the next message of an action is due; None if there is none."""
        where = "state = 'due' AND engine_id = :engine_id AND action = :action"
        given = {"engine_id": engine_id, "action": action}
        found = self.database.execute(f"SELECT MIN(due_utc_ns) FROM outbox WHERE {where}", given)
        return None if not found or found[0][0] is None else int(found[0][0])

    def actions(self, event_id: str) -> list[OutboxRow]:
        """Return the messages planned and delivered for an event."""
        return self._rows(
            OutboxRow, "outbox", ["event_id = :event_id"], {"event_id": event_id}, "ORDER BY created_utc_ns"
        )

    def snoozes(self, now_utc_ns: int) -> list[SnoozeRow]:
        """Return the snoozes in force."""
        return self._rows(SnoozeRow, "snooze", ["until_utc_ns > :now"], {"now": now_utc_ns})

    # --- times, tracks, files ---

    def facts(self, source_id: str, from_utc_ns: int, to_utc_ns: int, place: str | None = None) -> list[FactRow]:
        """Return visits, crossings and changed places that began in a span of time, in order."""
        conditions, given = _span(source_id, from_utc_ns, to_utc_ns)
        if place is not None:
            conditions.append("place = :place")
            given["place"] = place
        return self._rows(FactRow, "fact", conditions, given, "ORDER BY began_utc_ns")

    def tracks(self, source_id: str, from_utc_ns: int, to_utc_ns: int) -> Iterator[TrackRow]:
        """Yield the pieces of paths that overlap a span of time, by start; unpack them with `track_paths.unpack`."""
        conditions, given = _span(source_id, from_utc_ns - MAX_PIECE_NS, to_utc_ns)
        conditions.append("ended_utc_ns >= :began")
        given["began"] = from_utc_ns
        yield from self._rows(TrackRow, "track", conditions, given, "ORDER BY began_utc_ns, track_id")

    def oldest_track(self, source_id: str) -> int | None:
        """Return when the oldest path that is still kept began (UTC ns); None if there is none."""
        given = {"source_id": source_id}
        found = self.database.execute("SELECT MIN(began_utc_ns) FROM track WHERE source_id = :source_id", given)
        return None if found[0][0] is None else int(found[0][0])

    def heat(self, source_id: str, from_hour: int, to_hour: int) -> list[HeatRow]:
        """Return the heat maps of hours of UTC (since 1970), by class and run; `path_heat` unpacks them."""
        conditions = ["source_id = :source_id", "hour >= :low", "hour < :high"]
        given = {"source_id": source_id, "low": from_hour, "high": to_hour}
        return self._rows(HeatRow, "heat", conditions, given, "ORDER BY hour, class_name")

    def counts(self, source_id: str, from_utc_ns: int, to_utc_ns: int, place: str | None = None) -> list[CountRow]:
        """Return crossings and visits per minute, in order; see `periods.periods` for hours and days."""
        conditions, given = _minutes(source_id, from_utc_ns, to_utc_ns, place)
        return self._rows(CountRow, "counted", conditions, given, "ORDER BY minute, place, name, class_name")

    def summed_counts(
        self, source_id: str, from_utc_ns: int, to_utc_ns: int, but_run_epoch: int
    ) -> dict[tuple[str, str, str], int]:
        """Return crossings and visits by place, name and class, of all runs but one."""
        conditions, given = _minutes(source_id, from_utc_ns, to_utc_ns, None)
        found = self.database.execute(
            f"SELECT place, name, class_name, SUM(n) FROM counted WHERE {' AND '.join(conditions)} "
            "AND run_epoch <> :epoch GROUP BY place, name, class_name",
            {**given, "epoch": but_run_epoch},
        )
        return {(row[0], row[1], row[2]): int(row[3]) for row in found}

    def occupancy(
        self, source_id: str, from_utc_ns: int, to_utc_ns: int, place: str | None = None
    ) -> list[OccupancyRow]:
        """Return the occupancy of zones per minute, in order."""
        conditions, given = _minutes(source_id, from_utc_ns, to_utc_ns, place)
        return self._rows(OccupancyRow, "occupancy", conditions, given, "ORDER BY minute, place")

    def sources(self) -> list[str]:
        """Return every source ever seen."""
        found = self.database.execute("SELECT DISTINCT source_id FROM source_run ORDER BY source_id")
        return [row[0] for row in found]

    def source_runs(self, source_id: str) -> list[SourceRunRow]:
        """Return the runs that watched a source, in order."""
        given = {"source_id": source_id}
        return self._rows(SourceRunRow, "source_run", ["source_id = :source_id"], given, "ORDER BY began_utc_ns")

    def gaps(self, source_id: str, from_utc_ns: int, to_utc_ns: int) -> list[GapRow]:
        """Return the times when a camera was not seen that overlap a time span."""
        conditions = ["source_id = :source_id", "from_utc_ns < :high", "(to_utc_ns IS NULL OR to_utc_ns > :low)"]
        given = {"source_id": source_id, "low": from_utc_ns, "high": to_utc_ns}
        return self._rows(GapRow, "gap", conditions, given, "ORDER BY from_utc_ns")

    def media(
        self, kind: str | None = None, source_id: str | None = None, event_id: str | None = None
    ) -> list[MediaRow]:
        """Return the known files, oldest first."""
        given = {"kind": kind, "source_id": source_id, "event_id": event_id}
        given = {name: value for name, value in given.items() if value is not None}
        return self._rows(MediaRow, "media", [f"{name} = :{name}" for name in given], given, "ORDER BY began_utc_ns")

    def media_bytes(self) -> dict[str, int]:
        """Return the bytes of all known files by kind."""
        return {
            row[0]: int(row[1]) for row in self.database.execute("SELECT kind, SUM(bytes) FROM media GROUP BY kind")
        }

    def _rows(
        self, kind: type[T], table: str, conditions: list[str], given: Mapping[str, Any], order: str = ""
    ) -> list[T]:
        if not self.database.is_there():  # the engine set a damaged file aside
            self.close()
            self.database = self.place.open_to_read()
        names = columns(kind)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        found = self.database.execute(f"SELECT {', '.join(names)} FROM {table}{where} {order}", given)
        return [_row(kind, names, row) for row in found]


def _span(source_id: str, from_utc_ns: int, to_utc_ns: int) -> tuple[list[str], dict[str, Any]]:
    conditions = ["source_id = :source_id", "began_utc_ns >= :low", "began_utc_ns < :high"]
    return conditions, {"source_id": source_id, "low": from_utc_ns, "high": to_utc_ns}


def _minutes(source_id: str, from_utc_ns: int, to_utc_ns: int, place: str | None) -> tuple[list[str], dict[str, Any]]:
    conditions = ["source_id = :source_id", "minute >= :low", "minute < :high"]
    given: dict[str, Any] = {
        "source_id": source_id,
        "low": from_utc_ns // _MINUTE_NS,
        "high": -(-to_utc_ns // _MINUTE_NS),
    }
    if place is not None:
        conditions.append("place = :place")
        given["place"] = place
    return conditions, given


_MINUTE_NS = 60 * 1_000_000_000
_JSON, _FLAGS = ("facts",), ("kept", "is_last")


def _row(kind: type[T], names: list[str], row: Any) -> T:
    values = dict(zip(names, row, strict=True))
    for name in _JSON:
        if name in values:
            values[name] = json.loads(values[name])
    for name in _FLAGS:
        if name in values:
            values[name] = bool(values[name])
    return kind(**values)


def _cursor(event: EventRow) -> str:
    return base64.urlsafe_b64encode(f"{event.began_utc_ns} {event.event_id}".encode()).decode()


def _position(cursor: str) -> tuple[int, str]:
    try:
        utc_ns, _, event_id = base64.b64decode(cursor[:2048], b"-_", validate=True).decode().partition(" ")
        number = int(utc_ns[:24])
    except (binascii.Error, ValueError) as error:
        raise ConfigError("cursor: expected the one that came with the previous page") from error
    if not event_id or not -(2**63) <= number < 2**63:
        raise ConfigError("cursor: expected the one that came with the previous page")
    return number, event_id
