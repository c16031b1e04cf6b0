"""What each kind of rule finds, on scripted scenes at 10 fps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.analytics.analytics import Analytics
from engine.analytics.findings import Finding
from engine.analytics.places import Ground, Line, Zone
from engine.analytics.rules import (
    KINDS,
    Blind,
    Close,
    Count,
    Crossed,
    Direction,
    LeftBehind,
    Loiter,
    Presence,
    Removed,
    Rule,
    Sequence,
    Speed,
    Stopped,
)
from engine.analytics.rules.schedule import Schedule
from engine.data import Tracks
from engine.errors import ConfigError
from tests.analytics.scripted import SIZE, Box, alone, at, play, standing, tracks_of, walk

YARD = Zone("yard", [(200, 100), (440, 100), (440, 400), (200, 400)])
ALL = Zone("all", [(0, 0), (640, 0), (640, 480), (0, 480)])
ROAD = Zone(
    "road",
    [(0, 0), (640, 0), (640, 480), (0, 480)],
    ground=Ground([(0, 480), (640, 480), (640, 0), (0, 0)], [(0, 0), (64, 0), (64, 48), (0, 48)]),
)
LINES = [Line("a", [(250, 480), (250, 0)]), Line("b", [(400, 480), (400, 0)])]
IN, OUT = standing(300, 300), standing(150, 300)
PERSON, BAG = 0, 24
NAMES = tuple("person" if n == PERSON else "suitcase" if n == BAG else f"class{n}" for n in range(80))


def _run(rule: Any, frames: list[dict[int, Box]], **keywords: Any) -> list[Finding]:
    analytics = Analytics([YARD, ALL, ROAD], LINES, [rule])
    views = play(analytics, frames, **keywords)
    return [finding for view in views for finding in view.findings if finding.rule]


def _told(findings: list[Finding]) -> list[tuple[str, float]]:
    """Return phase and second of each finding."""
    return [(finding.phase, finding.captured_ns / 1e9) for finding in findings]


def _spans(*spans: tuple[Box | None, int]) -> list[dict[int, Box]]:
    return alone([box for box, frames in spans for _ in range(frames)])  # type: ignore[return-value]


def test_presence_begins_after_its_time_and_ends_when_the_object_leaves() -> None:
    rule = Presence("p", zone="yard", for_s=2, severity="alert")
    begin, end = _run(rule, _spans((OUT, 10), (IN, 50), (OUT, 40)))
    assert _told([begin, end]) == [("begin", 3.0), ("end", 7.0)]
    assert (begin.began_ns, begin.severity, begin.place, begin.number) == (at(10, 10), "alert", "yard", 1)
    assert begin.why == ("in yard for 2.00 s >= for_s 2",)
    assert begin.identity == end.identity == 1
    assert (end.began_ns, end.ended_ns, end.duration_s, end.number) == (at(10, 10), at(60, 10), 5.0, 1)


def test_an_object_that_is_lost_before_its_time_begins_nothing() -> None:
    assert not _run(Presence("p", zone="yard", for_s=2), _spans((IN, 15), (None, 40)))


@pytest.mark.parametrize(
    ("absent", "episodes"),
    [pytest.param(20, 1, id="short absence"), pytest.param(45, 2, id="long absence")],
)
def test_loitering_goes_on_over_a_short_absence(absent: int, episodes: int) -> None:
    near = standing(185, 300)
    rule = Loiter("l", zone="yard", for_s=5, absence_s=3)
    findings = _run(rule, _spans((IN, 40), (near, absent), (IN, 60), (near, 50)))
    begins = [finding for finding in findings if finding.phase == "begin"]
    if episodes == 1:
        assert _told(findings) == [("begin", 6.3), ("end", 15.1)]
        assert begins[0].began_ns == 0
        assert findings[1].ended_ns == at(120, 10)
    else:
        assert _told(findings) == [("begin", 13.5), ("end", 17.6)]
        assert begins[0].began_ns == at(85, 10)


def test_count_begins_and_clears_with_delay() -> None:
    def people(n: int) -> dict[int, Box]:
        return {each: standing(210 + 40 * each, 300) for each in range(1, n + 1)}

    frames = [people(2)] * 20 + [people(4)] * 30 + [people(5)] * 30 + [people(3)] * 40
    findings = _run(Count("c", zone="yard", at_least=4, for_s=1, clear_s=2), frames, ended={80: [4, 5]})
    # entering takes 0.3 s; those who vanish go 1.6 s after their last observation
    assert _told(findings) == [("begin", 3.3), ("update", 5.3), ("end", 11.5)]
    assert findings[0].began_ns == at(23, 10)
    assert findings[1].data["count"] == 5


def test_nobody_there_for_a_while_is_a_count_too() -> None:
    findings = _run(Count("empty", zone="yard", at_most=0, for_s=2), _spans((None, 40), (IN, 40)))
    assert _told(findings) == [("begin", 2.0), ("end", 6.3)]


def test_time_without_live_frames_does_not_count() -> None:
    analytics = Analytics([YARD], [], [Count("empty", zone="yard", at_most=0, for_s=10)])
    play(analytics, [{}] * 50)
    analytics.source_is(live=False, captured_ns=at(50, 10))
    assert not analytics.update(tracks_of({}), at(350, 10), SIZE).findings
    for frame in range(351, 420):
        view = analytics.update(tracks_of({}), at(frame, 10), SIZE)
        if view.findings:
            break
    assert frame == 400
    assert analytics.summary()["blind_s"] == 30.0


@pytest.mark.parametrize(
    ("direction", "found"), [(None, ["left_to_right", "right_to_left"]), ("right_to_left", ["right_to_left"])]
)
def test_a_crossing_is_a_point(direction: str | None, found: list[str]) -> None:
    there, back = list(walk((200, 300), (300, 300), 15)), list(walk((300, 300), (200, 300), 15))
    findings = _run(Crossed("x", line="a", direction=direction), alone([*there, *back]))
    assert [finding.direction for finding in findings] == found
    assert {finding.phase for finding in findings} == {"point"}


@pytest.mark.parametrize(
    ("end", "steps", "within", "found"),
    [
        pytest.param((500, 300), ("a", "b"), 10, 1, id="both in order"),
        pytest.param((500, 300), ("b", "a"), 10, 0, id="other order"),
        pytest.param((500, 300), ("a:left_to_right", "b:left_to_right"), 10, 1, id="with directions"),
        pytest.param((500, 300), ("a:right_to_left", "b"), 10, 0, id="other direction"),
        pytest.param((500, 300), ("a", "b"), 1, 0, id="too slow"),
        pytest.param((300, 300), ("a", "b"), 10, 0, id="only the first"),
    ],
)
def test_a_sequence(end: tuple[float, float], steps: tuple[str, ...], within: float, found: int) -> None:
    rule = Sequence("s", lines=steps, within_s=within)
    assert len(_run(rule, alone(walk((200, 300), end, 60)))) == found


@pytest.mark.parametrize(
    ("target", "forbidden", "found"),
    [
        pytest.param((500, 300), 0, True, id="to the right"),
        pytest.param((500, 300), 180, False, id="not to the left"),
        pytest.param((300, 450), 90, True, id="down"),
        pytest.param((300, 150), -90, True, id="up"),
        pytest.param((310, 300), 0, False, id="hardly moves"),
        pytest.param((450, 450), 0, True, id="aslant, within the tolerance"),
    ],
)
def test_wrong_way(target: tuple[float, float], forbidden: float, found: bool) -> None:
    rule = Direction("w", zone="all", forbidden_deg=forbidden, tolerance_deg=60, for_s=1)
    findings = _run(rule, alone(walk((150 if forbidden == 180 else 300, 300), target, 60)))
    assert bool(findings) is found


def test_two_headings_of_a_circle_are_close_over_zero() -> None:
    rule = Direction("w", zone="all", forbidden_deg=350, tolerance_deg=30, for_s=1)
    assert _run(rule, alone(walk((200, 300), (500, 310), 60)))


@pytest.mark.parametrize(
    ("rule", "kmh", "found"),
    [
        pytest.param(Speed("v", zone="road", over_kmh=20), 25, True, id="over"),
        pytest.param(Speed("v", zone="road", over_kmh=20), 15, False, id="not over"),
        pytest.param(Speed("v", zone="road", under_kmh=10), 5, True, id="under"),
        pytest.param(Speed("v", zone="road", under_kmh=10), 15, False, id="not under"),
    ],
)
def test_speed_on_the_road(rule: Speed, kmh: float, found: bool) -> None:
    metres_per_frame = kmh / 3.6 / 10
    frames = alone([standing(100 + 10 * metres_per_frame * n, 300) for n in range(60)])
    findings = _run(rule, frames)
    assert bool(findings) is found
    if found:
        assert "km/h" in findings[0].why[0]


def test_a_slower_car_ends_the_episode_after_two_seconds() -> None:
    fast = [standing(100 + 7 * n, 300) for n in range(30)]
    slow = [standing(310 + 2 * n, 300) for n in range(60)]
    begin, *updates, end = _run(Speed("v", zone="road", over_kmh=20), alone([*fast, *slow]))
    assert (begin.phase, end.phase) == ("begin", "end")
    assert end.captured_ns - (end.ended_ns or 0) == 2_000_000_000
    assert all(update.phase == "update" for update in updates)


@pytest.mark.parametrize("zone", ["all", "road"])
def test_stopped_begins_only_after_a_move_and_ends_with_one(zone: str) -> None:
    stand = standing(300, 300)
    assert not _run(Stopped("s", zone=zone, for_s=3), _spans((stand, 100)))
    arrives, leaves = list(walk((150, 300), (300, 300), 20)), list(walk((300, 300), (450, 300), 20))
    findings = _run(Stopped("s", zone=zone, for_s=3), alone([*arrives, *[stand] * 60, *leaves]))
    assert [finding.phase for finding in findings] == ["begin", "end"]
    assert findings[0].captured_ns / 1e9 == pytest.approx(4.6, abs=0.6)
    assert findings[1].captured_ns / 1e9 == pytest.approx(8.6, abs=0.5)


@pytest.mark.parametrize(
    ("rule", "gap", "found"),
    [
        pytest.param(Close("c", heights=0.8, for_s=1), 60, True, id="in heights"),
        pytest.param(Close("c", heights=0.8, for_s=1), 120, False, id="too far in heights"),
        pytest.param(Close("c", metres=7, for_s=1), 60, True, id="in metres"),
        pytest.param(Close("c", metres=5, for_s=1), 60, False, id="too far in metres"),
        pytest.param(Close("c", heights=0.8, for_s=1, zone="yard"), 60, False, id="not both in the zone"),
    ],
)
def test_two_objects_are_close(rule: Close, gap: float, found: bool) -> None:
    apart = {1: standing(180, 300), 2: standing(180 + 300, 300)}
    together = {1: standing(180, 300), 2: standing(180 + gap, 300)}
    findings = _run(rule, [together] * 30 + [apart] * 10)
    assert [finding.phase for finding in findings] == (["begin", "end"] if found else [])
    if found:
        assert findings[0].track_ids == (1, 2)


def test_close_may_ask_for_two_classes() -> None:
    rule = Close("c", heights=1, for_s=0.5, classes=["person"], to_classes=["suitcase"])
    analytics = Analytics([], [], [rule], class_names=NAMES)
    boxes = [standing(200, 300), standing(240, 300), standing(260, 300, 50)]
    for frame in range(20):
        tracks = Tracks(boxes, [0.9] * 3, [PERSON, PERSON, BAG], [1, 2, 3], None, [0, 1, 2])
        view = analytics.update(tracks, at(frame, 10), SIZE)
    assert {finding.track_ids for finding in analytics.open} == {(1, 3), (2, 3)}
    assert not view.findings


def test_a_blind_source_is_told_while_no_frames_come() -> None:
    analytics = Analytics([YARD], [], [Blind("b", for_s=5)])
    play(analytics, [{}] * 10)
    analytics.source_is(live=False, captured_ns=at(10, 10))
    phases = []
    for second in range(2, 12):
        view = analytics.tick(second * 1_000_000_000)
        assert view is not None
        phases += [(finding.phase, second) for finding in view.findings]
    assert phases == [("begin", 6)]
    end = analytics.update(tracks_of({}), 12_000_000_000, SIZE).findings[0]
    assert (end.phase, end.duration_s) == ("end", 11.0)


def _luggage(frames: int, bringer_leaves: int | None, *, returns: int | None = None) -> list[Finding]:
    """Return what is found of a suitcase that a person puts down at 2 s."""
    rule = LeftBehind("bag", classes=["suitcase"], for_s=5)
    analytics, told = Analytics([], [], [rule], class_names=NAMES), []
    for frame in range(frames):
        x = 300.0
        if bringer_leaves is not None and frame > bringer_leaves:
            x = min(300.0 + 8 * (frame - bringer_leaves), 600.0)
        if returns is not None and frame > returns:
            x = 320.0
        boxes, classes, ids = [standing(x, 300)], [PERSON], [1]
        if frame >= 20:
            boxes, classes, ids = [*boxes, standing(330, 305, 40, 30)], [PERSON, BAG], [1, 2]
        index = list(range(len(ids)))
        view = analytics.update(Tracks(boxes, [0.9] * len(ids), classes, ids, None, index), at(frame, 10), SIZE)
        told += list(view.findings)
    return told


def test_a_suitcase_is_left_behind_when_the_one_who_brought_it_has_gone() -> None:
    (begin,) = _luggage(200, 60)
    assert (begin.phase, begin.class_name, begin.data) == ("begin", "suitcase", {"bringer": 1})
    assert begin.captured_ns / 1e9 == pytest.approx(6 + 3.1 + 5, abs=0.3)


def test_a_suitcase_beside_its_owner_is_not_left_behind() -> None:
    assert not _luggage(300, None)


def test_the_owner_comes_back() -> None:
    begin, end = _luggage(300, 60, returns=220)
    assert (begin.phase, end.phase, end.reason) == ("begin", "end", "bringer_returned")


def test_a_suitcase_that_was_always_there_is_not_left_behind() -> None:
    analytics = Analytics([], [], [LeftBehind("bag", classes=["suitcase"], for_s=5)], class_names=NAMES)
    for frame in range(200):
        view = analytics.update(tracks_of({2: standing(330, 305, 40, 30)}, class_id=BAG), at(frame, 10), SIZE)
        assert not view.findings


def _statue(covered: bool, *, back: bool = False) -> list[Finding]:
    """Return what is found of a suitcase that stands for 80 s and is then gone, perhaps behind a person."""
    rule = Removed("gone", classes=["suitcase"], stood_s=60, for_s=5)
    analytics, told = Analytics([], [], [rule], class_names=NAMES), []
    place, person = standing(330, 305, 40, 30), standing(330, 320)
    for frame in range(1000):
        boxes, classes, ids = [standing(100, 300)], [PERSON], [1]
        if frame < 800 or (back and frame > 830):
            boxes, classes, ids = [*boxes, place], [*classes, BAG], [*ids, 2 if frame < 800 else 9]
        if covered and frame >= 790:
            boxes, classes, ids = [*boxes, person], [*classes, PERSON], [*ids, 10]
        tracks = Tracks(boxes, [0.9] * len(ids), classes, ids, None, list(range(len(ids))))
        view = analytics.update(tracks, at(frame, 10), SIZE, ended=[2] if frame == 810 else [])
        told += list(view.findings)
    return told


def test_a_thing_that_stood_and_is_gone_was_removed() -> None:
    (point,) = _statue(False)
    assert (point.phase, point.class_name, point.ended_ns) == ("point", "suitcase", at(800, 10))
    assert point.captured_ns == at(850, 10)


def test_a_thing_behind_a_person_or_found_again_was_not_removed() -> None:
    assert not _statue(True)
    assert not _statue(False, back=True)


@pytest.mark.parametrize(("hour", "begins"), [(12, False), (22, True)])
def test_a_schedule_decides_whether_an_episode_may_begin(hour: int, begins: bool) -> None:
    midnight = 1_767_567_600_000_000_000  # 5 January 2026 in Vienna, a Monday
    rule = Presence("p", zone="yard", for_s=1, schedule=Schedule(("mon",), "18:00", "07:00"))
    analytics = Analytics([YARD], [], [rule], timezone="Europe/Vienna")
    for frame in range(30):
        utc_ns = midnight + hour * 3_600_000_000_000 + at(frame, 10)
        analytics.update(tracks_of({1: IN}), at(frame, 10), SIZE, utc_ns=utc_ns)
    assert bool(analytics.open) is begins
    if begins:
        assert analytics.open[0].why[-1] == "schedule mon 18:00-07:00"


def test_a_schedule_needs_the_wall_clock() -> None:
    with pytest.raises(ConfigError, match="utc_ns"):
        _run(Presence("p", zone="yard", schedule=Schedule()), _spans((IN, 30)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: Presence("p", zone="yrad"), "unknown zone 'yrad'; expected one of: yard", id="zone"),
        pytest.param(lambda: Crossed("p", line="c"), "unknown line", id="line"),
        pytest.param(lambda: Crossed("p", line="a", direction="in"), "unknown direction", id="direction"),
        pytest.param(lambda: Sequence("p", lines=["a"]), "two or more", id="one line"),
        pytest.param(lambda: Sequence("p", lines=["a:up", "b"]), "unknown direction", id="direction of a sequence"),
        pytest.param(lambda: Count("p", zone="yard"), "at_least or at_most", id="count of nothing"),
        pytest.param(lambda: Count("p", zone="yard", at_least=0), "at_least", id="at least nobody"),
        pytest.param(lambda: Speed("p", zone="yard", over_kmh=3), "no ground", id="no ground"),
        pytest.param(lambda: Speed("p", zone="road"), "over_kmh and under_kmh", id="no limit"),
        pytest.param(lambda: Close("p"), "heights and metres", id="no distance"),
        pytest.param(lambda: Presence("p", zone="yard", for_s=-1), "for_s", id="negative time"),
        pytest.param(lambda: Presence("p", zone="yard", severity="bad"), "severity", id="severity"),  # type: ignore[arg-type]
        pytest.param(lambda: Presence("p q/", zone="yard"), "name", id="name"),
        pytest.param(lambda: Direction("p", zone="yard", forbidden_deg=999), "forbidden_deg", id="angle"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Analytics([YARD, ROAD], LINES, [make()])


def test_every_kind_has_a_name_and_keeps_its_configuration_apart_from_its_memory() -> None:
    assert len(KINDS) == 12
    for kind, rule in KINDS.items():
        assert issubclass(rule, Rule)
        assert rule.kind == kind
        private = [name for name, field in rule.__dataclass_fields__.items() if name.startswith("_") and name != "_"]
        assert not any(rule.__dataclass_fields__[name].compare for name in private)


def test_an_engine_that_stops_ends_all_episodes() -> None:
    analytics = Analytics([YARD], [], [Presence("p", zone="yard", for_s=1)])
    play(analytics, _spans((IN, 30)))
    left, end = analytics.finish()
    assert (left.event, left.reason, left.ended_ns) == ("zone_left", "engine_stopped", at(29, 10))
    assert (end.phase, end.reason, end.ended_ns) == ("end", "engine_stopped", at(29, 10))
    assert not analytics.open
    assert np.count_nonzero(analytics.summary()["zones"]["yard"]["visits"]) == 1
