"""A store that does not answer: nothing waits for it, and what it missed is written when it answers again."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import engine.events.writing as writing
from engine.events.log import EventLog
from engine.events.store import database
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventReader
from engine.events.store.rows import TrackRow
from engine.events.store.writer import StoreWriter
from engine.events.writing import Job, StoreThread
from tests.events import scenes
from tests.events.conftest import MakePlace
from tests.events.test_store import event

PATIENCE_S = 30.0


def wait_for(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def hanging(place: StorePlace) -> Iterator[None]:
    """Keep the store from answering writers: another process holds the file, or the server's process is stopped."""
    if place.is_server:
        import psycopg

        with psycopg.connect(place.url) as connection:
            found = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'framewire' AND datname = current_database()"
            ).fetchall()
        pids = [row[0] for row in found]
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        return
    holder = sqlite3.connect(place.file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


def test_a_store_that_hangs_delays_nobody_and_is_filled_up_afterwards(make_place: MakePlace) -> None:
    place = make_place()
    if place.is_server and os.geteuid() != 0:
        pytest.skip("needs the right to stop the server's processes: run as root")
    log = EventLog(place)
    log.open(scenes.run())
    packets = list(scenes.walk())
    for packet in packets[:20]:
        log.write(packet)
    wait_for(lambda: log._thread is not None and log._thread.is_idle)
    with hanging(place):
        for packet in packets[20:]:
            log.write(packet)  # returns although the store cannot
            log.tick()
        figures = log.figures()
        assert (figures.stored, figures.waiting, figures.lost) == (0, 3, {})
        wait_for(lambda: log.figures().unstored == 3)
    wait_for(lambda: log.figures().waiting == 0)
    assert (log.figures().stored, log.figures().unstored, log.figures().error) == (3, 0, "")
    log.close()
    with EventReader(make_place()) as reader:
        assert [row.rule for row in reader.page().events] == ["entry", "intruder"]
        assert sum(row.n for row in reader.counts("gate", 0, 2**62)) == 2


def test_a_connection_that_breaks_is_made_again(make_place: MakePlace) -> None:
    place = make_place()
    if not place.is_server:
        pytest.skip("only a server has connections that break")
    import psycopg

    thread = StoreThread(place, "engine", scenes.UTC)
    thread.start(PATIENCE_S)
    for number in range(3):
        thread.submit(Job(lambda store, n=number: store.put(event(n)), events=1))  # type: ignore[misc]
        wait_for(lambda: thread.is_idle)
        with psycopg.connect(place.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'framewire' AND datname = current_database()"
            )
    thread.submit(Job(lambda store: store.put(event(9)), events=1))
    wait_for(lambda: thread.figures().stored == 4)
    assert thread.close(PATIENCE_S)


def test_a_server_that_is_away_at_the_start_delays_only_the_store(tmp_path: object) -> None:
    pytest.importorskip("psycopg", reason="needs pip install 'framewire[postgres]'")
    place = StorePlace(str(tmp_path), "postgresql://me:hunter2secret@/nobody?host=/nowhere")
    thread = StoreThread(place, "engine", scenes.UTC)
    thread.start(PATIENCE_S)
    thread.submit(Job(lambda store: store.put(event(1)), events=1))
    assert "check the server" in thread.figures().error
    assert "hunter2secret" not in thread.figures().error + str(place)
    assert not thread.close(0.1)
    assert thread.figures().lost == {"stopped": 1}


def test_a_store_that_another_program_holds_at_the_start_delays_only_the_store(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For instance by a backup: once, the run did not start."""
    monkeypatch.setattr(database, "BUSY_S", 0.2)
    place = StorePlace(str(tmp_path))
    first = StoreThread(place, "engine", scenes.UTC)
    first.start(PATIENCE_S)
    first.submit(Job(lambda store: store.put(event(1)), events=1))
    assert first.close(PATIENCE_S)
    second = StoreThread(place, "engine", scenes.UTC + 1)
    with hanging(place):
        second.start(PATIENCE_S)
        second.submit(Job(lambda store: store.put(event(2)), events=1))
        wait_for(lambda: "another program holds it" in second.figures().error)
    wait_for(lambda: second.figures().stored == 1)
    assert second.close(PATIENCE_S)
    with EventReader(place) as reader:
        assert len(reader.page().events) == 2
    assert caplog.text.count("another program holds it") == 1


def test_a_full_disk_keeps_events_until_there_is_room(tmp_path: object, caplog: pytest.LogCaptureFixture) -> None:
    limit: list[StoreWriter] = []

    def opened(store: StoreWriter, is_new: bool) -> None:
        limit.append(store)

    thread = StoreThread(StorePlace(str(tmp_path)), "engine", scenes.UTC, opened)
    thread.start(PATIENCE_S)
    size = limit[0].database.execute("PRAGMA page_count")[0][0]
    limit[0].database.execute(f"PRAGMA max_page_count = {size + 8}")
    for number in range(1000):
        thread.submit(Job(lambda store, n=number: store.put(event(n)), events=1))  # type: ignore[misc]
    wait_for(lambda: "full" in thread.figures().error)
    limit[0].database.execute("PRAGMA max_page_count = 1000000")
    wait_for(lambda: thread.figures().stored == 1000)
    assert thread.close(PATIENCE_S)
    assert caplog.text.count("free some space") == 1


def test_memory_is_bounded_and_what_is_lost_is_counted(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CAPACITY", 100)
    place = StorePlace(str(tmp_path))
    thread = StoreThread(place, "engine", scenes.UTC)
    thread.start(PATIENCE_S)
    with hanging(place):
        thread.submit(Job(lambda store: None))
        wait_for(lambda: thread._jobs.__len__() == 0)  # the thread waits for the disk with the first job
        path = TrackRow("engine", 1, "gate", 1, 0, "person", 1, 2, 1, 0.5, 10, 10, b"")
        for number in range(60):
            thread.submit(Job(lambda store, n=number: store.put(event(n)), events=1))  # type: ignore[misc]
            thread.submit(Job(lambda store: store.put(path), is_droppable=True))
        assert thread.figures().lost == {}  # paths went first
        for number in range(60, 200):
            thread.submit(Job(lambda store, n=number: store.put(event(n)), events=1))  # type: ignore[misc]
        figures = thread.figures()
        assert figures.lost["memory"] + figures.waiting == 200
        assert figures.waiting <= 100
    wait_for(lambda: thread.figures().waiting == 0)
    assert thread.close(PATIENCE_S)
    with EventReader(place) as reader:
        kept = [int(row.event_id.rpartition("-")[2]) for row in reader.events()]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == 199
    assert len(kept) == figures.stored + figures.waiting


def test_the_end_does_not_wait_for_a_store_that_hangs(tmp_path: object, caplog: pytest.LogCaptureFixture) -> None:
    place = StorePlace(str(tmp_path))
    thread = StoreThread(place, "engine", scenes.UTC)
    thread.start(PATIENCE_S)
    with hanging(place):
        thread.submit(Job(lambda store: store.put(event(1)), events=1))
        assert not thread.close(0.2)
        assert thread.figures().lost == {"stopped": 1}
    assert "1 events were not stored" in caplog.text
    thread._thread.join(PATIENCE_S)


def test_a_row_that_no_database_takes_harms_no_other(place: StorePlace, caplog: pytest.LogCaptureFixture) -> None:
    thread, may_go = StoreThread(place, "engine", scenes.UTC), threading.Event()
    thread.start(PATIENCE_S)
    thread.submit(Job(lambda store: may_go.wait(PATIENCE_S) and None))  # so that the rest is one batch
    thread.submit(Job(lambda store: store.put(event(1)), events=1))
    thread.submit(Job(lambda store: store.database.execute("INSERT INTO event (event_id) VALUES ('x')"), events=1))  # type: ignore[arg-type, return-value]
    thread.submit(Job(lambda store: 1 / 0, events=1))  # type: ignore[arg-type, return-value]
    thread.submit(Job(lambda store: store.put(event(2)), events=1))
    may_go.set()
    wait_for(lambda: thread.figures().waiting == 0)
    assert (thread.figures().stored, thread.figures().lost) == (2, {"rejected": 2})
    assert thread.close(PATIENCE_S)
    with EventReader(place) as reader:
        assert len(reader.page().events) == 2


def test_a_deleted_file_is_made_again_and_readers_follow(tmp_path: object) -> None:
    place = StorePlace(str(tmp_path))
    thread = StoreThread(place, "engine", scenes.UTC)
    thread.start(PATIENCE_S)
    reader = EventReader(place)
    assert reader.page().events == []
    for file in place.folder.glob("events.sqlite*"):
        file.unlink()
    thread.submit(Job(lambda store: store.put(event(1)), events=1))
    wait_for(lambda: thread.figures().stored == 1)
    assert len(reader.page().events) == 1
    reader.close()
    assert thread.close(PATIENCE_S)
