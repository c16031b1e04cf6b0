"""Times, ids and ends of episodes: on the wire and in the log."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine.analytics.analytics import Analytics
from engine.analytics.findings import Finding
from engine.analytics.places import Zone
from engine.analytics.rules import Blind, Presence
from engine.analytics.view import View
from engine.data import Packet, SourceStatus
from engine.events.log import EventLog
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventFilter, EventReader
from engine.events.store.rows import EventRow
from tests.events import scenes
from tests.events.scenes import FPS, NS, UTC
from tests.events.test_log import keep

HOUR = 3600 * NS


def stored(place: StorePlace) -> list[EventRow]:
    with EventReader(place) as reader:
        return sorted(reader.events(), key=lambda row: row.event_id)


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["+1 h", "-1 h"])
def test_a_clock_step_during_an_episode_moves_neither_begin_nor_duration(tmp_path: Path, step: int) -> None:
    plain = StorePlace(tmp_path / "plain")
    keep(plain, scenes.walk())
    scene, stepped = scenes.watch(), StorePlace(tmp_path / "stepped")
    packets = [
        scene.analyse([scenes.packet(n, [scenes.walker(n / FPS)], step_ns=step if n > 50 else 0)])[0] for n in range(95)
    ]
    keep(stepped, packets)
    [before] = [row for row in stored(plain) if row.rule == "intruder"]
    [after] = [row for row in stored(stepped) if row.rule == "intruder"]
    assert (after.began_utc_ns, after.ended_utc_ns, after.duration_s) == (
        before.began_utc_ns,
        before.ended_utc_ns,
        before.duration_s,
    )
    with EventReader(stepped) as reader:
        assert sum(row.n for row in reader.counts("gate", 0, 2**62)) == 2


def test_a_file_has_the_same_times_however_fast_it_is_read(tmp_path: Path) -> None:
    found = []
    for number, speed in enumerate((1.0, 7.5)):
        run = scenes.run(UTC)
        scene, packets = scenes.watch(), []
        for n in range(95):
            at = n * NS // FPS
            read_ns = int(at / speed)
            made = scenes.packet(
                n,
                [scenes.walker(n / FPS)],
                of=run,
                captured_source="file",
                pts_ns=at,
                captured_ns=read_ns,
                captured_utc_ns=UTC + 55 * NS + read_ns,
            )
            packets.append(scene.analyse([made])[0])
        place = StorePlace(tmp_path / str(number))
        keep(place, packets, of=run)
        found.append([dataclasses.replace(row, changed=0) for row in stored(place)])
    assert found[0] == found[1]
    [intruder] = [row for row in found[0] if row.rule == "intruder"]
    assert UTC + 2 * NS < intruder.began_utc_ns < UTC + 4 * NS


def test_a_restarted_stream_ends_episodes_at_the_last_observation(place: StorePlace) -> None:
    scene, log = scenes.watch(), EventLog(place)
    log.open(scenes.run())
    for n in range(60):
        log.write(scene.analyse([scenes.packet(n, [scenes.walker(n / FPS)])])[0])
    scene.reset("gate", "stream_restarted")
    log.write(scene.analyse([scenes.packet(600, [], stream_epoch=1)])[0])  # 54 s later
    log.close()
    [intruder] = [row for row in stored(place) if row.rule == "intruder"]
    assert (intruder.reason, intruder.phase) == ("stream_restarted", "end")
    assert intruder.ended_utc_ns == UTC + 59 * NS // 10


def test_a_restarted_stream_ends_no_episode_about_the_source() -> None:
    scene = Analytics([Zone("yard", [(0, 0), (1, 0), (1, 1)])], [], [Blind("dark", for_s=1)])
    packet = scenes.packet(0)
    scene.update(packet.tracks, 0, (200, 100), utc_ns=UTC)
    scene.source_is(live=False, captured_ns=0)
    view = scene.tick(5 * NS, UTC)
    assert view is not None
    assert [finding.phase for finding in view.findings] == ["begin"]
    assert [finding.rule for finding in scene.reset("stream_restarted") if finding.rule] == []
    assert [finding.rule for finding in scene.open] == ["dark"]
    back = scene.update(packet.tracks, 9 * NS, (200, 100), utc_ns=UTC)
    assert [finding.phase for finding in back.findings if finding.rule] == ["end"]


def test_ids_do_not_repeat_when_rules_are_edited_while_episodes_are_open(place: StorePlace) -> None:
    """Valid edits end episodes honestly; the configuration refuses nonsense as a whole (tests of `Reconfigurer`)."""
    scene, log = scenes.watch(), EventLog(place)
    log.open(scenes.run())
    zone = Zone("yard", [(0.3, 0), (0.7, 0), (0.7, 1), (0.3, 1)])
    ids: list[str] = []
    for n in range(200):
        if n in (60, 100, 140):
            rule = Presence("intruder", zone="yard", for_s=0.3 + n / 1000, severity="alert")
            scene.change("gate", [zone], [], [rule] if n != 100 else [])
        packet = scene.analyse([scenes.packet(n, [scenes.walker(5.0)])])[0]
        ids += [f"{finding.rule}-{finding.number}" for finding in packet.findings if finding.phase == "begin"]
        log.write(packet)
    log.close()
    assert ids == ["intruder-1", "intruder-2", "intruder-3"]
    rows = stored(place)
    assert [row.reason for row in rows] == ["rule_changed", "rule_changed", "engine_stopped"]
    assert not [row for row in rows if row.ended_utc_ns is None]


@dataclass
class Own:
    """A custom rule that numbers nothing and never ends its second episode."""

    name: str = "own"
    calls: int = 0

    def update(self, view: View) -> Iterator[Finding]:
        self.calls += 1
        if self.calls in (2, 4):
            yield Finding("rule_began", view.captured_ns, "begin", began_ns=view.captured_ns, identity=self.calls)
        if self.calls == 3:
            yield Finding("rule_ended", view.captured_ns, "end", began_ns=0, ended_ns=view.captured_ns, identity=2)
        if self.calls in (5, 6):
            yield Finding("rule_began", view.captured_ns, "point", severity="notice")


def test_a_custom_rule_needs_no_numbers_and_leaves_nothing_open(place: StorePlace) -> None:
    scene = scenes.watch(Own())
    packets = [scene.analyse([scenes.packet(n, of=scenes.run())])[0] for n in range(10)]
    keep(place, packets)
    rows = stored(place)
    assert [(row.event_id.removeprefix(f"gate-{UTC}-"), row.phase, row.reason) for row in rows] == [
        ("own-1", "end", ""),
        ("own-2", "end", "engine_stopped"),
        ("own-3", "point", ""),
        ("own-4", "point", ""),
    ]
    assert rows[1].ended_utc_ns == UTC + 9 * NS // 10


def test_a_source_that_ends_and_comes_back_is_kept_as_two_spans(place: StorePlace) -> None:
    scene, log = scenes.watch(), EventLog(place)
    log.open(scenes.run())
    for n in range(60):
        log.write(scene.analyse([scenes.packet(n, [scenes.walker(n / FPS)])])[0])
    log.status(scene.status(scenes.ended()))
    with_gap = [scenes.packet(n, [scenes.walker((n - 100) / FPS)]) for n in range(100, 160)]
    for packet in with_gap[:30]:
        log.write(scene.analyse([packet])[0])
    log.status(scenes.state("offline"))
    log.status(scenes.state("connecting"))
    for packet in with_gap[40:]:
        log.write(scene.analyse([packet])[0])
    log.close()
    with EventReader(place) as reader:
        assert [run.reason for run in reader.source_runs("gate")] == ["engine_stopped"]
        [gap] = reader.gaps("gate", UTC, UTC + 100 * NS)
        assert (gap.cause, gap.from_utc_ns) == ("offline", UTC + 129 * NS // 10)
        assert gap.to_utc_ns == UTC + 140 * NS // 10
        assert not list(reader.events(EventFilter(is_open=True)))


def test_a_thousand_tracks_at_once(place: StorePlace) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 80, (1000, 2)) * (2, 0.5)
    zone = Zone("all", [(0, 0), (1, 0), (1, 1), (0, 1)], enter_s=0)
    rule = Presence("intruder", zone="all", for_s=0.1, severity="alert")
    scene = scenes.SceneAnalyser(Analytics([zone], [], [rule]))
    boxes = [(x, y, x + 4.0, y + 10.0) for x, y in corners.tolist()]
    packets: Iterator[Packet] = (scene.analyse([scenes.packet(n, boxes)])[0] for n in range(12))
    log = keep(place, packets, close=False)
    status: SourceStatus = scene.status(scenes.ended())
    log.status(status)
    log.close()
    with EventReader(place) as reader:
        rows = list(reader.events())
        assert len(rows) == len({row.event_id for row in rows}) > 500
        assert {row.reason for row in rows} == {"engine_stopped"}
        assert len(list(reader.tracks("gate", UTC, UTC + 100 * NS))) == 1000
    assert log.figures().lost == {}


def test_thousands_of_events_at_once_lose_none(place: StorePlace) -> None:
    """More than 500 a second for several seconds, faster than any scene."""
    scene, log = scenes.watch(), EventLog(place)
    log.open(scenes.run())
    packet = scene.analyse([scenes.packet(0)])[0]
    made = [
        Finding("rule_began", 0, "point", rule="busy", severity="alert", number=n, began_ns=n * 1000)
        for n in range(1, 4001)
    ]
    view = dataclasses.replace(packet.analytics, findings=tuple(made))
    log.write(packet.with_analysis("analytics", view))
    log.close()
    assert (log.figures().stored, log.figures().lost) == (4000, {})
    with EventReader(place) as reader:
        assert sum(reader.totals().values()) == 4000
