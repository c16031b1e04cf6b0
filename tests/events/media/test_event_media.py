"""From packets to images and clips in the store: with a real store, a real media process and real recordings."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import cv2
import pytest

from engine.clock import NS_PER_S
from engine.events.log import EventLog
from engine.events.media.clips import NOT_RECORDED, ClipOptions, ClipQueue, Made, Recorded, wanted_span
from engine.events.media.event_media import EventMedia
from engine.events.media.jobs import MediaProcess
from engine.events.media.retention import RESERVE, KeepOptions
from engine.events.media.snapshots import SnapshotOptions
from engine.events.media.upkeep import Upkeep
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventReader
from engine.events.store.rows import EventRow
from tests.events import scenes
from tests.events.media.disks import small_disk
from tests.events.media.recorded import record, shown

OPTIONS = ClipOptions(before_s=1.0, after_s=1.0)
AFTER_S = (scenes.UTC - 1_700_000_000 * NS_PER_S) / NS_PER_S  # of the recording, on the clock of the scene


class Ring:
    """Records for how long each source is to be recorded."""

    def __init__(self) -> None:
        self.held: list[tuple[str, float]] = []

    def hold(self, source_id: str, seconds: float) -> None:
        self.held.append((source_id, seconds))


class Site:
    """An event log with media, and the recording of its camera."""

    def __init__(
        self, folder: Path, *, is_recorded: bool = True, is_main: bool = False, events: Path | None = None
    ) -> None:
        self.folder = folder
        self.place = StorePlace(events or folder / "events")
        self.ring = Ring()
        there = Recorded(folder / "recordings" / "gate", is_main, False) if is_recorded else None
        self.media = EventMedia(
            self.place.folder,
            SnapshotOptions(),
            OPTIONS,
            lambda source: there,
            self.ring,
            stills=is_main,
            upkeep=Upkeep(self.place, [], KeepOptions(36500, 36500, 36500, 36500, None, 0)),
        )
        self.log = EventLog(self.place, clip_severities=["alert"], followers=[self.media])

    def run(self, until: Callable[[list[EventRow]], bool], *, frames: int = 95) -> list[EventRow]:
        """Let a person walk through the yard, and return the events once they meet the condition."""
        self.log.open(scenes.run())
        for packet in scenes.walk(frames):
            self.log.write(packet)
            self.log.tick()
            time.sleep(0.002)
        events = self.wait(until)
        self.log.close()
        return events

    def wait(self, until: Callable[[list[EventRow]], bool]) -> list[EventRow]:
        deadline = time.monotonic() + 40
        while True:
            with EventReader(self.place) as reader:
                events = list(reader.events())
            if until(events):
                return events
            assert time.monotonic() < deadline, (events, self.media.figures())
            time.sleep(0.05)


def is_done(events: list[EventRow]) -> bool:
    return bool(events) and all(e.ended_utc_ns and e.snapshot and e.clip_state != "due" for e in events)


def test_an_event_gets_its_images_and_a_clip_that_begins_before_it(tmp_path: Path, numbered: Path) -> None:
    record(numbered, tmp_path / "recordings" / "gate", after_s=AFTER_S)
    site = Site(tmp_path)
    entry, intruder = site.run(is_done)
    assert (entry.rule, entry.clip_state, entry.clip, entry.best) == ("entry", "", "", "")
    assert (intruder.rule, intruder.clip_state, intruder.clip_reason) == ("intruder", "exact", "")
    for name in (entry.snapshot, intruder.snapshot, intruder.best):
        assert cv2.imread(str(site.place.folder / name)).shape == scenes.IMAGE.shape
    frames = shown(site.place.folder / intruder.clip)
    wanted = (intruder.began_utc_ns - NS_PER_S - scenes.UTC) / NS_PER_S * 25
    assert frames[0][1] == 0
    assert 0 <= (frames[0][0] or 0) - wanted <= 1
    ended_ns = intruder.ended_utc_ns or 0
    assert len(frames) == pytest.approx(((ended_ns - intruder.began_utc_ns) / NS_PER_S + 2) * 25, abs=1.1)
    with EventReader(site.place) as reader:
        rows = reader.media()
    assert sorted(row.kind for row in rows) == ["clip", "snapshot", "snapshot", "snapshot"]
    assert all((site.place.folder / row.path).stat().st_size == row.bytes for row in rows)
    assert site.media.figures()["clips"] == {"exact": 1}


def test_a_recording_is_asked_for_while_an_event_that_wants_a_clip_is_open(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.run(is_done)
    assert site.ring.held[0] == ("gate", 4.0)
    assert {source for source, _ in site.ring.held} == {"gate"}


def test_without_a_recording_the_clip_says_so(tmp_path: Path) -> None:
    events = Site(tmp_path, is_recorded=False).run(is_done)
    assert (events[1].clip_state, events[1].clip_reason) == ("none", NOT_RECORDED)


def test_the_best_image_comes_from_the_main_stream(tmp_path: Path, numbered: Path) -> None:
    record(numbered, tmp_path / "recordings" / "gate", after_s=AFTER_S)
    site = Site(tmp_path, is_main=True)
    before = scenes.IMAGE.shape[:2]

    def is_larger(events: list[EventRow]) -> bool:
        path = site.place.folder / events[-1].best if events and events[-1].best else None
        return path is not None and cv2.imread(str(path)).shape[:2] != before

    site.run(is_larger)


def test_clips_that_were_due_at_the_end_are_made_after_the_next_start(tmp_path: Path, numbered: Path) -> None:
    site = Site(tmp_path)
    site.log.open(scenes.run())
    for packet in scenes.walk():
        site.log.write(packet)
    site.log.close()
    record(numbered, tmp_path / "recordings" / "gate", after_s=AFTER_S)
    again = Site(tmp_path)
    again.log.open(scenes.run(scenes.UTC + 1))
    events = again.wait(lambda events: events[-1].clip_state == "exact")
    assert events[-1].clip
    again.log.close()


def test_a_disk_that_cannot_be_written_costs_images_not_events(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "snapshots").write_text("in the way")
    events = site.run(lambda events: len(events) == 2 and all(e.ended_utc_ns for e in events))
    assert [event.snapshot for event in events] == ["", ""]
    assert site.media.skipped["disk"] >= 2


def event(began_s: float = 2.0, ended_s: float = 4.0) -> EventRow:
    began_ns, ended_ns = (scenes.UTC + int(at * NS_PER_S) for at in (began_s, ended_s))
    return EventRow(
        f"gate-1-r-{began_s:g}", "engine", 1, "gate", "r", "alert", "", "person", "end", began_ns, ended_ns, 0,
        clip_state="due",
    )  # fmt: skip


def queue_of(tmp_path: Path, limit_s: float = 60.0) -> tuple[ClipQueue, list[Made]]:
    made: list[Made] = []
    place = Recorded(tmp_path / "recordings" / "gate", False, False)
    queue = ClipQueue(
        tmp_path / "events", OPTIONS, lambda source: place, made.append, lambda still: None, MediaProcess(limit_s)
    )
    return queue, made


def work(queue: ClipQueue, made: list[Made], count: int = 1) -> None:
    deadline = time.monotonic() + 60
    while len(made) < count:
        time.sleep(min(queue.work(), 0.05))
        assert time.monotonic() < deadline


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_media_process_that_dies_or_hangs_is_replaced(
    tmp_path: Path, numbered: Path, fault: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.events.media.clips.LOOK_AGAIN_NS", NS_PER_S // 50)
    record(numbered, tmp_path / "recordings" / "gate", after_s=AFTER_S)
    queue, made = queue_of(tmp_path, limit_s=4.0)
    with closing(queue):
        queue.add(event())
        work(queue, made)
        child = queue.process._child
        assert child is not None
        os.kill(child.pid, fault)
        if fault == signal.SIGKILL:  # noticed while the next job is sent, not while its answer is awaited
            assert child.connection.poll(10.0)
        queue.add(event(3.0, 5.0))
        work(queue, made, 2)
        assert [each.state for each in made] == ["exact", "exact"]
        assert queue.process.restarts >= 1


def test_a_disk_that_hangs_for_good_gives_no_clip_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.events.media.clips.LOOK_AGAIN_NS", 1)
    (tmp_path / "recordings" / "gate").mkdir(parents=True)
    os.mkfifo(tmp_path / "recordings" / "gate" / "2026-09-21T14-13-20Z.mp4")  # whoever opens it waits for a writer
    queue, made = queue_of(tmp_path, limit_s=0.7)
    queue.add(event())
    work(queue, made)
    assert made[0].state == "none"
    assert "did not answer" in made[0].reason
    assert queue.process.restarts == 3
    queue.close()


def test_a_clip_contains_the_moment_that_fulfilled_the_rule() -> None:
    long = event(0.0, 1000.0)
    options = ClipOptions(before_s=5, after_s=5, max_s=300)
    told_ns = scenes.UTC + 600 * NS_PER_S
    start_ns, end_ns, reason = wanted_span(long, options, told_ns)
    assert start_ns < told_ns < end_ns
    assert end_ns - start_ns == 300 * NS_PER_S
    assert "max_s" in reason
    assert wanted_span(event(), options, None) == (event().began_utc_ns - 5 * NS_PER_S, scenes.UTC + 9 * NS_PER_S, "")


def test_no_thread_or_process_is_left(tmp_path: Path) -> None:
    before = threading.active_count()
    Site(tmp_path).run(is_done)
    assert threading.active_count() == before


def test_a_full_disk_keeps_events_and_drops_images_and_clips(
    tmp_path: Path, numbered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.events.media.upkeep.SOON_NS", NS_PER_S // 5)
    record(numbered, tmp_path / "recordings" / "gate", after_s=AFTER_S)
    with small_disk(tmp_path / "disk", 16) as disk:
        site = Site(tmp_path, events=disk / "events")
        site.log.open(scenes.run())
        deadline = time.monotonic() + 30
        while not (site.place.folder / RESERVE).exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        for packet in scenes.walk():
            site.log.write(packet)
            time.sleep(0.005)
        events = site.wait(lambda events: len(events) == 2 and events[-1].clip_state == "none")
        assert all(event.ended_utc_ns is not None for event in events)
        assert [event.snapshot for event in events] == ["", ""]
        assert "No space left" in events[-1].clip_reason
        assert site.media.skipped["disk"] >= 2
        (disk / "filler").unlink()
        site.log.close()
        assert list(disk.rglob("*.part")) == []
        again = Site(tmp_path, events=disk / "events")
        again.log.open(scenes.run(scenes.UTC + 1))
        for packet in scenes.walk(of=scenes.run(scenes.UTC + 1)):
            again.log.write(packet)
            time.sleep(0.002)
        found = again.wait(
            lambda events: len(events) == 4 and all(e.snapshot for e in events if e.run_epoch > scenes.UTC)
        )
        assert len(found) == 4
        again.log.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: sandboxes are its own")
@pytest.mark.parametrize("network", [False, True])
def test_the_process_that_reads_recordings_may_not_do_much_else(tmp_path: Path, network: bool) -> None:
    process = MediaProcess(network=network)
    try:
        process.begin("still", {"folder": str(tmp_path), "utc_ns": 1, "path": "x.jpg", "max_side": 100, "facts": ""})
        answer = None
        while answer is None:
            answer = process.poll(1.0)
        assert answer.result["reason"] == "there is no recording of this moment"
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
        [memory] = [line for line in limits if line.startswith("Max data size")]
        assert "unlimited" not in memory
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
    finally:
        process.close()
