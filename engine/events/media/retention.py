"""Keeps events and media within their age, their space and the free space of the disk. Imports no numpy.

Order: what is too old for its severity; then, while there is too much, the oldest first of recordings that no event
needs, paths of tracks, events of severity `info`, recordings of events, `notice`, `alert`. What is younger than an hour
goes only if everything older has gone. Kept events and whatever is still being written never go. A clean-up of more
than a third at once does nothing and asks: a clock that jumped or an edited number must not cost the evidence. What
exceeds limits that have not changed has come since, and makes room without a question.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.clock import NS_PER_S
from engine.events.media.deletion import NeededSpans, delete_events, delete_files
from engine.events.media.inventory import GROWING_S, Found, Inventory, reconcile, scan
from engine.events.store.place import StorePlace
from engine.events.store.writer import StoreWriter

NS_PER_DAY = 86_400 * NS_PER_S
NS_PER_HOUR = 3600 * NS_PER_S
GB = 1_000_000_000
MUCH = 1 / 3
FEW_BYTES, FEW_EVENTS = 16_000_000, 100  # less than this is never much
_LIMITS = "keep"
RESERVE, RESERVE_BYTES = "events.reserve", 1_000_000
TARGET = 0.98  # of the limit, so that the next minute has room


@dataclass(frozen=True, slots=True)
class KeepOptions:
    """What to keep.

    Attributes:
        info_d: days for events of severity `info`.
        notice_d: days for `notice`.
        alert_d: days for `alert`.
        tracks_d: days for paths of tracks, visits and crossings.
        max_bytes: limit of all files together; None: no limit.
        min_free_bytes: space that must stay free on the disk.
    """

    info_d: float = 3.0
    notice_d: float = 14.0
    alert_d: float = 60.0
    tracks_d: float = 14.0
    max_bytes: int | None = 100 * GB
    min_free_bytes: int = 5 * GB


@dataclass(slots=True)
class TidyReport:
    """What a clean-up did, or would do if `asks` is not empty.

    Attributes:
        deleted: files by kind and cause, `recording/space`, and rows `event/age`.
        freed: bytes.
        bytes: what is stored now, by kind.
        free: free bytes on the disk.
        limit: `max_bytes`.
        adopted: files that had no row.
        rebuilt: events rebuilt from their files.
        lost: rows whose file was gone.
        asks: why nothing was deleted.
        warnings: what a person should know.
    """

    deleted: dict[str, int] = field(default_factory=dict)
    freed: int = 0
    bytes: dict[str, int] = field(default_factory=dict)
    free: int = 0
    limit: int | None = None
    adopted: int = 0
    rebuilt: int = 0
    lost: int = 0
    asks: str = ""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Item:
    """Something to delete as a whole: an event with its files, or one recording."""

    rank: int
    at_ns: int
    files: tuple[Found, ...]
    event_id: str = ""
    cause: str = "space"

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(found.bytes for found in self.files)


_RANKS = {"loose": 0, "tracks": 1, "info": 2, "needed": 3, "notice": 4, "alert": 5}


def tidy(
    place: StorePlace,
    recordings: Sequence[Path],
    keep: KeepOptions,
    *,
    engine_id: str = "",
    now_ns: int | None = None,
    yes: bool = False,
) -> TidyReport:
    """Adopt, then delete what must go; a person's edit of the store, from any process.

    Args:
        place: of the store.
        recordings: folders with one folder per recorded source.
        keep: what to keep.
        engine_id: delete only this engine's events; needed if several share the store.
        now_ns: wall clock; None: the clock's.
        yes: also delete more than a third at once.

    Raises:
        StoreError: the store cannot be read or written.
    """
    return _Tidier(place, recordings, keep, engine_id, time.time_ns() if now_ns is None else now_ns).run(yes=yes)


def tidy_answer(job: Mapping[str, Any]) -> dict[str, Any]:
    """Do a clean-up that was asked for as plain values."""
    place = StorePlace(job["folder"], job["store"])
    report = tidy(
        place, [Path(path) for path in job["recordings"]], KeepOptions(**job["keep"]), engine_id=job["engine_id"]
    )
    return asdict(report)


class _Tidier:
    """One clean-up."""

    def __init__(
        self, place: StorePlace, recordings: Sequence[Path], keep: KeepOptions, engine_id: str, now_ns: int
    ) -> None:
        self._place = place
        self._recordings = recordings
        self._keep = keep
        self._engine_id = engine_id
        self._now_ns = now_ns
        self._report = TidyReport(limit=keep.max_bytes)
        self._inventory = Inventory()
        self._items: list[_Item] = []

    def run(self, *, yes: bool) -> TidyReport:
        database = self._place.open_to_edit()
        report = self._report
        try:
            writer = StoreWriter(database)
            self._reserve()
            self._finish(writer)
            self._inventory = scan(self._place.folder, self._recordings)
            reconcile(writer, self._inventory, may_drop=not self._place.is_server)
            report.adopted, report.lost = self._inventory.adopted, self._inventory.lost
            report.rebuilt = self._inventory.events
            self._items = self._all_items(writer)
            old = self._too_old()
            excess = self._too_much({item.event_id or item.files[0].name for item in old})
            is_growth = self._limits() == _known_limits(writer)
            report.asks = "" if yes else self._question(old if is_growth else [*old, *excess], len(old))
            if not report.asks:
                self._delete(writer, old, excess)
                _remember_limits(writer, self._limits())
            report.bytes = self._inventory.bytes_by_kind() | {"database": self._database_bytes()}
            report.free = self._free()
        finally:
            database.close()
        return report

    # --- what there is ---

    def _finish(self, writer: StoreWriter) -> None:
        """Finish deletions that a crash interrupted."""
        found = writer.database.execute("SELECT path FROM media WHERE state = 'deleting'")
        delete_files(writer, self._place.folder, [row[0] for row in found])

    def _all_items(self, writer: StoreWriter) -> list[_Item]:
        """Return everything that may ever be deleted, in the order in which it would be."""
        by_event: dict[str, list[Found]] = {}
        recordings: list[tuple[int, int, str, Found]] = []
        newest: dict[Path, float] = {}
        for row in writer.database.execute(
            "SELECT path, kind, event_id, source_id, began_utc_ns, ended_utc_ns FROM media WHERE state = ''"
        ):
            found = self._inventory.files.get(row[0])
            if found is None:
                continue
            if row[1] == "recording":
                recordings.append((row[4], row[5], row[3], found))
                newest[found.path.parent] = max(newest.get(found.path.parent, 0.0), found.mtime)
            else:
                by_event.setdefault(row[2], []).append(found)
        items = self._event_items(writer, by_event)
        needed = NeededSpans(writer)
        for began_ns, ended_ns, source_id, found in recordings:
            is_newest = found.mtime >= newest[found.path.parent]
            if is_newest and self._now_ns / NS_PER_S - found.mtime < GROWING_S:
                continue  # it is still being written
            kind = needed.kind(source_id, began_ns, ended_ns)
            if kind != "kept":
                items.append(_Item(_RANKS[kind], began_ns, (found,)))
        return sorted(items, key=lambda item: (item.rank, item.at_ns))

    def _event_items(self, writer: StoreWriter, by_event: Mapping[str, Sequence[Found]]) -> list[_Item]:
        """Return the events that have ended and are not kept, with their files."""
        where = " AND engine_id = :engine_id" if self._engine_id else ""
        rows = writer.database.execute(
            f"SELECT event_id, severity, began_utc_ns FROM event WHERE kept = 0 AND ended_utc_ns IS NOT NULL{where}",
            {"engine_id": self._engine_id} if self._engine_id else None,
        )
        return [
            _Item(_RANKS[severity], began_ns, tuple(by_event.get(event_id, ())), event_id)
            for event_id, severity, began_ns in rows
        ]

    # --- what must go ---

    def _too_old(self) -> list[_Item]:
        days = {_RANKS[name]: getattr(self._keep, f"{name}_d") for name in ("info", "notice", "alert")}
        return [
            item for item in self._items if item.event_id and self._now_ns - item.at_ns > days[item.rank] * NS_PER_DAY
        ]

    def _too_much(self, gone: set[str]) -> list[_Item]:
        """Return what must go for space: older than an hour first, then anything."""
        need = self._need() - sum(i.bytes for i in self._items if (i.event_id or i.files[0].name) in gone)
        chosen: list[_Item] = []
        left = [item for item in self._items if item.bytes and (item.event_id or item.files[0].name) not in gone]
        for is_young in (False, True):
            for item in left:
                if need <= 0:
                    return chosen
                if (self._now_ns - item.at_ns < NS_PER_HOUR) == is_young:
                    chosen.append(item)
                    need -= item.bytes
        if need > 0:
            self._report.warnings.append(
                f"{need / 1e6:.0f} MB too much is left: kept events and what is being written exceed the limits"
            )
        return chosen

    def _need(self) -> int:
        """Return the bytes that must be freed."""
        total = sum(self._inventory.bytes_by_kind().values()) + self._database_bytes()
        limit, over = self._keep.max_bytes, 0
        if limit is not None and total > limit:
            over = total - int(TARGET * limit)
        return max(over, self._keep.min_free_bytes - self._free(), 0)

    def _question(self, items: Sequence[_Item], old: int) -> str:
        """Return why a person has to confirm this clean-up; empty if it may go on."""
        total = sum(self._inventory.bytes_by_kind().values())
        size, events = sum(item.bytes for item in items), sum(bool(item.event_id) for item in items)
        all_events = sum(bool(item.event_id) for item in self._items)
        if (size > FEW_BYTES and size > MUCH * total) or (events > FEW_EVENTS and events > MUCH * all_events):
            return (
                f"{len(items)} deletions ({events} events, {size / 1e6:.0f} of {total / 1e6:.0f} MB; {old} for their "
                "age) are more than a third of everything: check the clock and events.keep, then run "
                "framewire events tidy --yes"
            )
        return ""

    def _limits(self) -> str:
        """Return the limits of space as text. While they are the same, whatever exceeds them is new."""
        return f"{self._keep.max_bytes} {self._keep.min_free_bytes}"

    # --- how it goes ---

    def _delete(self, writer: StoreWriter, old: Sequence[_Item], excess: Sequence[_Item]) -> None:
        folder, counts = self._place.folder, Counter[str]()
        is_short = bool(excess)
        for cause, items in (("age", old), ("space", excess)):
            events = [item.event_id for item in items if item.event_id]
            names = [found.name for item in items if not item.event_id for found in item.files]
            self._report.freed += delete_events(writer, folder, events) + delete_files(writer, folder, names)
            for item in items:
                counts[f"event/{cause}"] += bool(item.event_id)
                for found in item.files:
                    if not found.path.exists():
                        counts[f"{found.kind}/{cause}"] += 1
                        self._inventory.files.pop(found.name, None)
        counts["track/age"] += self._delete_tracks(writer, self._keep.tracks_d)
        if is_short and any(item.rank > _RANKS["tracks"] for item in excess):
            counts["track/space"] += self._delete_tracks(writer, 1.0)
        self._report.deleted = {name: count for name, count in counts.items() if count}
        young = sum(self._now_ns - item.at_ns < NS_PER_HOUR for item in excess)
        if young:
            self._report.warnings.append(f"{young} files and events of the last hour had to go: the limit is too small")

    def _delete_tracks(self, writer: StoreWriter, days: float) -> int:
        before_ns = self._now_ns - int(days * NS_PER_DAY)
        with writer.transaction():
            return sum(writer.delete_before(table, before_ns) for table in ("track", "fact"))

    # --- the disk ---

    def _free(self) -> int:
        try:
            disk = os.statvfs(self._place.folder)
        except OSError:
            return 0
        return disk.f_bavail * disk.f_frsize

    def _database_bytes(self) -> int:
        return 0 if self._place.is_server else sum(map(_size, self._place.folder.glob("events.*")))

    def _reserve(self) -> None:
        """Hold a little space back, and give it up when the disk is full: events are small and must go on."""
        path, free = self._place.folder / RESERVE, self._free()
        with suppress(OSError):
            if free < RESERVE_BYTES:
                path.unlink(missing_ok=True)
            elif free > 4 * RESERVE_BYTES and not path.exists():
                with open(path, "wb") as file:
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)


def _known_limits(writer: StoreWriter) -> str:
    """Return the limits of the last clean-up."""
    found = writer.database.execute("SELECT value FROM meta WHERE name = :name", {"name": _LIMITS})
    return str(found[0][0]) if found else ""


def _remember_limits(writer: StoreWriter, limits: str) -> None:
    if limits != _known_limits(writer):
        with writer.transaction():
            writer.database.execute(
                "INSERT INTO meta (name, value) VALUES (:name, :value) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                {"name": _LIMITS, "value": limits},
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
