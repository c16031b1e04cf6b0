"""Everything that writes to the store. Each method runs in the transaction of its caller, or alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from engine.clock import NS_PER_S
from engine.events.store import statements
from engine.events.store.database import Database, Parameters
from engine.events.store.place import StorePlace
from engine.events.store.rows import (
    ClipState,
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
from engine.paths import utf8_text

logger = logging.getLogger(__name__)
KILLED = "engine_killed"
Rows = EventRow | FactRow | TrackRow | CountRow | OccupancyRow | HeatRow | SourceRunRow | GapRow | MediaRow | OutboxRow


class StoreWriter:
    """Writes rows.

    Args:
        database: an open connection.
        engine_id: the engine that writes; empty for edits by users.
        run_epoch: start of the run.
    """

    def __init__(self, database: Database, engine_id: str = "", run_epoch: int = 0) -> None:
        self._database = database
        self._rows: list[tuple[str, list[Any]]] = []  # rows of this transaction that are not written yet
        self._is_bundling = False
        self.engine_id = engine_id
        self.run_epoch = run_epoch
        self._changed = 0
        with self.transaction():
            self._run(
                statements.OPEN_WRITER, {"engine_id": engine_id, "run_epoch": run_epoch, "changed": run_epoch or 0}
            )

    @classmethod
    @contextmanager
    def edit(cls, place: StorePlace) -> Iterator[StoreWriter]:
        """Open the store for an edit by a user, in one transaction. Raises `StoreError`."""
        database = place.open_to_edit()
        try:
            writer = cls(database)
            with writer.transaction(durable=True):
                yield writer
        finally:
            database.close()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Commit everything inside at once, or nothing."""
        with self._database.transaction(durable=durable):
            if not self.engine_id or not self._changed:  # several users may edit at once, but only one engine writes
                self._run(statements.LOCK_WRITER, {"engine_id": self.engine_id})
                found = self._database.execute(statements.READ_WRITER, {"engine_id": self.engine_id})
                self._changed = int(found[0][0]) if found else 0
            before = self._changed
            self._is_bundling = True
            try:
                yield
                self._write_rows()
            finally:
                self._is_bundling = False
                self._rows.clear()
            if self._changed != before:
                self._run(statements.COUNT_CHANGES, {"engine_id": self.engine_id, "changed": self._changed})

    @property
    def database(self) -> Database:
        """The connection, after writing all pending rows."""
        self._write_rows()
        return self._database

    def _write_rows(self) -> None:
        """Write the pending rows, those of one kind together: no kind depends on another."""
        rows, self._rows = self._rows, []
        by_statement: dict[str, list[list[Any]]] = {}
        for statement, values in rows:
            by_statement.setdefault(statement, []).append(values)
        for statement, some in by_statement.items():
            self._database.execute_many(statement, some)

    def _run(self, statement: str, parameters: Parameters) -> None:
        self.database.execute(statement, parameters)

    def _change(self) -> dict[str, Any]:
        """Return the columns that record the author of the next change."""
        self._changed += 1
        return {"changed_by": self.engine_id, "changed": self._changed}

    def put(self, row: Rows) -> None:
        """Write a row: insert it, or, if its key exists, update the columns that may change."""
        values = _values(row)
        if isinstance(row, EventRow):
            change = self._change()
            values[_CHANGED_BY], values[_CHANGED] = change["changed_by"], change["changed"]
        self._rows.append((statements.UPSERTS[type(row)], values))
        if not self._is_bundling:
            self._write_rows()

    def put_all(self, rows: Iterable[Rows]) -> None:
        """Write several rows."""
        for row in rows:
            self.put(row)

    def add_actions(self, rows: Iterable[OutboxRow]) -> None:
        """Add messages to the outbox; existing ones stay unchanged."""
        added = [_values(row) for row in rows]
        if added:
            self.database.execute_many(statements.ADD_ACTION, added)

    def set_media_of_event(
        self,
        event_id: str,
        *,
        snapshot: str | None = None,
        best: str | None = None,
        clip: str | None = None,
        clip_state: ClipState | None = None,
        clip_reason: str | None = None,
    ) -> None:
        """Record images and the clip of an event; None leaves a value as it is."""
        given = {"snapshot": snapshot, "best": best, "clip": clip, "clip_state": clip_state, "clip_reason": clip_reason}
        self._set_event(event_id, {name: value for name, value in given.items() if value is not None})

    def keep(self, event_id: str, *, kept: bool = True) -> bool:
        """Protect an event and its media from retention, or stop protecting them; return whether it exists."""
        return self._set_event(event_id, {"kept": int(kept)})

    def _set_event(self, event_id: str, values: dict[str, Any]) -> bool:
        values = {**values, **self._change()}
        names = ", ".join(f"{name} = :{name}" for name in values)
        statement = f"UPDATE event SET {names} WHERE event_id = :event_id"
        return self.database.execute_many(statement, [{**values, "event_id": event_id}]) > 0

    def review(self, event_id: str, person: str, at_utc_ns: int | None) -> None:
        """Record whether a person has seen an event."""
        key = {"event_id": event_id, "person": person}
        if at_utc_ns is None:
            self._run(statements.DROP_REVIEW, key)
        else:
            self._run(statements.ADD_REVIEW, {**key, "at_utc_ns": at_utc_ns})

    def snooze(self, row: SnoozeRow) -> None:
        """Suppress actions until a given time; a time in the past ends the suppression."""
        self.database.execute_many(statements.UPSERTS[SnoozeRow], [_values(row)])

    def snoozed_until(self, source_id: str) -> int:
        """Return until when (UTC ns) actions for the events of a source are suppressed; 0 if they are not."""
        found = self.database.execute(
            "SELECT MAX(until_utc_ns) FROM snooze WHERE source_id IN ('', :source_id)", {"source_id": source_id}
        )
        return int(found[0][0] or 0)

    def heat(self, source_id: str, class_name: str, hour: int) -> bytes | None:
        """Return the grid that this run has stored for an hour; None if there is none."""
        given = {"source_id": source_id, "class_name": class_name, "hour": hour, "run_epoch": self.run_epoch}
        found = self.database.execute(statements.READ_HEAT, given)
        return bytes(found[0][0]) if found else None

    # --- a run begins and ends ---

    def recover(self) -> int:
        """Close the episodes that earlier runs of this engine left open, at the last second seen.

        Return their number.
        """
        mine = {"engine_id": self.engine_id, "run_epoch": self.run_epoch}
        for row in self.database.execute(statements.OPEN_FACTS, mine):
            self._run(statements.END_FACT, _killed(row))
        left = self.database.execute(statements.OPEN_EVENTS, mine)
        for row in left:
            self._run(statements.END_EVENT, {**_killed(row), **self._change()})
        self._run(statements.END_RUNS, {**mine, "reason": KILLED})
        return len(left)

    def begin_source(self, row: SourceRunRow, *, is_live: bool) -> None:
        """Record the first frame of a source, and, for a camera, the time since the previous run as a gap."""
        if is_live:
            key = {"source_id": row.source_id, "run_epoch": row.run_epoch}
            self._run(statements.END_GAPS, {"source_id": row.source_id, "to_utc_ns": row.began_utc_ns})
            for seen_utc_ns, reason in self.database.execute(statements.LAST_RUN, key):
                if seen_utc_ns < row.began_utc_ns:
                    gap = GapRow(row.source_id, seen_utc_ns, row.began_utc_ns, row.engine_id, row.run_epoch, reason)
                    self.put(gap)
        self.put(row)

    def finish(self) -> None:
        """Record that the run ended cleanly."""
        with self.transaction():
            self._run(statements.CLOSE_WRITER, {"engine_id": self.engine_id})

    # --- deletion ---

    def delete_events(self, event_ids: Sequence[str]) -> int:
        """Delete events with their reviews and messages; the caller deletes the files."""
        keys = [{"event_id": event_id} for event_id in event_ids]
        for table in ("review", "outbox", "event"):
            if keys:
                self.database.execute_many(f"DELETE FROM {table} WHERE event_id = :event_id", keys)
        return len(keys)

    def delete_media(self, paths: Sequence[str]) -> None:
        """Forget files that were removed."""
        if paths:
            self.database.execute_many("DELETE FROM media WHERE path = :path", [{"path": path} for path in paths])

    def delete_before(self, table: str, utc_ns: int, *, source_id: str | None = None, from_utc_ns: int = 0) -> int:
        """Delete the rows of `track`, `fact`, `counted`, `occupancy`, `heat` or `gap` in a span of time.

        A minute, or hour of a heat map, that is partly in the span is deleted entirely. Returns the number of rows.

        Args:
            table: name of the table.
            utc_ns: end of the span.
            source_id: None: of all sources.
            from_utc_ns: start of the span.
        """
        column, unit = _TIMES[table]
        where = f"{column} >= :low AND {column} < :high" + ("" if source_id is None else " AND source_id = :source_id")
        given = {"low": from_utc_ns // unit, "high": -(-utc_ns // unit), "source_id": source_id}
        given = {name: value for name, value in given.items() if value is not None}
        found = self.database.execute(f"SELECT COUNT(*) FROM {table} WHERE {where}", given)
        self._run(f"DELETE FROM {table} WHERE {where}", given)
        return int(found[0][0])


_json = json.JSONEncoder(separators=(",", ":")).encode
_CHANGED_BY, _CHANGED = map(statements.columns(EventRow).index, ("changed_by", "changed"))
_MINUTE_NS = 60 * NS_PER_S
_TIMES = {
    "track": ("began_utc_ns", 1),
    "fact": ("began_utc_ns", 1),
    "gap": ("from_utc_ns", 1),
    "counted": ("minute", _MINUTE_NS),
    "occupancy": ("minute", _MINUTE_NS),
    "heat": ("hour", 60 * _MINUTE_NS),
}


def _killed(row: Sequence[Any]) -> dict[str, Any]:
    """Return the end of an episode whose engine was killed: when its source was last seen, never before it began."""
    event_id, began_utc_ns, began_scene_ns, _, seen_scene_ns = row
    lasts_ns = max((seen_scene_ns if seen_scene_ns is not None else began_scene_ns) - began_scene_ns, 0)
    return {
        "event_id": event_id,
        "ended_utc_ns": began_utc_ns + lasts_ns,
        "duration_s": round(lasts_ns / NS_PER_S, 3),
        "reason": KILLED,
    }


def _values(row: Any) -> list[Any]:
    """Return a row's values in the order of its columns as the databases take them: numbers, text in UTF-8, bytes."""
    kind, values = type(row), list(statements.values(row))
    texts = statements.texts(kind)
    text = "".join([values[at] for at in texts])
    if not text.isascii() or "\0" in text:
        for at in texts:
            values[at] = utf8_text(values[at]).replace("\0", "")
    for at in statements.flags(kind):
        values[at] = int(values[at])
    for at in statements.objects(kind):
        values[at] = _json(values[at])
    return values
