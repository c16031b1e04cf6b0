from __future__ import annotations

from typing import Any

import pytest

from engine.analytics.layout import LineLayout, ZoneLayout
from engine.analytics.motion import feet
from engine.analytics.places import Ground, Line, Zone
from engine.errors import ConfigError

CORNERS = [(0.1, 0.1), (0.9, 0.1), (0.5, 0.9)]
DOOR = [(0.5, 1.0), (0.5, 0.0)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: Zone("", CORNERS), "name", id="no name"),
        pytest.param(lambda: Zone("a/b", CORNERS), "slash", id="slash in a name"),
        pytest.param(lambda: Zone("z", CORNERS[:2]), "2 points", id="two corners"),
        pytest.param(lambda: Zone("z", [(0.1, 0.1), (0.9, 0.9), (0.9, 0.1), (0.1, 0.9)]), "cross", id="bow tie"),
        pytest.param(lambda: Zone("z", [(0.1, 0.1), (0.2, 0.2), (0.3, 0.3)]), "area", id="corners on one line"),
        pytest.param(lambda: Zone("z", [(0.1, 0.1), (1.2, 0.1), (0.5, 0.9)]), "above 1", id="fraction above 1"),
        pytest.param(lambda: Zone("z", [(-0.1, 0.1), (0.9, 0.1), (0.5, 0.9)]), "negative", id="negative"),
        pytest.param(lambda: Zone("z", [(float("nan"), 0.1), (0.9, 0.1), (0.5, 0.9)]), "finite", id="NaN"),
        pytest.param(lambda: Zone("z", [(0.1, 0.1, 0.3), (0.9, 0.1), (0.5, 0.9)]), "pairs", id="a triple"),
        pytest.param(lambda: Zone("z", CORNERS, enter_s=-1), "enter_s", id="negative time"),
        pytest.param(lambda: Zone("z", CORNERS, leave_s=float("nan")), "leave_s", id="time that is NaN"),
        pytest.param(lambda: Zone("z", CORNERS, anchor="feet"), "anchor", id="unknown anchor"),
        pytest.param(lambda: Zone("z", CORNERS, classes="person"), "list of names", id="classes as a text"),
        pytest.param(lambda: Zone("z", CORNERS, classes=[]), "empty", id="no classes"),
        pytest.param(lambda: Zone("z", CORNERS, size_wh=(0, 480)), "size_wh", id="picture without pixels"),
        pytest.param(lambda: Line("l", DOOR[:1]), "1 point:", id="one point"),
        pytest.param(lambda: Line("l", [DOOR[0], DOOR[0]]), "equal", id="no length"),
        pytest.param(lambda: Line("l", DOOR, left_to_right="in", right_to_left="in"), "both", id="one direction"),
        pytest.param(lambda: Line("l", DOOR, anchor="overlap"), "anchor", id="a line has no area"),
        pytest.param(lambda: Ground(CORNERS, [(0, 0)] * 3), "3 points", id="three points of the ground"),
        pytest.param(lambda: Ground([*CORNERS, (0.2, 0.8)], [(0, 0)] * 5), "5 positions", id="a position too many"),
    ],
)
def test_a_place_that_cannot_work_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("zone", "frame_wh", "expected"),
    [
        pytest.param(Zone("z", [(0.25, 0.5), (0.5, 0.5), (0.5, 0.75)]), (640, 480), (160, 240), id="fractions"),
        pytest.param(Zone("z", [(160, 240), (320, 240), (320, 360)]), (640, 480), (160, 240), id="pixels"),
        pytest.param(
            Zone("z", [(320, 360), (640, 360), (640, 540)], size_wh=(1280, 720)),
            (640, 480),
            (160, 240),
            id="of another",
        ),
    ],
)
def test_points_become_pixels_of_the_frame(zone: Zone, frame_wh: tuple[int, int], expected: tuple[int, int]) -> None:
    assert ZoneLayout([zone], frame_wh, frame_wh).corners[0][0].tolist() == pytest.approx(expected)


def test_pixels_of_no_named_picture_grow_with_the_picture() -> None:
    zone = Zone("z", [(160, 240), (320, 240), (320, 360)])
    assert ZoneLayout([zone], (640, 480), (1280, 960)).corners[0][0].tolist() == [320, 480]


@pytest.mark.parametrize(
    ("points", "reaches"),
    [
        pytest.param([(320, 480), (320, 0)], (True, True), id="from border to border"),
        pytest.param([(320, 478), (320, 100)], (True, False), id="one end on the border"),
        pytest.param([(100, 479), (500, 479)], (False, False), id="along the border"),
        pytest.param([(320, 400), (320, 100)], (False, False), id="within the picture"),
    ],
)
def test_an_end_on_the_border_reaches_beyond_it(points: list[tuple[int, int]], reaches: tuple[bool, bool]) -> None:
    layout = LineLayout([Line("l", points)], (640, 480), (640, 480))
    first, last = layout.reach[0][0], layout.reach[0][-1]
    assert (not 0 <= first[1] <= 480, not 0 <= last[1] <= 480) == reaches


def test_an_anchor_outside_of_the_picture_is_in_a_zone_that_reaches_the_border() -> None:
    import numpy as np

    layout = ZoneLayout([Zone("z", [(0, 200), (640, 200), (640, 478), (0, 478)])], (640, 480), (640, 480))
    box = np.array([[300, 380, 340, 495]], float).T
    where = layout.locate(box, feet(box), box[3] - box[1])
    assert where.inside.all()
    assert not where.is_clear(0, 0)
