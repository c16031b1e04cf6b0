"""The store: its file, its pages, its counts."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from engine.errors import ConfigError
from engine.events.store.database import NewerStoreError, SqliteDatabase, StoreError
from engine.events.store.periods import edges, periods
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventFilter, EventReader
from engine.events.store.rows import CountRow, EventRow, GapRow, OutboxRow, SnoozeRow
from engine.events.store.schema import MIGRATIONS
from engine.events.store.writer import StoreWriter
from tests.events.conftest import MakePlace
from tests.events.scenes import NS, UTC


def event(number: int, **changes: object) -> EventRow:
    row = EventRow(
        event_id=f"gate-{UTC}-intruder-{number}",
        engine_id="engine",
        run_epoch=UTC,
        source_id="gate",
        rule="intruder",
        severity="alert",
        place="yard",
        class_name="person",
        phase="point",
        began_utc_ns=UTC + number * NS,
        ended_utc_ns=UTC + number * NS,
        began_scene_ns=number * NS,
    )
    return dataclasses.replace(row, **changes)  # type: ignore[arg-type]


def written(place: StorePlace, *rows: object) -> None:
    database = place.open("engine")
    store = StoreWriter(database, "engine", UTC)
    with store.transaction():
        for row in rows:
            store.put(row)  # type: ignore[arg-type]
    store.finish()
    database.close()
    place.release()


def test_pages_of_a_cursor_hold_every_event_once_while_others_are_added(make_place: MakePlace) -> None:
    written(make_place(), *(event(n // 3, event_id=f"e{n:03}") for n in range(120)))  # three begin at the same time
    seen: list[str] = []
    with EventReader(make_place()) as reader:
        page = reader.page()
        while True:
            seen += [row.event_id for row in page.events]
            if page.cursor is None:
                break
            written(make_place(), event(1000 + len(seen), event_id=f"new{len(seen)}"))
            page = reader.page(cursor=page.cursor)
    assert seen == [f"e{n:03}" for n in reversed(range(120))]


@pytest.mark.parametrize("cursor", ["", "x", "0" * 5000, "Zm9v", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5IGE="])
def test_a_cursor_from_elsewhere_is_refused(place: StorePlace, cursor: str) -> None:
    written(place, event(1))
    with EventReader(place) as reader, pytest.raises(ConfigError, match="cursor"):
        reader.page(cursor=cursor)


def test_filters(place: StorePlace) -> None:
    written(
        place,
        event(1),
        event(2, source_id="yard", severity="info"),
        event(3, class_name="car", ended_utc_ns=None, phase="begin"),
        event(4, rule="loiter", place="door"),
    )

    def found(**wanted: object) -> list[int]:
        with EventReader(place) as reader:
            rows = reader.page(EventFilter(**wanted)).events  # type: ignore[arg-type]
        return [int(row.event_id.rpartition("-")[2]) for row in rows]

    assert found() == [4, 3, 2, 1]
    assert found(source_id="gate") == [4, 3, 1]
    assert found(severity="info") == [2]
    assert found(class_name="car") == [3]
    assert found(place="door", rule="loiter") == [4]
    assert found(from_utc_ns=UTC + 2 * NS, to_utc_ns=UTC + 4 * NS) == [3, 2]
    assert found(is_open=True) == [3]
    assert found(is_open=False, kept=False) == [4, 2, 1]
    with StoreWriter.edit(place) as store:
        assert store.keep(f"gate-{UTC}-intruder-1")
        assert not store.keep("another")
        store.review(f"gate-{UTC}-intruder-1", "ann", UTC)
        store.review(f"gate-{UTC}-intruder-1", "ann", UTC)
        store.review(f"gate-{UTC}-intruder-2", "ben", UTC)
        store.review(f"gate-{UTC}-intruder-2", "ben", None)
    assert found(kept=True) == [1]
    assert found(reviewed_by="ann") == [1]
    assert found(not_reviewed_by="ann") == [4, 3, 2]
    assert found(reviewed_by="ben") == []


def test_changes_hold_what_engines_and_people_changed_since(place: StorePlace) -> None:
    written(place, event(1), event(2))
    with EventReader(place) as reader:
        since = reader.now()
        assert reader.changes(since) == []
        written(place, event(3))
        with StoreWriter.edit(place) as store:
            store.keep(f"gate-{UTC}-intruder-1")
        changed = reader.changes(since)
        assert {(row.changed_by, row.event_id[-1]) for row in changed} == {("engine", "3"), ("", "1")}
        for row in changed:
            since[row.changed_by] = row.changed
        assert reader.changes(since) == []


def test_writing_a_row_again_keeps_its_begin_and_what_others_recorded(place: StorePlace) -> None:
    written(place, event(1, phase="begin", ended_utc_ns=None))
    with StoreWriter.edit(place) as store:
        store.keep(f"gate-{UTC}-intruder-1")
        store.set_media_of_event(f"gate-{UTC}-intruder-1", snapshot="a.jpg", clip_state="exact")
    written(place, event(1, phase="end", began_utc_ns=5, ended_utc_ns=UTC + 9 * NS, duration_s=8.0, reason="x"))
    with EventReader(place) as reader:
        row = reader.event(f"gate-{UTC}-intruder-1")
    assert row is not None
    assert (row.began_utc_ns, row.ended_utc_ns, row.duration_s) == (UTC + NS, UTC + 9 * NS, 8.0)
    assert (row.kept, row.snapshot, row.clip_state, row.phase, row.reason) == (True, "a.jpg", "exact", "end", "x")


def test_the_outbox_holds_a_message_once(place: StorePlace) -> None:
    row = OutboxRow("e", "begin", "phone", "engine", UTC, UTC, UTC + NS)
    written(place, event(1), row)
    with StoreWriter.edit(place) as store:
        store.add_actions([dataclasses.replace(row, payload="another")])
        store.snooze(SnoozeRow("", UTC + 5))
        store.snooze(SnoozeRow("gate", UTC + 7))
        assert (store.snoozed_until("gate"), store.snoozed_until("yard")) == (UTC + 7, UTC + 5)
    with EventReader(place) as reader:
        assert reader.due_actions("engine", UTC) == [row]
        assert reader.due_actions("another", UTC) == []
        assert reader.due_actions("engine", UTC - 1) == []
        assert len(reader.snoozes(UTC + 6)) == 1


VIENNA = ZoneInfo("Europe/Vienna")


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-07-01", 24)])
def test_a_day_of_the_site_has_23_24_or_25_hours(make_place: MakePlace, day: str, hours: int) -> None:
    import datetime

    begin = int(datetime.datetime.fromisoformat(day).replace(tzinfo=VIENNA).timestamp()) * NS
    minutes = range(begin // NS // 60, begin // NS // 60 + hours * 60)
    counts = [CountRow("gate", "door", "in", "person", minute, UTC, 1) for minute in minutes]
    outside = [CountRow("gate", "door", "in", "person", at, UTC, 500) for at in (minutes[0] - 1, minutes[-1] + 1)]
    gaps = [
        GapRow("gate", begin - NS, begin + 60 * NS, "engine", UTC, "offline"),
        GapRow("gate", begin + 30 * NS, begin + 90 * NS, "engine", UTC, "engine_killed"),  # overlaps
    ]
    written(make_place(), *counts, *outside, *gaps)
    with EventReader(make_place()) as reader:
        [whole] = periods(reader, "gate", "door", "1d", begin, begin + NS, VIENNA)
        assert whole.counts == {"in": {"person": hours * 60}}
        assert (whole.end_utc_ns - whole.begin_utc_ns) == hours * 3600 * NS
        assert whole.blind_s == 90
        by_hour = periods(reader, "gate", "door", "1h", begin, whole.end_utc_ns, VIENNA)
        assert [period.counts["in"]["person"] for period in by_hour] == [60] * hours
        assert by_hour[0].blind_s == 90
        assert sum(period.blind_s for period in by_hour) == 90


def test_periods_that_nobody_can_want_are_refused() -> None:
    with pytest.raises(ConfigError, match="larger bucket"):
        edges("1m", VIENNA, 0, UTC)
    with pytest.raises(ConfigError, match="expected one of: 1m, 1h, 1d"):
        edges("1y", VIENNA, 0, UTC)  # type: ignore[arg-type]


def test_a_second_engine_is_kept_out_and_a_reader_is_not(make_place: MakePlace) -> None:
    first = make_place()
    database = first.open("engine")
    StoreWriter(database, "engine", UTC)
    try:
        with pytest.raises(StoreError, match="another engine"):
            make_place().open("engine")
        with EventReader(make_place()) as reader:
            assert reader.page().events == []
    finally:
        database.close()
        first.release()
    again = make_place()
    again.open("engine").close()
    again.release()


def test_a_missing_store_says_where_it_was_sought(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist: give the folder"):
        EventReader(StorePlace(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_other_users_read_neither_the_store_nor_its_companions(tmp_path: Path) -> None:
    """Events and paths reveal who was where, as recordings do."""
    umask = os.umask(0o022)
    try:
        place = StorePlace(tmp_path / "new" / "events")
        database = place.open("engine")
        StoreWriter(database, "engine", UTC)
        files = list(place.folder.iterdir())
        assert {file.name for file in files} >= {"events.sqlite", "events.sqlite-wal", "events.lock"}
        assert {file.name: oct(file.stat().st_mode & 0o7777) for file in files} == {f.name: "0o640" for f in files}
        assert place.folder.stat().st_mode & 0o777 == place.folder.parent.stat().st_mode & 0o777 == 0o750
        database.close()
        place.release()
    finally:
        os.umask(umask)


@pytest.mark.parametrize("content", [b"not a database" * 1000, b"\xff" * 5000], ids=["text", "bytes"])
def test_a_store_that_is_a_link_to_another_file_leaves_that_file_alone(tmp_path: Path, content: bytes) -> None:
    other = tmp_path / "notes"
    other.write_bytes(content)
    place = StorePlace(tmp_path / "events")
    place.folder.mkdir()
    place.file.symlink_to(other)
    written(place, event(1))
    assert other.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events", "notes"]
    assert place.file.is_file()
    assert not place.file.is_symlink()


@pytest.mark.parametrize("name", ["events.sqlite-wal", "events.sqlite-journal", "events.lock"])
def test_a_companion_that_is_a_link_leaves_the_other_file_alone(tmp_path: Path, name: str) -> None:
    other = tmp_path / "notes"
    other.write_bytes(b"keep me" * 100)
    place = StorePlace(tmp_path / "events")
    written(place, event(1))
    (place.folder / name).unlink(missing_ok=True)
    (place.folder / name).symlink_to(other)
    with suppress(StoreError):
        written(place, event(2))
    assert other.read_bytes() == b"keep me" * 100


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose one with write access"):
        StorePlace(tmp_path / "file" / "events").open("engine")


@pytest.mark.parametrize("damage", ["overwritten", "cut short", "no database"])
def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    place = StorePlace(tmp_path)
    database = place.open("engine")
    store = StoreWriter(database, "engine", UTC)
    with store.transaction():
        for number in range(500):
            store.put(event(number))
    database.close()  # without `finish`: as after `kill -9`
    place.release()
    content = place.file.read_bytes()
    if damage == "overwritten":
        place.file.write_bytes(content[:8192] + os.urandom(20_000) + content[28_192:])
    elif damage == "cut short":
        place.file.write_bytes(content[: len(content) // 2])
    else:
        place.file.write_bytes(b"not a database at all" * 1000)
    written(place, event(1))
    with EventReader(place) as reader:
        assert len(reader.page().events) == 1
    [aside] = [path for path in tmp_path.glob("events.sqlite.damaged-*") if not path.name.endswith(("-wal", "-shm"))]
    assert aside.stat().st_size > 0
    assert f"set aside as {aside.name}" in caplog.text


def test_an_older_store_is_copied_and_brought_up_to_date(tmp_path: Path) -> None:
    written(StorePlace(tmp_path), event(1))
    newer = (*MIGRATIONS, ("ALTER TABLE event ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'",))
    place = StorePlace(tmp_path, migrations=newer)
    with pytest.raises(StoreError, match="start the engine once"):
        place.open_to_read()
    database = place.open("engine")
    assert database.execute("SELECT mood FROM event") == [("calm",)]
    database.close()
    place.release()
    with sqlite3.connect(tmp_path / f"events.sqlite.version-{len(MIGRATIONS)}") as copy:
        assert copy.execute("SELECT COUNT(*) FROM event").fetchone() == (1,)
    copy.close()
    with pytest.raises(NewerStoreError, match="update"):
        StorePlace(tmp_path).open("engine")


def test_a_failing_migration_changes_nothing(make_place: MakePlace) -> None:
    written(make_place(), event(1))
    broken = make_place()
    broken._migrations = (*MIGRATIONS, ("CREATE TABLE fine (a INTEGER)", "CREATE TABLE event (a INTEGER)"))
    with pytest.raises(StoreError):
        broken.open("engine")
    broken.release()
    with EventReader(make_place()) as reader:
        assert len(reader.page().events) == 1
        assert not reader.database.has_table("fine")


def test_a_network_file_system_is_recognised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mounts = tmp_path / "mountinfo"
    inner = tmp_path / "with space" / "nas"
    inner.mkdir(parents=True)
    mounts.write_text(
        "22 1 0:20 / / rw - ext4 /dev/sda1 rw\n"
        f"30 22 0:30 / {str(inner.parent).replace(' ', chr(92) + '040')}/nas rw - nfs4 host:/x rw\n"
    )
    place = StorePlace(inner / "events", mounts=mounts)
    assert StorePlace(tmp_path, mounts=mounts).file_system() == "ext4"
    written(place, event(1))
    assert "network file system (nfs4)" in caplog.text
    database = SqliteDatabase(place.file, read_only=True)
    assert database.execute("PRAGMA journal_mode") != [("wal",)]
    database.close()


def test_importing_the_engine_does_not_import_a_database() -> None:
    code = "import sys, engine, engine.events.store.database; sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_counts_of_other_runs_are_summed(make_place: MakePlace) -> None:
    minute = UTC // (60 * NS)
    rows = [CountRow("gate", "door", "in", "person", minute + n, UTC + run, 2) for n in range(3) for run in range(2)]
    written(make_place(), *rows, CountRow("yard", "door", "in", "person", minute, UTC, 100))
    with EventReader(make_place()) as reader:
        assert reader.summed_counts("gate", 0, UTC + 600 * NS, UTC) == {("door", "in", "person"): 6}
        assert reader.summed_counts("gate", UTC + 60 * NS, UTC + 600 * NS, 0) == {("door", "in", "person"): 8}
        assert reader.summed_counts("hall", 0, UTC + 600 * NS, 0) == {}
