"""Events as the command line prints them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from engine.clock import SYSTEM_CLOCK, Clock
from pipelines.history.times import local_text

if TYPE_CHECKING:
    import threading

    from engine.events.store.reader import EventReader
    from engine.events.store.rows import EventRow

POLL_S = 0.5


def as_json(event: EventRow) -> dict[str, Any]:
    """Return an event with the keys that `framewire events list --json` promises, and more."""
    return {
        "event_id": event.event_id,
        "source_id": event.source_id,
        "rule": event.rule,
        "severity": event.severity,
        "place": event.place,
        "phase": event.phase,
        "began_utc_ns": event.began_utc_ns,
        "ended_utc_ns": event.ended_utc_ns,
        "duration_s": event.duration_s,
        "reason": event.reason,
        "class_name": event.class_name,
        "track_ids": event.track_ids,
        "why": event.facts.get("why", []),
        "snapshot": event.snapshot,
        "best": event.best,
        "clip": event.clip,
        "clip_state": event.clip_state,
        "clip_reason": event.clip_reason,
        "kept": event.kept,
    }


def as_cells(event: EventRow, zone: ZoneInfo) -> dict[str, str]:
    """Return the cells of an event in a table."""
    lasted = "continues" if event.ended_utc_ns is None else f"{event.duration_s or 0:.1f} s"
    return {
        "began": local_text(event.began_utc_ns, zone),
        "lasted": "" if event.phase == "point" else lasted,
        "source": event.source_id,
        "rule": event.rule,
        "severity": event.severity,
        "place": event.place,
        "class": event.class_name,
        "ended by": event.reason,
        "clip": event.clip_state,
        "id": event.event_id,
    }


def as_line(event: EventRow, zone: ZoneInfo) -> str:
    """Return an event in one line of text, for `watch`."""
    when = local_text(event.began_utc_ns, zone)
    what = {"begin": "began", "update": "continues", "end": "ended", "point": "happened"}[event.phase]
    after = f" after {event.duration_s:.1f} s" if event.phase == "end" and event.duration_s is not None else ""
    about = " ".join(part for part in (event.class_name, f"at {event.place}" if event.place else "") if part)
    reason = f" ({event.reason})" if event.reason else ""
    return f"{when} {event.source_id} {event.severity} {event.rule} {what}{after} {about}{reason} {event.event_id}"


def watch(reader: EventReader, over: threading.Event, clock: Clock = SYSTEM_CLOCK) -> Iterator[EventRow]:
    """Yield events as they begin, change and end, until `over` is set."""
    since = reader.now()
    while not over.is_set():
        for event in reader.changes(since):
            since[event.changed_by] = max(since.get(event.changed_by, 0), event.changed)
            yield event
        clock.wait(over, POLL_S)
