from __future__ import annotations

import json

import numpy as np
import pytest

from engine.analytics.analytics import Analytics
from engine.analytics.counters import Dwell
from engine.analytics.places import Line, Zone
from engine.errors import ConfigError
from tests.analytics.scripted import SIZE, alone, at, play, standing, tracks_of, walk

ALL = Zone("all", [(0, 0), (640, 0), (640, 480), (0, 480)])
DOOR = Line("door", [(320, 480), (320, 0)])
HOUR = 3_600_000_000_000


def _walked() -> Analytics:
    analytics = Analytics([ALL], [DOOR])
    play(analytics, alone([*walk((200, 300), (440, 300), 30), *[None] * 40]), ended={31: [1]})
    return analytics


def test_totals_survive_a_restart() -> None:
    before = _walked()
    state = json.loads(json.dumps(before.state()))
    after = Analytics([ALL], [DOOR])
    after.restore(state)
    assert after.summary() == before.summary()
    play(after, alone(walk((200, 300), (440, 300), 30)))
    assert after.summary()["lines"]["door"] == {"left_to_right": 2, "right_to_left": 0}
    assert after.heat()["0"].sum() == pytest.approx(2 * before.heat()["0"].sum(), rel=0.01)


def test_a_state_that_is_made_later_is_that_of_its_own_time() -> None:
    analytics = _walked()
    expected, later = json.dumps(analytics.state(), sort_keys=True), analytics.state_now()
    for number, boxes in enumerate(alone([*walk((200, 300), (440, 300), 30), *[None] * 40], 2), 100):
        analytics.update(tracks_of(boxes), at(number, 10), SIZE, ended=[2] if number == 131 else [])
    assert json.dumps(later(), sort_keys=True) == expected
    assert later() is later()
    assert json.dumps(analytics.state(), sort_keys=True) != expected


def test_parked_places_survive_a_restart_and_a_change_of_resolution() -> None:
    before, car = Analytics([ALL]), (300, 200, 420, 280)
    play(before, [{1: car}] * 700)
    after = Analytics([ALL])
    after.restore(json.loads(json.dumps(before.state())))
    double = tuple(2 * side for side in car)
    for frame in range(20):
        view = after.update(tracks_of({1: double}), at(frame, 10), (1280, 960))
    assert view.objects.parked.tolist() == [True]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"version": 99}, id="another version"),
        pytest.param({"counters": {"version": 1}}, id="a part is missing"),
        pytest.param({"counters": 3}, id="another type"),
        pytest.param({"parked": [[1, 2]]}, id="half a box"),
        pytest.param({"size_wh": [1]}, id="half a size"),
        pytest.param({"heat": {"0": [[99999, 1]]}}, id="a cell that is not there"),
        pytest.param({"heat": {"0": [["x", 1]]}}, id="a cell that is no number"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(damage: dict[str, object]) -> None:
    analytics = Analytics([ALL], [DOOR])
    with pytest.raises(ConfigError, match="remove the file"):
        analytics.restore({**_walked().state(), **damage})
    assert analytics.summary() == Analytics([ALL], [DOOR]).summary()
    play(analytics, alone(walk((200, 300), (440, 300), 30)))


def test_totals_begin_at_zero_at_the_time_of_the_site() -> None:
    analytics = Analytics([ALL], [DOOR], timezone="Europe/Vienna", reset_at="00:00")
    start = 1_764_536_100_000_000_000  # 30 November 2025, 21:55 in Vienna
    boxes = [*walk((200, 300), (440, 300), 20)]
    for frame, box in enumerate(boxes):
        view = analytics.update(tracks_of({1: box}), at(frame, 10), SIZE, utc_ns=start + at(frame, 10))
    assert view.totals["door"]["left_to_right"] == 1
    view = analytics.update(tracks_of({}), at(20, 10), SIZE, utc_ns=start + HOUR)
    assert view.totals["door"]["left_to_right"] == 1
    view = analytics.update(tracks_of({}), at(21, 10), SIZE, utc_ns=start + 2 * HOUR + HOUR // 5)
    assert view.totals["door"]["left_to_right"] == 0
    assert analytics.counters.since_utc_ns == start + 2 * HOUR + HOUR // 5


def test_a_restart_over_midnight_begins_at_zero() -> None:
    analytics, start = Analytics([ALL], [DOOR], reset_at="00:00"), 1_764_536_100_000_000_000
    for frame, box in enumerate(walk((200, 300), (440, 300), 20)):
        analytics.update(tracks_of({1: box}), at(frame, 10), SIZE, utc_ns=start + at(frame, 10))
    for hours, total in ((1, 1), (24, 0)):
        other = Analytics([ALL], [DOOR], reset_at="00:00")
        other.restore(analytics.state())
        view = other.update(tracks_of({}), 0, SIZE, utc_ns=start + hours * HOUR)
        assert view.totals["door"]["left_to_right"] == total


def test_the_median_of_many_visits_takes_no_memory() -> None:
    rng = np.random.default_rng(1)
    values = rng.lognormal(3, 1, 20_000)
    dwell = Dwell()
    for value in values:
        dwell.add(float(value))
    assert dwell.median_s() == pytest.approx(float(np.median(values)), rel=0.005)
    assert dwell.count == 20_000
    assert dwell.max_s == values.max()
    assert len(json.dumps(dwell.state())) < 100_000
    copy = Dwell()
    copy.restore(json.loads(json.dumps(dwell.state())))
    assert copy.median_s() == dwell.median_s()


def test_heat_is_in_seconds_at_any_frame_rate() -> None:
    for fps in (2.0, 25.0):
        analytics = Analytics()
        play(analytics, alone([standing(320, 240)] * round(10 * fps + 1)), fps=fps)
        heat = analytics.heat()["0"]
        assert heat.shape == (36, 64)
        assert heat[18, 32] == pytest.approx(10, rel=0.01)
        assert heat.sum() == heat[18, 32]


def test_counts_from_elsewhere_are_added_and_shown_on_the_next_frame() -> None:
    analytics = _walked()
    counts = {
        ("door", "left_to_right", "person"): 3,
        ("door", "upwards", "person"): 9,  # no direction of this line
        ("all", "visit", "person"): 4,
        ("gone", "visit", "person"): 5,  # a place that is no longer there
    }
    visits = analytics.counters.visits["all"].total()
    analytics.counters.add(counts, 7)
    view = analytics.update(tracks_of({}), at(100, 10), SIZE)
    assert view.totals == {"door": {"left_to_right": 4, "right_to_left": 0}}
    assert view.visits == {"all": visits + 4}
    assert view.since_utc_ns == 7
