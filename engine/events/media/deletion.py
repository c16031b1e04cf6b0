"""Deletes events and media files so that a crash at any moment leaves nothing half-deleted. Imports no numpy."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path, PurePosixPath

from engine.clock import NS_PER_S
from engine.events.media.names import is_day, parse_name
from engine.events.store.writer import StoreWriter
from engine.sinks.camera_video.keyframe_index import index_path, is_recording_name

BATCH = 200
MARGIN_NS = 60 * NS_PER_S  # a recording this close to an event belongs to it
_FOREVER = 2**63


@dataclass(slots=True)
class Freed:
    """Files deleted and bytes freed, by kind."""

    files: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, size: int) -> None:
        """Count a file by its name in the store."""
        said = parse_name(name)
        kind = "recording" if said is None else said.kind
        self.files[kind] += 1
        self.bytes[kind] += size


def delete_files(writer: StoreWriter, folder: Path, names: Sequence[str], freed: Freed | None = None) -> Freed:
    """Delete files that the store knows, with their rows; return what was freed.

    A row is marked first and removed last, so that a crash in between leaves no file without a row.

    Args:
        writer: of the store, outside a transaction.
        folder: of events, to which names are relative.
        names: as in the rows; absolute names are recordings.
        freed: to add to.
    """
    freed = freed or Freed()
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        with writer.transaction():
            writer.database.execute_many(
                "UPDATE media SET state = 'deleting' WHERE path = :path", [{"path": name} for name in batch]
            )
        gone = []
        for name in batch:
            size = unlink_media(folder, name)
            if size is not None:
                freed.add(name, size)
                gone.append(name)
        with writer.transaction():
            writer.delete_media(gone)
    return freed


def delete_events(writer: StoreWriter, folder: Path, event_ids: Sequence[str], freed: Freed | None = None) -> Freed:
    """Delete events with their images and clips, in the same way; return what was freed. Recordings stay."""
    freed = freed or Freed()
    for start in range(0, len(event_ids), BATCH):
        batch = event_ids[start : start + BATCH]
        names = []
        for event_id in batch:
            found = writer.database.execute("SELECT path FROM media WHERE event_id = :event_id", {"event_id": event_id})
            names += [row[0] for row in found]
        delete_files(writer, folder, names, freed)
        with writer.transaction():
            writer.delete_events(batch)
    return freed


def unlink_media(folder: Path, name: str) -> int | None:
    """Delete a file that the store names, with its index; return the bytes freed, None if it is still there.

    A file whose name is not one of ours is left alone, and counts as gone.
    """
    if not is_ours(name):
        return 0
    path, size = folder / name, 0
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError:
        return None
    with suppress(OSError):
        index = index_path(path)
        size += index.stat().st_size
        index.unlink()
    if is_day(path.parent.name):
        with suppress(OSError):
            path.parent.rmdir()  # succeeds only if the folder is empty
    return size


def is_ours(name: str) -> bool:
    """Return whether a name from the store follows our naming scheme: nothing else is ever deleted.

    >>> is_ours("clips/gate/2026-05-01/gate-1-x-1.mp4"), is_ours("/srv/rec/gate/2026-05-01T08-00-00Z.mp4")
    (True, True)
    >>> is_ours("/etc/passwd"), is_ours("clips/../2026-05-01/a.mp4")
    (False, False)
    """
    path = PurePosixPath(name)
    if ".." in path.parts:
        return False
    return is_recording_name(path.name) if path.is_absolute() else parse_name(name) is not None


class NeededSpans:
    """Finds the recordings that events need, by the times of events that want a clip and ended after `since_ns`."""

    def __init__(self, writer: StoreWriter, since_ns: int = 0) -> None:
        self._any: dict[str, tuple[list[int], list[int]]] = {}
        self._kept: dict[str, tuple[list[int], list[int]]] = {}
        spans: dict[tuple[str, bool], list[tuple[int, int]]] = {}
        for source_id, began_ns, ended_ns, kept in writer.database.execute(
            "SELECT source_id, began_utc_ns, ended_utc_ns, kept FROM event WHERE clip_state <> '' "
            "AND (ended_utc_ns IS NULL OR ended_utc_ns > :since) ORDER BY began_utc_ns",
            {"since": since_ns - MARGIN_NS},
        ):
            for is_kept in {False, bool(kept)}:
                spans.setdefault((source_id, is_kept), []).append((began_ns, ended_ns or _FOREVER))
        for (source_id, is_kept), found in spans.items():
            begins = [began_ns for began_ns, _ in found]
            latest = list(accumulate((ended_ns for _, ended_ns in found), max))
            (self._kept if is_kept else self._any)[source_id] = begins, latest

    def kind(self, source_id: str, began_ns: int, ended_ns: int) -> str:
        """Return `loose` if no event needs a recording of this time, `kept` if a kept one does, else `needed`."""
        if _overlaps(self._kept.get(source_id), began_ns, ended_ns):
            return "kept"
        return "needed" if _overlaps(self._any.get(source_id), began_ns, ended_ns) else "loose"


def _overlaps(spans: tuple[list[int], list[int]] | None, began_ns: int, ended_ns: int) -> bool:
    if spans is None:
        return False
    begins, latest = spans
    before = bisect_left(begins, ended_ns + MARGIN_NS)
    return before > 0 and latest[before - 1] > began_ns - MARGIN_NS
