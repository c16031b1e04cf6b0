"""A real disk that hangs, and a store that grows."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.events.log import EventLog
from engine.events.store.database import SqliteDatabase
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventFilter, EventReader
from engine.events.store.writer import StoreWriter
from tests.events import scenes
from tests.events.scenes import UTC
from tests.events.test_hanging import wait_for
from tests.events.test_store import event

STEPS = 10


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder on a separate file system, and the process that serves it: while that is stopped, the disk hangs."""
    if shutil.which("bindfs") is None or os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs FUSE: run as root, apt-get install bindfs")
    (tmp_path / "below").mkdir()
    (tmp_path / "disk").mkdir()
    process = subprocess.Popen(["bindfs", "-f", str(tmp_path / "below"), str(tmp_path / "disk")])
    try:
        wait_for(lambda: os.path.ismount(tmp_path / "disk") or process.poll() is not None)
        if process.poll() is not None:
            pytest.skip("needs the right to mount: run with CAP_SYS_ADMIN")
        yield tmp_path / "disk", process.pid
    finally:
        process.send_signal(signal.SIGCONT)
        subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=False)
        process.terminate()
        process.wait(10)


def test_a_disk_that_hangs_delays_nobody_and_is_filled_up_afterwards(disk: tuple[Path, int]) -> None:
    folder, pid = disk
    place = StorePlace(folder / "events")
    log = EventLog(place)
    log.open(scenes.run())
    packets = list(scenes.walk())
    os.kill(pid, signal.SIGSTOP)
    try:
        for packet in packets:
            log.write(packet)
            log.tick()
        wait_for(lambda: log.figures().unstored == 3)
        assert log.figures().stored == 0
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: log.figures().waiting == 0)
    log.close()
    assert (log.figures().stored, log.figures().unstored) == (3, 0)
    with EventReader(place) as reader:
        assert len(reader.page().events) == 2


def test_a_run_ends_although_its_disk_hangs(disk: tuple[Path, int], caplog: pytest.LogCaptureFixture) -> None:
    folder, pid = disk
    log = EventLog(StorePlace(folder / "events"))
    log.open(scenes.run())
    os.kill(pid, signal.SIGSTOP)
    try:
        for packet in scenes.walk():
            log.write(packet)
        log.close()
        assert log.is_closed
        assert log.figures().lost == {"stopped": 3}
        assert "3 events were not stored before the end" in caplog.text
    finally:
        os.kill(pid, signal.SIGCONT)


def filled(folder: Path, count: int) -> StorePlace:
    """Return a store with this many events of 4 sources, 20 rules and 3 severities."""
    place = StorePlace(folder)
    database = place.open("engine")
    store = StoreWriter(database, "engine", UTC)
    with store.transaction():
        for number in range(count):
            store.put(
                event(
                    number,
                    source_id=f"camera{number % 4}",
                    rule=f"rule{number % 20}",
                    severity=("info", "notice", "alert")[number % 3],
                    class_name=("person", "car", "bus")[number % 3],
                )
            )
    store.finish()
    database.close()
    place.release()
    return place


WANTED = {
    "newest": EventFilter(),
    "of a source": EventFilter(source_id="camera1"),
    "of a rule": EventFilter(rule="rule7"),
    "of a severity": EventFilter(severity="alert"),
    "of a class": EventFilter(class_name="bus"),
    "of a source before a time": EventFilter(source_id="camera2", to_utc_ns=UTC + 1500 * scenes.NS),
    "open": EventFilter(is_open=True),
    "kept": EventFilter(kept=True),
    "not reviewed": EventFilter(not_reviewed_by="ann"),
}


def steps_of(place: StorePlace, wanted: EventFilter) -> int:
    """Return the steps of SQLite's machine for a page, and for the one after it."""
    counted = [0]

    def count() -> None:
        counted[0] += 1

    with EventReader(place) as reader:
        assert isinstance(reader.database, SqliteDatabase)
        reader.database.count_steps(STEPS, count)
        page = reader.page(wanted)
        reader.page(wanted, page.cursor)
        reader.database.count_steps(STEPS, None)
    return counted[0] * STEPS


def test_a_page_costs_the_same_however_many_events_there_are(tmp_path: Path) -> None:
    small, large = filled(tmp_path / "small", 2_000), filled(tmp_path / "large", 20_000)
    for name, wanted in WANTED.items():
        few, many = steps_of(small, wanted), steps_of(large, wanted)
        assert many <= few * 1.5 + 100, (name, few, many)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_page_of_a_million_events(tmp_path: Path) -> None:
    place = filled(tmp_path, 1_000_000)
    took = {}
    with EventReader(place) as reader:
        for name, wanted in WANTED.items():
            begin = time.perf_counter()
            page = reader.page(wanted)
            took[name] = round((time.perf_counter() - begin) * 1000, 2)
            assert len(page.events) == (0 if name in ("open", "kept") else 50)
    print(f"{place.file.stat().st_size / 1e6:.0f} MB, ms per page: {took}")
    for name, wanted in WANTED.items():
        assert steps_of(place, wanted) < 20_000, name
