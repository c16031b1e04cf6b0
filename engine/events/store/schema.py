"""The tables, in SQL that SQLite and PostgreSQL both understand, and the migrations between versions.

Migrations only go forward. Append to `MIGRATIONS`; never change what has been released.
"""

from __future__ import annotations

TABLES = (
    """CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)""",
    """CREATE TABLE writer (
        engine_id TEXT PRIMARY KEY, run_epoch BIGINT NOT NULL, changed BIGINT NOT NULL,
        is_running SMALLINT NOT NULL)""",
    """CREATE TABLE source_run (
        engine_id TEXT NOT NULL, run_epoch BIGINT NOT NULL, source_id TEXT NOT NULL, began_utc_ns BIGINT NOT NULL,
        seen_utc_ns BIGINT NOT NULL, seen_scene_ns BIGINT NOT NULL, reason TEXT NOT NULL,
        PRIMARY KEY (run_epoch, source_id))""",
    """CREATE TABLE event (
        event_id TEXT PRIMARY KEY, engine_id TEXT NOT NULL, run_epoch BIGINT NOT NULL, source_id TEXT NOT NULL,
        rule TEXT NOT NULL, severity TEXT NOT NULL, place TEXT NOT NULL, class_name TEXT NOT NULL, phase TEXT NOT NULL,
        began_utc_ns BIGINT NOT NULL, ended_utc_ns BIGINT, began_scene_ns BIGINT NOT NULL, duration_s DOUBLE PRECISION,
        reason TEXT NOT NULL, facts TEXT NOT NULL, snapshot TEXT NOT NULL, best TEXT NOT NULL, clip TEXT NOT NULL,
        clip_state TEXT NOT NULL, clip_reason TEXT NOT NULL, kept SMALLINT NOT NULL, changed_by TEXT NOT NULL,
        changed BIGINT NOT NULL)""",
    "CREATE INDEX event_began ON event (began_utc_ns, event_id)",
    "CREATE INDEX event_source ON event (source_id, began_utc_ns, event_id)",
    "CREATE INDEX event_rule ON event (rule, began_utc_ns, event_id)",
    "CREATE INDEX event_severity ON event (severity, began_utc_ns, event_id)",
    "CREATE INDEX event_place ON event (place, began_utc_ns, event_id)",
    "CREATE INDEX event_class ON event (class_name, began_utc_ns, event_id)",
    "CREATE INDEX event_changed ON event (changed_by, changed)",
    "CREATE INDEX event_open ON event (began_utc_ns, event_id) WHERE ended_utc_ns IS NULL",
    "CREATE INDEX event_kept ON event (began_utc_ns, event_id) WHERE kept = 1",
    "CREATE INDEX event_due ON event (ended_utc_ns) WHERE clip_state = 'due'",
    """CREATE TABLE review (
        event_id TEXT NOT NULL, person TEXT NOT NULL, at_utc_ns BIGINT NOT NULL, PRIMARY KEY (event_id, person))""",
    """CREATE TABLE fact (
        fact_id TEXT PRIMARY KEY, engine_id TEXT NOT NULL, run_epoch BIGINT NOT NULL, source_id TEXT NOT NULL,
        kind TEXT NOT NULL, place TEXT NOT NULL, direction TEXT NOT NULL, class_name TEXT NOT NULL,
        track_id BIGINT NOT NULL, began_utc_ns BIGINT NOT NULL, ended_utc_ns BIGINT, began_scene_ns BIGINT NOT NULL,
        duration_s DOUBLE PRECISION, reason TEXT NOT NULL)""",
    "CREATE INDEX fact_source ON fact (source_id, began_utc_ns)",
    "CREATE INDEX fact_began ON fact (began_utc_ns)",
    "CREATE INDEX fact_open ON fact (engine_id) WHERE ended_utc_ns IS NULL",
    """CREATE TABLE track (
        engine_id TEXT NOT NULL, run_epoch BIGINT NOT NULL, source_id TEXT NOT NULL, track_id BIGINT NOT NULL,
        piece INTEGER NOT NULL, class_name TEXT NOT NULL, began_utc_ns BIGINT NOT NULL, ended_utc_ns BIGINT NOT NULL,
        began_scene_ns BIGINT NOT NULL, score DOUBLE PRECISION NOT NULL, width INTEGER NOT NULL,
        height INTEGER NOT NULL, path {blob} NOT NULL, is_last SMALLINT NOT NULL,
        PRIMARY KEY (run_epoch, source_id, track_id, piece))""",
    "CREATE INDEX track_source ON track (source_id, began_utc_ns)",
    "CREATE INDEX track_began ON track (began_utc_ns)",
    """CREATE TABLE counted (
        source_id TEXT NOT NULL, place TEXT NOT NULL, name TEXT NOT NULL, class_name TEXT NOT NULL,
        minute BIGINT NOT NULL, run_epoch BIGINT NOT NULL, n INTEGER NOT NULL,
        PRIMARY KEY (source_id, place, minute, name, class_name, run_epoch))""",
    """CREATE TABLE occupancy (
        source_id TEXT NOT NULL, place TEXT NOT NULL, minute BIGINT NOT NULL, run_epoch BIGINT NOT NULL,
        seen_s DOUBLE PRECISION NOT NULL, object_s DOUBLE PRECISION NOT NULL, busy_s DOUBLE PRECISION NOT NULL,
        most INTEGER NOT NULL, PRIMARY KEY (source_id, place, minute, run_epoch))""",
    """CREATE TABLE gap (
        source_id TEXT NOT NULL, from_utc_ns BIGINT NOT NULL, to_utc_ns BIGINT, engine_id TEXT NOT NULL,
        run_epoch BIGINT NOT NULL, cause TEXT NOT NULL, PRIMARY KEY (source_id, from_utc_ns))""",
    """CREATE TABLE media (
        path TEXT PRIMARY KEY, kind TEXT NOT NULL, source_id TEXT NOT NULL, event_id TEXT NOT NULL,
        began_utc_ns BIGINT NOT NULL, ended_utc_ns BIGINT NOT NULL, bytes BIGINT NOT NULL, state TEXT NOT NULL,
        detail TEXT NOT NULL)""",
    "CREATE INDEX media_kind ON media (kind, began_utc_ns)",
    "CREATE INDEX media_source ON media (source_id, kind, began_utc_ns)",
    "CREATE INDEX media_event ON media (event_id)",
    """CREATE TABLE outbox (
        event_id TEXT NOT NULL, phase TEXT NOT NULL, action TEXT NOT NULL, engine_id TEXT NOT NULL,
        created_utc_ns BIGINT NOT NULL, due_utc_ns BIGINT NOT NULL, expires_utc_ns BIGINT NOT NULL,
        tries INTEGER NOT NULL, state TEXT NOT NULL, cause TEXT NOT NULL, payload TEXT NOT NULL,
        PRIMARY KEY (event_id, phase, action))""",
    "CREATE INDEX outbox_due ON outbox (engine_id, due_utc_ns) WHERE state = 'due'",
    "CREATE INDEX outbox_created ON outbox (created_utc_ns)",
    """CREATE INDEX outbox_planned ON outbox (action, engine_id, created_utc_ns)
        WHERE state IN ('due', 'sent', 'failed')""",
    """CREATE TABLE snooze (source_id TEXT PRIMARY KEY, until_utc_ns BIGINT NOT NULL)""",
)

HEAT = (
    """CREATE TABLE heat (
        source_id TEXT NOT NULL, class_name TEXT NOT NULL, hour BIGINT NOT NULL, run_epoch BIGINT NOT NULL,
        grid {blob} NOT NULL, PRIMARY KEY (source_id, hour, class_name, run_epoch))""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (TABLES, HEAT)
"""Statements that lead from version n to n + 1, by n."""
