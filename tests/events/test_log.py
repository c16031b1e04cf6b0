"""What the log keeps, on SQLite and on PostgreSQL."""

from __future__ import annotations

import dataclasses

import pytest

from engine.events.log import EventLog
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventFilter, EventReader
from engine.testing.contracts.output import SINK_CHECKS
from tests.events import scenes
from tests.events.conftest import MakePlace
from tests.events.scenes import NS, UTC


def keep(place: StorePlace, packets: object, *, of: object = None, close: bool = True) -> EventLog:
    log = EventLog(place, clip_severities=["alert"])
    log.open(of or scenes.run())  # type: ignore[arg-type]
    for number, one in enumerate(packets):  # type: ignore[var-annotated, arg-type]
        log.write(one)
        if number % scenes.FPS == 0:
            log.tick()
    if close:
        log.close()
    return log


@pytest.mark.parametrize("check", SINK_CHECKS, ids=lambda check: check.__name__)
def test_it_is_a_sink(check: object, place: StorePlace) -> None:
    made = []

    def make() -> EventLog:
        made.append(EventLog(place))
        return made[-1]

    check(make)  # type: ignore[operator]
    for log in made:
        log.close()


def test_an_episode_a_crossing_a_visit_and_a_path_are_kept(place: StorePlace) -> None:
    log = keep(place, scenes.walk())
    assert log.figures() == dataclasses.replace(log.figures(), stored=3, waiting=0, unstored=0, lost={}, error="")
    with EventReader(place) as reader:
        newest, oldest = reader.page().events
        assert (newest.rule, newest.phase, newest.severity, newest.clip_state) == ("entry", "point", "info", "")
        assert (oldest.rule, oldest.phase, oldest.place, oldest.class_name) == ("intruder", "end", "yard", "person")
        assert oldest.event_id == f"gate-{UTC}-intruder-1"
        assert oldest.began_utc_ns == pytest.approx(UTC + 2.8 * NS, abs=0.21 * NS)
        assert oldest.ended_utc_ns is not None
        assert (oldest.ended_utc_ns - oldest.began_utc_ns) / NS == pytest.approx(4.0, abs=0.3)
        assert oldest.duration_s == pytest.approx((oldest.ended_utc_ns - oldest.began_utc_ns) / NS)
        assert (oldest.clip_state, oldest.track_ids, oldest.reason) == ("due", [1], "")
        assert oldest.facts["why"][0].startswith("in yard for 1.0")
        kinds = [(fact.kind, fact.place, fact.direction) for fact in reader.facts("gate", UTC, UTC + 60 * NS)]
        assert kinds == [("visit", "yard", ""), ("crossing", "door", "in")]
        [track] = reader.tracks("gate", UTC, UTC + 60 * NS)
        assert (track.track_id, track.class_name, track.is_last, len(track.path)) == (1, "person", True, 20)
        assert reader.due_clips("engine") == [oldest]
        assert [run.reason for run in reader.source_runs("gate")] == ["engine_stopped"]


def test_what_a_killed_engine_left_open_ends_when_it_was_last_seen(make_place: MakePlace) -> None:
    scene = scenes.watch()
    dead = EventLog(make_place())
    dead.open(scenes.run())
    for number in range(60):
        dead.write(scene.analyse([scenes.packet(number, [scenes.walker(number / scenes.FPS)])])[0])
    dead.tick()
    assert dead._thread is not None
    dead._thread.close(5)  # everything is written, and nothing is ended: what `kill -9` leaves
    with EventReader(make_place()) as reader:
        [left] = reader.events(EventFilter(is_open=True))
    later = scenes.run(UTC + 100 * NS)
    log = keep(make_place(), scenes.walk(first=1000, of=later), of=later)
    with EventReader(make_place()) as reader:
        ended = reader.event(left.event_id)
        assert ended is not None
        assert (ended.reason, ended.phase, ended.ended_utc_ns) == ("engine_killed", "end", UTC + 59 * NS // 10)
        assert list(reader.events(EventFilter(is_open=True))) == []
        [gap] = reader.gaps("gate", UTC, UTC + 1000 * NS)
        assert (gap.from_utc_ns, gap.to_utc_ns, gap.cause) == (UTC + 59 * NS // 10, UTC + 100 * NS, "engine_killed")
        ids = [event.event_id for event in reader.events()]
        assert len(ids) == len(set(ids)) == 4
    assert log.figures().unstored == 0
