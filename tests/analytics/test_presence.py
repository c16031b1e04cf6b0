"""Zones: the objects inside, since when, and until when."""

from __future__ import annotations

import numpy as np
import pytest

from engine.analytics.analytics import Analytics
from engine.analytics.places import Zone
from tests.analytics.scripted import NS, alone, at, found, play, standing, tracks_of, walk

YARD = Zone("yard", [(200, 100), (440, 100), (440, 400), (200, 400)])
INSIDE, OUTSIDE, NEAR = standing(300, 300), standing(150, 300), standing(199, 300)
"""NEAR is outside of the zone, within the margin of 5 % of its height."""


def _scene(*spans: tuple[object, int]) -> list[dict[int, tuple[float, float, float, float]]]:
    return alone([box for box, frames in spans for _ in range(frames)])  # type: ignore[misc]


def test_a_visit_is_told_with_the_times_of_the_first_observations() -> None:
    views = play(Analytics([YARD]), _scene((OUTSIDE, 5), (INSIDE, 20), (OUTSIDE, 20)))
    entered, left = found(views)
    assert (entered.event, left.event) == ("zone_entered", "zone_left")
    assert (entered.began_ns, entered.captured_ns) == (at(5, 10), at(8, 10))  # after enter_s 0.3
    assert (left.began_ns, left.ended_ns, left.captured_ns) == (at(5, 10), at(25, 10), at(35, 10))  # after leave_s 1
    assert left.duration_s == left.data["dwell_s"] == 2.0
    assert (left.reason, left.place, left.track_ids) == ("", "yard", (1,))


@pytest.mark.parametrize(
    ("spans", "visits"),
    [
        pytest.param([(OUTSIDE, 5), (INSIDE, 3), (OUTSIDE, 20)], 0, id="too short to enter"),
        pytest.param([(INSIDE, 10), (OUTSIDE, 9), (INSIDE, 10)], 1, id="a short absence is no exit"),
        pytest.param([(INSIDE, 10), (OUTSIDE, 12), (INSIDE, 10)], 2, id="a long absence is one"),
        pytest.param([(INSIDE, 10), (NEAR, 40), (INSIDE, 10)], 1, id="within the margin nobody leaves"),
        pytest.param([(NEAR, 40)], 0, id="within the margin nobody enters"),
        pytest.param([(INSIDE, 40)], 1, id="begins inside"),
    ],
)
def test_number_of_visits(spans: list[tuple[object, int]], visits: int) -> None:
    analytics = Analytics([YARD])
    play(analytics, _scene(*spans))
    assert analytics.summary()["zones"]["yard"]["visits"] == visits


def test_few_frames_per_second_need_two_observations() -> None:
    analytics = Analytics([YARD])
    views = play(analytics, _scene((OUTSIDE, 2), (INSIDE, 2), (OUTSIDE, 3)), fps=1.0)
    assert [(each.event, each.began_ns, each.ended_ns) for each in found(views)] == [
        ("zone_entered", 2 * NS, None),
        ("zone_left", 2 * NS, 4 * NS),
    ]


def test_an_object_that_is_lost_stays_inside_until_it_ends() -> None:
    analytics = Analytics([YARD])
    views = play(analytics, _scene((INSIDE, 20), (None, 30)), ended={25: [1]})
    assert views[34].occupancy == {"yard": 1}
    (left,) = found(views, "zone_left")
    assert (left.reason, left.ended_ns) == ("track_ended", at(19, 10))
    assert views[-1].occupancy == {"yard": 0}


def test_without_word_from_the_tracker_an_unseen_object_ends_after_a_while() -> None:
    views = play(Analytics([YARD], forget_s=3), _scene((INSIDE, 20), (None, 40)))
    (left,) = found(views, "zone_left")
    assert (left.ended_ns, left.captured_ns) == (at(19, 10), at(50, 10))


def test_predicted_rows_move_nothing_and_keep_a_presence() -> None:
    analytics = Analytics([YARD])
    play(analytics, _scene((INSIDE, 20)))
    for frame in range(20, 60):
        view = analytics.update(tracks_of({1: OUTSIDE}, predicted=[1]), at(frame, 10), (640, 480))
    assert view.occupancy == {"yard": 1}
    assert not view.findings
    assert view.objects.dwell_s[0, 0] == pytest.approx(1.9)


def test_held_frames_prolong_a_presence() -> None:
    analytics = Analytics([YARD])
    play(analytics, _scene((INSIDE, 20)))
    for frame in range(20, 60):
        held = tracks_of({1: INSIDE}, predicted=[1])
        view = analytics.update(held, at(frame, 10), (640, 480), is_detected=False, is_held=True)
    assert view.objects.dwell_s[0, 0] == pytest.approx(5.9)


def test_a_tracker_that_never_tells_what_it_observed_is_believed() -> None:
    from engine.data import Tracks

    analytics = Analytics([YARD])
    for frame in range(20):
        view = analytics.update(Tracks([INSIDE], [0.9], [0], [7]), at(frame, 10), (640, 480))
    assert view.occupancy == {"yard": 1}


@pytest.mark.parametrize(
    ("anchor", "feet_y", "inside"),
    [
        pytest.param("bottom_center", 420, False, id="feet below the zone"),
        pytest.param("center", 420, True, id="middle inside"),
        pytest.param("top_center", 480, True, id="head inside"),
        pytest.param("overlap", 445, True, id="55 % of the area"),
        pytest.param("overlap", 455, False, id="45 % of the area"),
    ],
)
def test_what_must_be_inside(anchor: str, feet_y: float, inside: bool) -> None:
    zone = Zone("yard", YARD.points, anchor=anchor)  # type: ignore[arg-type]
    analytics = Analytics([zone, Zone("other", YARD.points)])
    play(analytics, _scene((standing(300, feet_y), 20)))
    assert analytics.summary()["zones"]["yard"]["visits"] == inside


def test_dwell_of_the_summary_covers_visits_that_go_on() -> None:
    analytics = Analytics([YARD])
    boxes = [{1: INSIDE} if frame < 20 else {2: standing(400, 300)} for frame in range(60)]
    play(analytics, boxes, ended={20: [1]})
    assert analytics.summary()["zones"]["yard"] == {
        "visits": 2,
        "now": 1,
        "dwell_s": {"p50": 2.9, "max": 3.9, "sum": 5.8},
    }


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.03])
def test_an_object_that_stands_on_the_border_enters_once(noise: float) -> None:
    height, border = 100.0, 200.0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        edges = np.array(standing(border, 300, height)) + rng.normal(0, noise * height, (60 * 25, 4))
        analytics = Analytics([YARD], heat=False)
        play(analytics, [{1: tuple(box)} for box in edges.tolist()], fps=25)
        assert analytics.summary()["zones"]["yard"]["visits"] <= 1


def test_two_zones_of_different_size_are_told_apart() -> None:
    house = [(0, 0), (150, 0), (150, 120), (100, 60), (50, 150), (0, 120)]
    analytics = Analytics([YARD, Zone("house", house)])
    play(analytics, alone(walk((20, 300), (620, 300), 60)))
    visits = {name: zone["visits"] for name, zone in analytics.summary()["zones"].items()}
    assert visits == {"yard": 1, "house": 0}
