"""Deletes a span of one source from the log and the disk: events, tracks, images, clips and recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.events.media.deletion import unlink_media
from engine.events.media.inventory import reconcile, scan
from engine.events.store.reader import EventFilter, EventReader
from engine.events.store.rows import MediaRow
from engine.events.store.writer import StoreWriter

if TYPE_CHECKING:
    from engine.events.store.place import StorePlace

TABLES = ("track", "fact", "counted", "occupancy", "heat", "gap")


@dataclass
class Deleted:
    """What a deletion removes: rows by table, files by kind, and their bytes.

    Attributes:
        events: events that began in the span, kept ones included.
        rows: rows of other tables.
        files: files by kind.
        bytes: of the files.
        failed: files that could not be removed.
    """

    events: int = 0
    rows: dict[str, int] | None = None
    files: dict[str, int] | None = None
    bytes: int = 0
    failed: list[str] | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the figures as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Span:
    """A span of time of one source. Recordings and clips that overlap it belong to it as a whole."""

    source_id: str
    from_utc_ns: int
    to_utc_ns: int


def planned(place: StorePlace, span: Span, recordings: Sequence[Path] = ()) -> Deleted:
    """Return what `delete` would remove."""
    _learn(place, recordings)
    with EventReader(place) as reader:
        events = sum(1 for _ in reader.events(_filter(span)))
        media = _media(reader, span)
    return Deleted(events, {}, _kinds(media), sum(row.bytes for row in media), [])


def delete(place: StorePlace, span: Span, recordings: Sequence[Path] = ()) -> Deleted:
    """Remove a span: first the files, then the rows, so that no file is forgotten if this is interrupted.

    An engine may keep running; what it adds to the span later stays.

    Args:
        place: the log.
        span: what to remove.
        recordings: folders whose newest recordings may not be in the log yet.

    Raises:
        StoreError: the store cannot be read or written.
    """
    _learn(place, recordings)
    with EventReader(place) as reader:
        ids = [event.event_id for event in reader.events(_filter(span))]
        media = _media(reader, span)
    failed = [row.path for row in media if unlink_media(place.folder, row.path) is None]
    gone = [row for row in media if row.path not in failed]
    rows = {}
    with StoreWriter.edit(place) as store:
        store.delete_media([row.path for row in gone])
        store.delete_events(ids)
        for table in TABLES:
            rows[table] = store.delete_before(
                table, span.to_utc_ns, source_id=span.source_id, from_utc_ns=span.from_utc_ns
            )
    return Deleted(len(ids), rows, _kinds(gone), sum(row.bytes for row in gone), failed)


def planned_event(place: StorePlace, event_id: str) -> Deleted:
    """Return what `delete_event` would remove."""
    with EventReader(place) as reader:
        media = reader.media(event_id=event_id)
    return Deleted(1, {}, _kinds(media), sum(row.bytes for row in media), [])


def delete_event(place: StorePlace, event_id: str) -> Deleted:
    """Remove one event: first its images and its clip, then its rows. Raises `StoreError`."""
    with EventReader(place) as reader:
        media = reader.media(event_id=event_id)
    failed = [row.path for row in media if unlink_media(place.folder, row.path) is None]
    gone = [row for row in media if row.path not in failed]
    with StoreWriter.edit(place) as store:
        store.delete_media([row.path for row in gone])
        store.delete_events([event_id])
    return Deleted(1, {}, _kinds(gone), sum(row.bytes for row in gone), failed)


def _filter(span: Span) -> EventFilter:
    return EventFilter(source_id=span.source_id, from_utc_ns=span.from_utc_ns, to_utc_ns=span.to_utc_ns)


def _media(reader: EventReader, span: Span) -> list[MediaRow]:
    """Return the files that show any part of the span."""
    rows = reader.media(source_id=span.source_id)
    return [row for row in rows if row.began_utc_ns < span.to_utc_ns and row.ended_utc_ns >= span.from_utc_ns]


def _kinds(rows: list[MediaRow]) -> dict[str, int]:
    return {kind: sum(row.kind == kind for row in rows) for kind in sorted({row.kind for row in rows})}


def _learn(place: StorePlace, recordings: Sequence[Path]) -> None:
    """Add files that are not in the log yet."""
    if not recordings:
        return
    database = place.open_to_edit()
    try:
        reconcile(StoreWriter(database), scan(place.folder, recordings), may_drop=False)
    finally:
        database.close()
