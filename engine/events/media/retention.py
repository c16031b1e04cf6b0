"""Keeps events and media within limits of age, total size and free disk space. Imports no numpy.

Order: first whatever is too old for its severity; then, while there is too much, oldest first, recordings that no event
needs, track paths, events of severity `info`, recordings of events, `notice`, `alert`. Anything younger than an hour is
deleted only once everything older is gone. Kept events and files being written are never deleted. A clean-up of more
than a third at once does nothing and asks first: a clock jump or an edited number must not destroy evidence. If the
limits have not changed, the excess is new, and space is freed without asking.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from engine.clock import NS_PER_S
from engine.events.media.candidates import NS_PER_HOUR, ORDER, Candidate, Candidates
from engine.events.media.deletion import Freed, delete_events, delete_files
from engine.events.media.inventory import Inventory, reconcile, scan
from engine.events.store.place import StorePlace
from engine.events.store.writer import StoreWriter

NS_PER_DAY = 86_400 * NS_PER_S
GB = 1_000_000_000
MUCH = 1 / 3
FEW_BYTES, FEW_EVENTS = 16_000_000, 100  # deleting less than this never needs a confirmation
_LIMITS = "keep"
RESERVE, RESERVE_BYTES = "events.reserve", 1_000_000
SEVERITIES = ("info", "notice", "alert")
MOST_AT_ONCE = 20_000  # the rest follows a minute later
TARGET = 0.98  # fraction of the limit, so that the next minute has room


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
        warnings: what the user should know.
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


def tidy(
    place: StorePlace,
    recordings: Sequence[Path],
    keep: KeepOptions,
    *,
    engine_id: str = "",
    now_ns: int | None = None,
    yes: bool = False,
) -> TidyReport:
    """Adopt files, then delete what exceeds the limits; an edit by a user, from any process.

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
    """Run a clean-up requested as plain values."""
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
        self._freed = Freed()

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
            candidates = Candidates(writer, self._inventory, self._engine_id, self._now_ns)
            old = self._too_old(candidates)
            excess = self._too_much(candidates, old)
            is_growth = self._limits() == _known_limits(writer)
            report.asks = "" if yes else self._question(candidates, old, [] if is_growth else excess)
            if not report.asks:
                self._delete(writer, old, excess)
                _remember_limits(writer, self._limits())
            report.freed = self._freed.bytes.total()
            left = self._inventory.bytes_by_kind()
            report.bytes = {kind: size - self._freed.bytes[kind] for kind, size in left.items()}
            report.bytes["database"] = self._database_bytes()
            report.free = self._free()
        finally:
            database.close()
        return report

    def _finish(self, writer: StoreWriter) -> None:
        """Finish deletions that a crash interrupted."""
        found = writer.database.execute("SELECT path FROM media WHERE state = 'deleting'")
        delete_files(writer, self._place.folder, [row[0] for row in found])

    # --- what to delete ---

    def _oldest_ns(self, severity: str) -> int:
        """Return the wall clock before which events of a severity are too old."""
        return self._now_ns - int(getattr(self._keep, f"{severity}_d") * NS_PER_DAY)

    def _too_old(self, candidates: Candidates) -> list[Candidate]:
        found = [candidates.events(severity, 0, self._oldest_ns(severity)) for severity in SEVERITIES]
        return list(islice(chain(*found), MOST_AT_ONCE))

    def _too_much(self, candidates: Candidates, old: Sequence[Candidate]) -> list[Candidate]:
        """Return what to delete to free space, in addition to what is too old."""
        need = self._need() - sum(each.bytes for each in old)
        if need <= 0:
            return []
        gone, chosen = {each.name for each in old}, []
        for each in candidates.in_order():
            if each.name not in gone:
                chosen.append(each)
                need -= each.bytes
                if need <= 0 or len(chosen) >= MOST_AT_ONCE:
                    return chosen
        self._report.warnings.append(
            f"{need / 1e6:.0f} MB too much remain: kept events and files being written exceed the limits"
        )
        return chosen

    def _need(self) -> int:
        """Return the bytes that must be freed."""
        total = sum(self._inventory.bytes_by_kind().values()) + self._database_bytes()
        limit, over = self._keep.max_bytes, 0
        if limit is not None and total > limit:
            over = total - int(TARGET * limit)
        return max(over, self._keep.min_free_bytes - self._free(), 0)

    def _question(self, candidates: Candidates, old: Sequence[Candidate], excess: Sequence[Candidate]) -> str:
        """Return why the user has to confirm this clean-up; empty if it may go ahead."""
        if not old and not excess:
            return ""
        total = sum(self._inventory.bytes_by_kind().values())
        size = sum(each.bytes for each in (*old, *excess))
        events = sum(candidates.count_events(severity, self._oldest_ns(severity)) for severity in SEVERITIES)
        events += sum(each.is_event for each in excess)
        is_much = events > FEW_EVENTS and events > MUCH * candidates.count_events()
        if (size > FEW_BYTES and size > MUCH * total) or is_much:
            recordings = sum(not each.is_event for each in excess)
            return (
                f"{events} events and {recordings} recordings to delete ({size / 1e6:.0f} of {total / 1e6:.0f} MB) are "
                "more than a third of everything: check the clock and events.keep, then run "
                "framewire events tidy --yes"
            )
        return ""

    def _limits(self) -> str:
        """Return the size limits as text. While they stay the same, any excess is new."""
        return f"{self._keep.max_bytes} {self._keep.min_free_bytes}"

    # --- deleting ---

    def _delete(self, writer: StoreWriter, old: Sequence[Candidate], excess: Sequence[Candidate]) -> None:
        folder, counts = self._place.folder, Counter[str]()
        for cause, chosen in (("age", old), ("space", excess)):
            freed = Freed()
            events = [each.name for each in chosen if each.is_event]
            delete_events(writer, folder, events, freed)
            delete_files(writer, folder, [each.name for each in chosen if not each.is_event], freed)
            counts[f"event/{cause}"] += len(events)
            for kind, count in freed.files.items():
                counts[f"{kind}/{cause}"] += count
            self._freed.bytes.update(freed.bytes)
        counts["track/age"] += self._delete_tracks(writer, self._keep.tracks_d)
        if any(ORDER.index(each.kind) > ORDER.index("tracks") for each in excess):
            counts["track/space"] += self._delete_tracks(writer, 1.0)
        self._report.deleted = {name: count for name, count in counts.items() if count}
        young = sum(self._now_ns - each.at_ns < NS_PER_HOUR for each in excess)
        if young:
            self._report.warnings.append(
                f"{young} files and events of the last hour were deleted: the limit is too small"
            )

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
        """Reserve a little space, and release it when the disk is full, because events are small and must continue."""
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
