"""Minutes of many events, and a day of twenty cameras. Each has a short form that runs with all tests."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from engine.analytics.analytics import Analytics
from engine.analytics.findings import Finding
from engine.analytics.view import Counts, Setup, View
from engine.data import Packet, Run, TrackEvent
from engine.events.log import EventLog
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventFilter, EventReader
from engine.flow.pipeline import Pipeline
from engine.protocols import Sink
from engine.sources.open import open_source
from tests.events import scenes
from tests.events.scenes import NS
from tests.events.test_disk import steps_of
from tests.fakes import OneTracker, PixelDetector

FPS = 25


@dataclass
class Busy:
    """Twenty points on every frame: 500 events a second at 25 frames a second."""

    name: str = "busy"

    def update(self, view: View) -> Iterator[Finding]:
        for _ in range(20):
            yield Finding("rule_began", view.captured_ns, "point", severity="alert", began_ns=view.captured_ns)


def published(seconds: float, *sinks: Sink) -> int:
    """Run a camera with a busy rule for a time, and return how many frames were published."""
    count = int(seconds * FPS)
    camera = open_source(f"synthetic://?realtime=1&fps={FPS}&width=64&height=48&objects=1&count={count}")
    with Pipeline(camera, PixelDetector(), OneTracker(), *sinks, analytics=Analytics([], [], [Busy()])) as pipeline:
        return sum(len(packet.findings) == 20 for packet in pipeline)


def check_busy(folder: Path, seconds: float, least: float) -> None:
    without = published(seconds)
    log = EventLog(StorePlace(folder))
    with_log = published(seconds, log)
    figures = log.figures()
    assert (figures.lost, figures.waiting) == ({}, 0)
    with EventReader(log.place) as reader:
        kept = sum(reader.totals().values())
    print(f"{kept} events in {seconds:g} s, {with_log} frames with the log, {without} without")
    assert kept == figures.stored == with_log * 20
    assert with_log >= least * without


def test_five_hundred_events_a_second_are_all_kept(tmp_path: Path) -> None:
    check_busy(tmp_path, 2, 0.5)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_five_hundred_events_a_second_for_a_minute(tmp_path: Path) -> None:
    check_busy(tmp_path, 60, 0.98)


def one_hour(log: EventLog, of: Run, hour: int, cameras: int, every_s: int) -> None:
    """Feed an hour of cameras; on each, somebody walks through now and then."""
    for begin_s in range(hour * 3600, (hour + 1) * 3600, every_s):
        for camera in range(cameras):
            number = begin_s * scenes.FPS
            track_id = begin_s // every_s + 1
            for packet in walk(of, f"camera{camera}", number, track_id):
                log.write(packet)
        log.tick()


def walk(of: Run, source_id: str, first: int, track_id: int) -> Iterator[Packet]:
    """Yield five frames of a second each, with one alert that begins and ends, and a track that ends."""
    for n in range(5):
        packet = scenes.packet(first + n * scenes.FPS, [scenes.walker(n)], source_id=source_id, ids=[track_id], of=of)
        at = packet.frame.scene_ns
        findings: tuple[Finding, ...] = ()
        if n in (1, 4):
            phase = "begin" if n == 1 else "end"
            began = at - n * NS
            findings = (
                Finding(
                    f"rule_{'began' if n == 1 else 'ended'}", at, phase, "intruder", "alert", "yard", began,  # type: ignore[arg-type]
                    at if n == 4 else None, number=track_id, identity=track_id, track_ids=(track_id,), why=("x" * 60,),
                ),
            )  # fmt: skip
        setup, counts = Setup((200, 100), ("yard",)), Counts({"yard": 1})
        view = View(at, None, packet.tracks, None, np.zeros(1), setup, counts)  # type: ignore[arg-type]
        if n == 4:
            event = TrackEvent("ended", track_id, at, 0, at - 4 * NS, at, 0.9, 5, scenes.walker(n))
            packet = Packet(packet.frame, packet.detections, packet.tracks, of, events=(event,))
        yield packet.with_analysis("analytics", replace(view, findings=findings))


def check_day(folder: Path, *, hours: int, cameras: int, every_s: int) -> None:
    """Nothing grows but the file, and the file grows evenly."""
    of = scenes.run()
    log = EventLog(StorePlace(folder))
    log.open(of)
    sizes, steps, memory, took = [], [], [], []
    for hour in range(hours):
        one_hour(log, of, hour, cameras, every_s)
        while log.figures().waiting:
            time.sleep(0.02)
        gc.collect()
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        sizes.append((folder / "events.sqlite").stat().st_size)
        wanted = EventFilter(source_id="camera0")
        steps.append(steps_of(log.place, wanted))
        with EventReader(log.place) as reader:
            begin = time.perf_counter()
            reader.page(wanted)
            took.append((time.perf_counter() - begin) * 1000)
    log.close()
    events = hours * cameras * 3600 // every_s
    assert (log.figures().stored, log.figures().lost) == (events * 2, {})
    grown = np.diff(sizes)
    print(
        f"{events} events and tracks of {cameras} cameras in {hours} h: {sizes[-1] / 1e6:.1f} MB, "
        f"{sizes[-1] / events:.0f} bytes each; a page {took[0]:.1f} ms after 1 h, {took[-1]:.1f} ms after {hours} h; "
        f"memory {memory[0]:.0f} MB after 1 h, {memory[-1]:.0f} MB at the end"
    )
    assert max(steps[1:]) <= 1.5 * min(steps[1:]) + 100  # the first hour is less than two pages
    assert max(grown[1:]) <= 2 * np.median(grown) + 500_000
    assert memory[-1] <= memory[len(memory) // 3] + 20


def test_three_hours_of_cameras_cost_the_same_each_hour(tmp_path: Path) -> None:
    check_day(tmp_path, hours=3, cameras=4, every_s=60)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_day_of_twenty_cameras(tmp_path: Path) -> None:
    check_day(tmp_path, hours=24, cameras=20, every_s=60)
