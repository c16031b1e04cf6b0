"""The statements that write, one set for both databases.

Parameters are `:name`, like the fields of the rows; whole rows are written with `?` for each field, in order, because
binding by name takes longer.
"""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from typing import Any

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

_TABLES: dict[type, tuple[str, tuple[str, ...]]] = {
    EventRow: ("event", ("event_id",)),
    FactRow: ("fact", ("fact_id",)),
    TrackRow: ("track", ("run_epoch", "source_id", "track_id", "piece")),
    HeatRow: ("heat", ("source_id", "hour", "class_name", "run_epoch")),
    CountRow: ("counted", ("source_id", "place", "minute", "name", "class_name", "run_epoch")),
    OccupancyRow: ("occupancy", ("source_id", "place", "minute", "run_epoch")),
    SourceRunRow: ("source_run", ("run_epoch", "source_id")),
    GapRow: ("gap", ("source_id", "from_utc_ns")),
    MediaRow: ("media", ("path",)),
    OutboxRow: ("outbox", ("event_id", "phase", "action")),
    SnoozeRow: ("snooze", ("source_id",)),
}
_FIXED: dict[type, tuple[str, ...]] = {
    EventRow: ("began_utc_ns", "began_scene_ns", "snapshot", "best", "clip", "clip_state", "clip_reason", "kept"),
    FactRow: ("began_utc_ns", "began_scene_ns"),
    SourceRunRow: ("began_utc_ns",),
}
"""Columns that stay unchanged when a row is written again: its begin, and what others have recorded since."""


_COLUMNS = {kind: [field.name for field in fields(kind)] for kind in _TABLES}
_VALUES = {kind: attrgetter(*names) for kind, names in _COLUMNS.items()}
_NUMBERS = ("int", "int | None", "float", "float | None", "bytes")
_OBJECT = "dict[str, Any]"


def _positions(kind: type[Any], *types: str, other: bool = False) -> list[int]:
    return [at for at, field in enumerate(fields(kind)) if (field.type in types) != other]


_FLAGS = {kind: _positions(kind, "bool") for kind in _TABLES}
_OBJECTS = {kind: _positions(kind, _OBJECT) for kind in _TABLES}
_TEXTS = {kind: _positions(kind, *_NUMBERS, "bool", _OBJECT, other=True) for kind in _TABLES}


def columns(kind: type[Any]) -> list[str]:
    """Return the columns of a row in the order of its fields."""
    return _COLUMNS[kind]


def values(row: Any) -> tuple[Any, ...]:
    """Return the values of a row in the order of `columns`."""
    found: tuple[Any, ...] = _VALUES[type(row)](row)
    return found


def texts(kind: type[Any]) -> list[int]:
    """Return the positions of text among the columns."""
    return _TEXTS[kind]


def flags(kind: type[Any]) -> list[int]:
    """Return the positions of booleans, which are numbers in the database."""
    return _FLAGS[kind]


def objects(kind: type[Any]) -> list[int]:
    """Return the positions of objects, which are JSON in the database."""
    return _OBJECTS[kind]


def upsert(kind: type, *, replace: bool = True) -> str:
    """Return the statement that inserts a row from its `values`; if its key exists, it is updated or left alone."""
    table, key = _TABLES[kind]
    names = columns(kind)
    text = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    fresh = [name for name in names if name not in key and name not in _FIXED.get(kind, ())]
    changes = ", ".join(f"{name} = excluded.{name}" for name in fresh)
    return f"{text} ON CONFLICT ({', '.join(key)}) " + (f"DO UPDATE SET {changes}" if replace else "DO NOTHING")


UPSERTS = {kind: upsert(kind) for kind in _TABLES}
ADD_ACTION = upsert(OutboxRow, replace=False)

OPEN_WRITER = """INSERT INTO writer (engine_id, run_epoch, changed, is_running)
    VALUES (:engine_id, :run_epoch, :changed, 1)
    ON CONFLICT (engine_id) DO UPDATE SET run_epoch = excluded.run_epoch, is_running = 1"""
CLOSE_WRITER = "UPDATE writer SET is_running = 0 WHERE engine_id = :engine_id"
COUNT_CHANGES = "UPDATE writer SET changed = :changed WHERE engine_id = :engine_id"
READ_WRITER = "SELECT changed, is_running FROM writer WHERE engine_id = :engine_id"

OPEN_EVENTS = """SELECT e.event_id, e.began_utc_ns, e.began_scene_ns, r.seen_utc_ns, r.seen_scene_ns FROM event e
    LEFT JOIN source_run r ON r.run_epoch = e.run_epoch AND r.source_id = e.source_id
    WHERE e.ended_utc_ns IS NULL AND e.engine_id = :engine_id AND e.run_epoch <> :run_epoch"""
OPEN_FACTS = OPEN_EVENTS.replace("event_id", "fact_id").replace("event e", "fact e")
END_EVENT = """UPDATE event SET phase = 'end', ended_utc_ns = :ended_utc_ns, duration_s = :duration_s, reason = :reason,
    changed_by = :changed_by, changed = :changed WHERE event_id = :event_id"""
END_FACT = """UPDATE fact SET ended_utc_ns = :ended_utc_ns, duration_s = :duration_s, reason = :reason
    WHERE fact_id = :event_id"""
END_RUNS = """UPDATE source_run SET reason = :reason
    WHERE engine_id = :engine_id AND reason = '' AND run_epoch <> :run_epoch"""
LAST_RUN = """SELECT seen_utc_ns, reason FROM source_run WHERE source_id = :source_id AND run_epoch < :run_epoch
    ORDER BY run_epoch DESC LIMIT 1"""
END_GAPS = "UPDATE gap SET to_utc_ns = :to_utc_ns WHERE source_id = :source_id AND to_utc_ns IS NULL"

ADD_REVIEW = """INSERT INTO review (event_id, person, at_utc_ns) VALUES (:event_id, :person, :at_utc_ns)
    ON CONFLICT (event_id, person) DO NOTHING"""
DROP_REVIEW = "DELETE FROM review WHERE event_id = :event_id AND person = :person"
LOCK_WRITER = "UPDATE writer SET changed = changed WHERE engine_id = :engine_id"
READ_HEAT = """SELECT grid FROM heat WHERE source_id = :source_id AND hour = :hour AND class_name = :class_name
    AND run_epoch = :run_epoch"""
