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


def as_line(event: EventRow, zone: ZoneInfo) -> str:
    """Return an event in one line of text.

    `2026-11-30 14:37:28    3.7 s  gate  alert  intruder: person at yard (engine_stopped)  gate-...-intruder-31`
    """
    lasts = f"{event.duration_s or 0:.1f} s" if event.phase == "end" else "" if event.phase == "point" else "open"
    about = " ".join(part for part in (event.class_name, f"at {event.place}" if event.place else "") if part)
    reason = f" ({event.reason})" if event.reason else ""
    head = f"{local_text(event.began_utc_ns, zone)} {lasts:>9}  {event.source_id}  {event.severity:6}"
    return f"{head}  {event.rule}{': ' if about else ''}{about}{reason}  {event.event_id}"


def watch(
    reader: EventReader, since: dict[str, int], over: threading.Event, clock: Clock = SYSTEM_CLOCK
) -> Iterator[EventRow]:
    """Yield events as they begin, change and end after `since` (`reader.now()`), until `over` is set."""
    while not over.is_set():
        for event in reader.changes(since):
            since[event.changed_by] = max(since.get(event.changed_by, 0), event.changed)
            yield event
        clock.wait(over, POLL_S)
