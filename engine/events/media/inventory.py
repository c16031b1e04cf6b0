"""What is on disk: recordings, images and clips with our names, compared with the rows of the store.

The disk is authoritative. Files that the store does not know are adopted; rows whose file is gone are dropped. Nothing
here deletes a file, and files without one of our names are not even examined. Imports no numpy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from engine.clock import NS_PER_S
from engine.events.media.names import (
    CLIPS,
    SNAPSHOTS,
    event_from_facts,
    facts_from_text,
    facts_in_image,
    parse_name,
)
from engine.events.store.rows import EventRow, MediaRow
from engine.events.store.writer import StoreWriter
from engine.sinks.camera_video.keyframe_index import (
    NS_PER_US,
    index_path,
    is_recording_name,
    read_index,
    utc_ns_from_name,
)
from engine.video.explain import video_errors

GROWING_S = 120.0
BATCH = 500
ADOPTED = "adopted"


@dataclass(frozen=True, slots=True)
class Found:
    """One file: its name in the store, its size with its index, and when it was last written."""

    folder: Path
    name: str
    kind: str
    bytes: int
    mtime: float

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.folder / self.name


@dataclass(slots=True)
class Inventory:
    """All our files, by the name under which the store knows them.

    Attributes:
        files: relative to the folder of events, or absolute for recordings elsewhere.
        adopted: files that had no row.
        lost: rows whose file is gone.
        events: events that were rebuilt from their files.
    """

    files: dict[str, Found] = field(default_factory=dict)
    adopted: int = 0
    lost: int = 0
    events: int = 0

    def bytes_by_kind(self) -> dict[str, int]:
        """Return the size of all files by kind."""
        total = {"recording": 0, "snapshot": 0, "clip": 0}
        for found in self.files.values():
            total[found.kind] += found.bytes
        return total


def scan(folder: Path, recordings: Sequence[Path]) -> Inventory:
    """Return what is on disk.

    Args:
        folder: of events.
        recordings: folders with one folder per recorded source.
    """
    inventory = Inventory()
    for kind in (SNAPSHOTS, CLIPS):
        for path, facts in _files(folder / kind, depth=2):
            name = str(path.relative_to(folder))
            said = parse_name(name)
            if said is not None:
                inventory.files[name] = Found(folder, name, said.kind, facts.st_size, facts.st_mtime)
    for root in dict.fromkeys(path.resolve() for path in recordings):
        for path, facts in _files(root, depth=1):
            if path.parent != root and is_recording_name(path.name):
                size = facts.st_size
                with suppress(OSError):
                    size += index_path(path).stat().st_size
                inventory.files[str(path)] = Found(folder, str(path), "recording", size, facts.st_mtime)
    return inventory


def _files(folder: Path, depth: int) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the regular files in the folders below one, to a given depth; links are not followed."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                if depth:
                    yield from _files(Path(entry.path), depth - 1)
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path), entry.stat(follow_symlinks=False)


def known(writer: StoreWriter) -> dict[str, tuple[int, str]]:
    """Return size and state of every file that the store knows, by name."""
    found = writer.database.execute("SELECT path, bytes, state FROM media")
    return {row[0]: (int(row[1]), row[2]) for row in found}


def reconcile(writer: StoreWriter, inventory: Inventory, *, may_drop: bool = True) -> None:
    """Adopt files without a row, and drop rows without a file. Commits in batches.

    Args:
        writer: of the store.
        inventory: what is on disk; its counters are updated.
        may_drop: whether a row without a file here can only be ours (several engines may share a store).
    """
    rows = known(writer)
    fresh = [
        found
        for name, found in inventory.files.items()
        if name not in rows or (rows[name][0] != found.bytes and not rows[name][1])
    ]
    for start in range(0, len(fresh), BATCH):
        made = [(found, _row(found)) for found in fresh[start : start + BATCH]]
        with writer.transaction():
            for found, row in made:
                is_new = found.name not in rows
                writer.put(row)
                if is_new:
                    inventory.adopted += 1
                    inventory.events += _adopt_event(writer, found, row)
    gone = [name for name, (_, state) in rows.items() if name not in inventory.files and not state] if may_drop else []
    for start in range(0, len(gone), BATCH):
        with writer.transaction():
            _forget(writer, gone[start : start + BATCH])
    inventory.lost = len(gone)


def _row(found: Found) -> MediaRow:
    if found.kind == "recording":
        return _recording_row(found)
    said = parse_name(found.name)
    source_id, event_id = (said.source_id, said.event_id) if said is not None else ("", "")
    event = event_from_facts(_facts(found))
    if event is not None:
        source_id, event_id = event.source_id, event.event_id
    at_ns = int(found.mtime * NS_PER_S) if event is None else event.began_utc_ns
    kind: Any = found.kind
    return MediaRow(found.name, kind, source_id, event_id, at_ns, at_ns, found.bytes)


def _recording_row(found: Found) -> MediaRow:
    rows = read_index(found.path)
    began_ns = rows[0].utc_ns if rows else utc_ns_from_name(found.path.name) or int(found.mtime * NS_PER_S)
    ended_ns = int(found.mtime * NS_PER_S)
    if rows and rows[-1].kind == "end":
        ended_ns = rows[0].utc_ns + (rows[-1].time_us - rows[0].time_us) * NS_PER_US
    source_id = unquote(found.path.parent.name)
    return MediaRow(found.name, "recording", source_id, "", began_ns, max(ended_ns, began_ns), found.bytes)


def _facts(found: Found) -> Mapping[str, Any]:
    """Return the facts of the event in an image or clip; empty if they cannot be read."""
    with suppress(*video_errors()):
        if found.kind == "snapshot":
            return facts_in_image(found.path)
        import av

        with av.open(str(found.path)) as container:
            return facts_from_text(container.metadata.get("comment") or container.metadata.get("COMMENT", ""))
    return {}


def _adopt_event(writer: StoreWriter, found: Found, row: MediaRow) -> int:
    """Link a file with its event, rebuilding the event if the store has none; return how many were rebuilt."""
    if row.kind == "recording" or not row.event_id:
        return 0
    key = {"event_id": row.event_id}
    built = 0
    if not writer.database.execute("SELECT 1 FROM event WHERE event_id = :event_id", key):
        event = event_from_facts(_facts(found)) or _bare_event(row)
        writer.put(_closed(event))
        built = 1
    said = parse_name(found.name)
    if row.kind == "clip":
        if "_2." not in found.path.name:
            writer.set_media_of_event(row.event_id, clip=found.name, clip_state="exact", clip_reason=ADOPTED)
    elif said is not None and said.image == "best":
        writer.set_media_of_event(row.event_id, best=found.name)
    else:
        writer.set_media_of_event(row.event_id, snapshot=found.name)
    return built


def _bare_event(row: MediaRow) -> EventRow:
    """Return an event known only from its file; as an alert, it is not deleted early."""
    return EventRow(
        event_id=row.event_id,
        engine_id="",
        run_epoch=0,
        source_id=row.source_id,
        rule="",
        severity="alert",
        place="",
        class_name="",
        phase="point",
        began_utc_ns=row.began_utc_ns,
        ended_utc_ns=row.ended_utc_ns,
        began_scene_ns=0,
        reason=ADOPTED,
    )


def _closed(event: EventRow) -> EventRow:
    """Return a rebuilt event as ended, because nothing could end it later."""
    if event.ended_utc_ns is not None:
        return event
    return replace(event, phase="end", ended_utc_ns=event.began_utc_ns, duration_s=None, reason=ADOPTED)


def _forget(writer: StoreWriter, names: Sequence[str]) -> None:
    """Drop the rows of files that are gone, and unlink them from their events."""
    writer.delete_media(names)
    for column in ("snapshot", "best", "clip"):
        for name in names:
            writer.database.execute(f"UPDATE event SET {column} = '' WHERE {column} = :name", {"name": name})
