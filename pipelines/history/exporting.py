"""Writes a span of the log to a ZIP file that can be read without this program."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import SinkError
from engine.events.store.reader import EventFilter, EventReader
from engine.events.track_paths import unpack
from pipelines.history.listing import as_json

if TYPE_CHECKING:
    from engine.events.store.place import StorePlace
    from engine.events.store.rows import EventRow, TrackRow


def export(place: StorePlace, wanted: EventFilter, target: Path, *, media: bool = True) -> dict[str, int]:
    """Write events, visits and crossings, counts, paths of tracks, images and clips; return how many of each.

    Args:
        place: the log.
        wanted: which events; its source and times also select everything else.
        target: the ZIP file; it appears when it is complete.
        media: whether images and clips are part of it.

    Raises:
        StoreError: the log cannot be read.
        SinkError: the file cannot be written.
    """
    beside = target.with_name(f".{target.name}.part")
    try:
        with EventReader(place) as reader, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            counts = _write(archive, reader, wanted, place.folder if media else None)
        os.replace(beside, target)
    except OSError as error:
        if isinstance(error, SinkError):
            raise
        raise SinkError(f"cannot write {target}: {error.strerror}: free some space, or write elsewhere") from error
    finally:
        beside.unlink(missing_ok=True)
    return counts


def _write(archive: zipfile.ZipFile, reader: EventReader, wanted: EventFilter, folder: Path | None) -> dict[str, int]:
    low = wanted.from_utc_ns or 0
    high = wanted.to_utc_ns if wanted.to_utc_ns is not None else 2**62
    sources = [wanted.source_id] if wanted.source_id is not None else reader.sources()
    counts: dict[str, int] = {"files": 0}
    events = list(reader.events(wanted))
    counts["events"] = _lines(archive, "events.jsonl", [as_json(event) for event in events])
    facts = [asdict(fact) for source in sources for fact in reader.facts(source, low, high)]
    counts["facts"] = _lines(archive, "facts.jsonl", facts)
    tracks = [_track(track) for source in sources for track in reader.tracks(source, low, high)]
    counts["tracks"] = _lines(archive, "tracks.jsonl", tracks)
    rows = [asdict(row) for source in sources for row in reader.counts(source, low, high)]
    counts["counts"] = _table(archive, "counts.csv", rows)
    for event in events if folder is not None else ():
        counts["files"] += _media(archive, folder, event)  # type: ignore[arg-type]
    return counts


def _media(archive: zipfile.ZipFile, folder: Path, event: EventRow) -> int:
    added = 0
    for name in (event.snapshot, event.best, event.clip):
        file = folder / name
        if name and not Path(name).is_absolute() and ".." not in Path(name).parts and file.is_file():
            archive.write(file, name, zipfile.ZIP_STORED)
            added += 1
    return added


def _track(track: TrackRow) -> dict[str, Any]:
    seconds, boxes = unpack(track.path)
    plain = {name: value for name, value in asdict(track).items() if name != "path"}
    points = [[t, *row] for t, row in zip(seconds.tolist(), boxes.round(5).tolist(), strict=True)]
    return {**plain, "points": points}


def _lines(archive: zipfile.ZipFile, name: str, rows: list[dict[str, Any]]) -> int:
    archive.writestr(name, "".join(json.dumps(row) + "\n" for row in rows))
    return len(rows)


def _table(archive: zipfile.ZipFile, name: str, rows: list[dict[str, Any]]) -> int:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    archive.writestr(name, text.getvalue())
    return len(rows)
