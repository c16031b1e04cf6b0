"""Suppresses the actions of a source for a while; its events continue and are stored."""

from __future__ import annotations

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.errors import ConfigError
from engine.flow.pipeline import Pipeline
from pipelines.build.events import event_log_of

ALL = "all"
MAX_S = 31 * 86_400


def snooze(pipeline: Pipeline, source_id: str, for_s: float, clock: Clock = SYSTEM_CLOCK) -> str:
    """Suppress the actions for a source's events; return what was done.

    Args:
        pipeline: the run.
        source_id: the source; `all`: every source.
        for_s: for how long; 0 ends it.
        clock: time.

    Raises:
        ConfigError: there is no such source or no event log, or the time is out of range.
    """
    from engine.events.store.rows import SnoozeRow
    from engine.events.writing import Job

    log = event_log_of(pipeline)
    if log is None:
        raise ConfigError("snooze: this run stores no events: set events.folder")
    if not 0 <= for_s <= MAX_S:
        raise ConfigError(f"snooze: for_s is {for_s:g}: expected 0 to {MAX_S} seconds")
    known = [source.info.source_id for source in pipeline.sources]
    if source_id not in (ALL, *known):
        raise ConfigError(f"there is no source {source_id}; expected one of: {', '.join(known) or 'none'}, or {ALL}")
    row = SnoozeRow("" if source_id == ALL else source_id, clock.utc_ns() + int(for_s * NS_PER_S))
    log.submit(Job(lambda store: store.snooze(row), is_durable=True))
    return f"no actions for {source_id} for {for_s:g} s" if for_s else f"actions for {source_id} again"
