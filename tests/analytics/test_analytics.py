"""Analytics as a whole: user rules, changes while running, resets, frames of other sizes, long runs."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.analytics.analytics import Analytics
from engine.analytics.findings import Finding
from engine.analytics.places import Line, Zone
from engine.analytics.rules import Count, Presence, UserRule
from engine.analytics.view import View
from engine.data import Tracks
from engine.errors import ConfigError
from tests.analytics.scripted import SIZE, alone, at, found, play, standing, tracks_of, walk

YARD = Zone("yard", [(200, 100), (440, 100), (440, 400), (200, 400)])
DOOR = Line("door", [(320, 480), (320, 0)])
IN = standing(300, 300)


class Pairs:
    """A rule as a user writes it: two objects near each other in the yard."""

    def __init__(self) -> None:
        self.frames = 0

    def update(self, view: View) -> Iterator[Finding]:
        self.frames += 1
        if view.relations.near.any() and len(view.stays("yard")) == 2:
            yield Finding("met", view.captured_ns, why=(f"frame {self.frames}",), place="yard")


def test_a_rule_of_ones_own_reads_the_view_and_its_findings_are_counted() -> None:
    rule = Pairs()
    assert isinstance(rule, UserRule)
    analytics = Analytics([YARD], [], [rule])
    views = play(analytics, [{1: IN, 2: standing(340, 300)}] * 10)
    met = found(views, "met")
    assert [finding.rule for finding in met] == ["Pairs"] * len(met)
    assert met[0].why == ("frame 4",)
    assert analytics.summary()["rules"] == {"Pairs": len(met)}
    assert rule.frames == 0  # each source has its own copy


def test_a_clone_has_the_same_places_and_no_memory() -> None:
    analytics = Analytics([YARD], [DOOR], [Presence("p", zone="yard"), Pairs()], class_names=("person",))
    play(analytics, [{1: IN, 2: standing(340, 300)}] * 10)
    other = analytics.clone()
    assert (other.zones, other.lines, other.class_names) == (analytics.zones, analytics.lines, ("person",))
    views = play(other, [{1: IN, 2: standing(340, 300)}] * 10)
    assert found(views, "met")[0].why == ("frame 4",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: Analytics([YARD, YARD]), "two zones", id="two zones of one name"),
        pytest.param(lambda: Analytics([], [DOOR, DOOR]), "two lines", id="two lines of one name"),
        pytest.param(lambda: Analytics([YARD], [], [Presence("p", zone="yard")] * 2), "two rules", id="two rules"),
        pytest.param(lambda: Analytics(timezone="Nowhere"), "time zone", id="time zone"),
        pytest.param(lambda: Analytics(reset_at="99:00"), "reset_at", id="time of day"),
        pytest.param(lambda: Analytics(forget_s=-1), "forget_s", id="negative time"),
    ],
)
def test_what_cannot_work_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_names_of_classes_must_be_known_where_a_place_asks_for_them() -> None:
    analytics = Analytics([Zone("yard", YARD.points, classes=["person"])])
    with pytest.raises(ConfigError, match="class_names"):
        analytics.update(tracks_of({1: IN}), 0, SIZE)


@pytest.mark.parametrize("rows", ["empty", "no identity", "NaN", "no area", "twice"])
def test_rows_that_cannot_be_used_change_nothing(rows: str) -> None:
    boxes = {"NaN": [(np.nan, 0, 1, 1)], "no area": [(5, 5, 5, 9)]}.get(rows, [IN])
    ids = {"no identity": [-1], "twice": [1, 1], "empty": []}.get(rows, [7])
    boxes = boxes * len(ids)
    analytics = Analytics([YARD], [DOOR], [Presence("p", zone="yard")])
    for frame in range(20):
        view = analytics.update(
            Tracks(boxes, [0.9] * len(ids), [0] * len(ids), ids, None, range(len(ids))), at(frame, 10), SIZE
        )
    assert view.occupancy == {"yard": int(rows == "twice")}
    assert view.object_of_row.tolist() == ([0, 0] if rows == "twice" else [-1] * len(ids))


def test_zones_are_known_by_row_of_the_tracks() -> None:
    views = play(Analytics([YARD]), [{3: standing(100, 300), 5: IN}] * 10)
    assert [views[-1].zones_of(row) for row in (0, 1)] == [[], ["yard"]]
    assert views[-1].occupancy_by_class("yard") == {"0": 1}


def test_time_that_goes_back_begins_another_stream() -> None:
    analytics = Analytics([YARD], [DOOR])
    play(analytics, alone([IN] * 20))
    view = analytics.update(tracks_of({1: IN}), 0, SIZE)
    assert [(finding.event, finding.reason) for finding in view.findings] == [("zone_left", "stream_restarted")]
    assert view.occupancy == {"yard": 0}


def test_a_reset_ends_the_objects_and_keeps_the_totals() -> None:
    analytics = Analytics([YARD], [DOOR])
    play(analytics, alone(walk((220, 300), (420, 300), 30)))
    (left,) = analytics.reset("stream_restarted")
    assert (left.reason, left.ended_ns) == ("stream_restarted", at(29, 10))
    assert analytics.summary()["lines"]["door"]["left_to_right"] == 1


@pytest.mark.parametrize("line", [DOOR, Line("door", [(0.5, 1), (0.5, 0)])])
def test_a_change_of_resolution_in_the_middle_of_a_crossing_changes_nothing(line: Line) -> None:
    analytics = Analytics([YARD], [line])
    for frame, box in enumerate(walk((220, 300), (420, 300), 60)):
        scale = 1 + (frame >= 28)
        scaled = tuple(scale * side for side in box)
        view = analytics.update(tracks_of({1: scaled}), at(frame, 25), (640 * scale, 480 * scale))
    assert view.totals["door"] == {"left_to_right": 1, "right_to_left": 0}
    assert view.visits == {"yard": 1}
    assert analytics.mismatch == ""


def test_another_shape_of_the_picture_is_told() -> None:
    analytics = Analytics([Zone("yard", [(0, 0), (640, 0), (640, 720)], size_wh=(1280, 720))])
    analytics.update(tracks_of({}), 0, (640, 360))
    assert analytics.mismatch == ""
    analytics.update(tracks_of({}), 1, (640, 480))
    assert analytics.mismatch == "zones were drawn on 1280x720, the image is 640x480"


def test_a_change_keeps_what_did_not_change() -> None:
    other = Line("other", [(0.2, 1), (0.2, 0)])
    analytics = Analytics([YARD], [DOOR, other], [Presence("p", zone="yard", for_s=1)])
    boxes = list(walk((220, 300), (420, 300), 60))
    for frame, box in enumerate(boxes):
        if frame == 28:
            changed = analytics.change(
                [Zone("new", YARD.points), YARD],
                [Line("other", [(0.3, 1), (0.3, 0)]), DOOR],
                [Presence("p", zone="yard", for_s=1), Presence("q", zone="new")],
            )
            assert [(finding.event, finding.place) for finding in changed] == [
                ("places_changed", "other"),
                ("places_changed", "new"),
            ]
        view = analytics.update(tracks_of({1: box}), at(frame, 25), SIZE)
    assert {line: sum(counts.values()) for line, counts in view.totals.items()} == {"other": 0, "door": 1}
    assert view.visits == {"new": 1, "yard": 1}
    assert [(begin.rule, begin.number) for begin in analytics.open] == [("p", 1), ("q", 1)]


def test_a_change_ends_the_visits_and_episodes_of_what_goes() -> None:
    analytics = Analytics([YARD], [DOOR], [Presence("p", zone="yard"), Count("c", zone="yard", at_least=1)])
    play(analytics, alone([IN] * 20))
    told = analytics.change([], [DOOR], [])
    assert [(finding.event, finding.reason) for finding in told] == [
        ("zone_left", "places_changed"),
        ("rule_ended", "rule_changed"),
        ("rule_ended", "rule_changed"),
        ("places_changed", ""),
    ]


def test_a_change_that_is_refused_changes_nothing() -> None:
    analytics = Analytics([YARD], [DOOR], [Presence("p", zone="yard")])
    play(analytics, alone([IN] * 20))
    with pytest.raises(ConfigError, match="unknown zone"):
        analytics.change([], [DOOR], [Presence("p", zone="yard")])
    assert len(analytics.open) == 1
    assert analytics.zones == (YARD,)


def test_a_hundred_edits_leave_the_counts_of_untouched_lines_as_they_are() -> None:
    rng = np.random.default_rng(5)
    walks = [list(walk(tuple(a), tuple(b), 25)) for a, b in rng.uniform((40, 120), (600, 460), (60, 2, 2))]
    frames: list[dict[int, Any]] = [{} for _ in range(220)]
    for number, boxes in enumerate(walks):
        for step, box in enumerate(boxes):
            frames[number * 3 + step][number + 1] = box
    plain, edited = Analytics([YARD], [DOOR]), Analytics([YARD], [DOOR])
    play(plain, frames)
    for frame, boxes in enumerate(frames):
        if frame % 2:
            points = [tuple(point) for point in rng.uniform(10, 450, (2, 2))]
            zone = Zone("z", [*points, (600, 470)])
            edited.change([YARD, zone], [Line("x", points), DOOR], [Presence("r", zone="z")])
        edited.update(tracks_of(boxes), at(frame, 10), SIZE)
    assert edited.summary()["lines"]["door"] == plain.summary()["lines"]["door"]
    assert edited.summary()["zones"]["yard"] == plain.summary()["zones"]["yard"]
    assert sum(plain.summary()["lines"]["door"].values()) > 10


def test_memory_does_not_grow_with_the_number_of_objects() -> None:
    analytics = Analytics([YARD], [DOOR], [Presence("p", zone="yard"), Count("c", zone="yard", at_least=1)])
    sizes = []
    tracemalloc.start()
    try:
        for round_ in range(3):
            for number in range(300):
                track = round_ * 300 + number + 1
                for frame, box in enumerate(walk((220, 300), (420, 300), 4)):
                    when = at((round_ * 300 + number) * 6 + frame, 2)
                    analytics.update(tracks_of({track: box}), when, SIZE, ended=[track - 1] if frame == 0 else [])
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert analytics.summary()["zones"]["yard"]["visits"] == 900
    assert sizes[2] - sizes[1] < 30_000  # the exact dwells of 300 visits are 2.4 kB
