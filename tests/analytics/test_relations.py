from __future__ import annotations

import numpy as np
import pytest

from engine.analytics.analytics import Analytics
from engine.analytics.relations import Relations
from tests.analytics.scripted import SIZE, at, tracks_of

ADULT = (100, 100, 160, 280)
STILL = (0.0, 0.0)


@pytest.mark.parametrize(
    ("relation", "first", "second", "holds"),
    [
        pytest.param("near", ADULT, (200, 120, 260, 280), True, id="side by side"),
        pytest.param("near", ADULT, (400, 120, 460, 280), False, id="far apart"),
        pytest.param("inside", (115, 105, 145, 135), ADULT, True, id="a face in a person"),
        pytest.param("inside", ADULT, (115, 105, 145, 135), False, id="a person in a face"),
        pytest.param("inside", (150, 105, 180, 135), ADULT, False, id="a third inside"),
        pytest.param("on", (100, 60, 160, 200), (80, 140, 180, 220), True, id="a rider on a bicycle"),
        pytest.param("on", (80, 140, 180, 220), (100, 60, 160, 200), False, id="a bicycle on a rider"),
        pytest.param("on", (170, 60, 230, 200), (80, 140, 180, 220), False, id="beside a bicycle"),
    ],
)
def test_relations_of_still_objects(relation: str, first: tuple, second: tuple, holds: bool) -> None:
    related = Relations.of(np.array([first, second], float), np.array([STILL, STILL]))
    assert getattr(related, relation)[0, 1] == holds


@pytest.mark.parametrize(
    ("bag", "bag_speed", "carried"),
    [
        pytest.param((140, 180, 180, 230), (100, 0), True, id="moves along"),
        pytest.param((140, 180, 180, 230), (0, 0), False, id="stands where somebody passes"),
        pytest.param((300, 180, 340, 230), (100, 0), False, id="elsewhere"),
        pytest.param((90, 90, 180, 290), (100, 0), False, id="larger than the bearer"),
    ],
)
def test_a_thing_is_carried(bag: tuple, bag_speed: tuple, carried: bool) -> None:
    related = Relations.of(np.array([bag, ADULT], float), np.array([bag_speed, (100, 0)], float))
    assert related.carried_by[0, 1] == carried


@pytest.mark.parametrize("count", [0, 1, 5])
def test_nothing_is_related_to_itself(count: int) -> None:
    boxes = np.tile(np.array([ADULT], float), (count, 1)) + np.arange(count)[:, None] * 3
    related = Relations.of(boxes, np.full((count, 2), 50.0))
    for relation in (related.near, related.inside, related.on, related.carried_by):
        assert relation.shape == (count, count)
        assert not relation.diagonal().any()


def test_a_view_relates_its_objects() -> None:
    analytics = Analytics()
    for frame in range(10):
        moved = {1: (100 + 10 * frame, 100, 160 + 10 * frame, 280), 2: (140 + 10 * frame, 180, 180 + 10 * frame, 230)}
        view = analytics.update(tracks_of(moved), at(frame, 10), SIZE)
    assert view.objects.velocity[0].tolist() == pytest.approx([100, 0])
    assert view.relations.carried_by.tolist() == [[False, False], [True, False]]
    assert view.relations is view.relations
