"""Which objects may make an event, and which tracks are one object."""

from __future__ import annotations

import numpy as np
import pytest

from engine.analytics.analytics import Analytics
from engine.analytics.identity import Eligibility, ParkedSpots, shadows
from engine.analytics.places import Line, Zone
from tests.analytics.scripted import SIZE, alone, at, found, play, standing, tracks_of, walk

ALL = Zone("all", [(0, 0), (640, 0), (640, 480), (0, 480)])
DOOR = Line("door", [(320, 480), (320, 0)])
ANY = Eligibility(min_seen_s=0, min_score=0)


def _crossings(analytics: Analytics) -> int:
    return sum(analytics.summary()["lines"]["door"].values())


def test_a_crossing_in_the_first_frames_of_a_life_is_told_once_the_object_is_known_to_be_real() -> None:
    views = play(Analytics([], [DOOR]), alone(walk((300, 300), (440, 300), 8)), fps=10)
    (crossing,) = found(views)
    assert crossing.captured_ns == at(3, 10)
    assert crossing.began_ns == at(1, 10)


def test_a_ghost_of_two_frames_makes_no_event() -> None:
    analytics = Analytics([ALL], [DOOR])
    assert not found(play(analytics, alone([standing(300, 300), standing(345, 300), *[None] * 40])))


@pytest.mark.parametrize(
    ("eligibility", "score", "counted"),
    [
        pytest.param(Eligibility(), 0.5, 1, id="default"),
        pytest.param(Eligibility(), 0.3, 0, id="mean score too low"),
        pytest.param(Eligibility(min_seen_s=5), 0.9, 0, id="not seen for long enough"),
        pytest.param(Eligibility(min_height=0.5), 0.9, 0, id="too small"),
        pytest.param(Eligibility(max_height=0.1), 0.9, 0, id="too large"),
        pytest.param(Eligibility(min_height=0.1, max_height=0.5), 0.9, 1, id="height in range"),
    ],
)
def test_who_may_make_an_event(eligibility: Eligibility, score: float, counted: int) -> None:
    analytics = Analytics([], [DOOR], eligibility=eligibility)
    for frame, box in enumerate(walk((200, 300), (440, 300), 30)):
        analytics.update(tracks_of({1: box}, score=score), at(frame, 10), SIZE)
    assert _crossings(analytics) == counted


@pytest.mark.parametrize(
    ("classes", "names", "counted"),
    [
        pytest.param(None, (), 1, id="all"),
        pytest.param({"car"}, ("person", "car"), 1, id="by name"),
        pytest.param({1}, (), 1, id="by number"),
        pytest.param({"person"}, ("person", "car"), 0, id="another"),
    ],
)
def test_only_wanted_classes_count(classes: set[str | int] | None, names: tuple[str, ...], counted: int) -> None:
    line = Line("door", DOOR.points, classes=classes)
    analytics = Analytics([Zone("all", ALL.points, classes=classes)], [line], class_names=names)
    for frame, box in enumerate(walk((200, 300), (440, 300), 30)):
        view = analytics.update(tracks_of({1: box}, class_id=1), at(frame, 10), SIZE)
    assert _crossings(analytics) == counted == view.occupancy["all"]


def test_a_class_that_flickers_is_the_one_seen_most() -> None:
    line = Line("door", DOOR.points, classes={"person"})
    analytics = Analytics([], [line], class_names=("person", "dog"))
    for frame, box in enumerate(walk((200, 300), (440, 300), 30)):
        analytics.update(tracks_of({1: box}, class_id=int(frame % 3 == 0)), at(frame, 10), SIZE)
    assert analytics.counters.crossings["door"]["left_to_right"] == {"person": 1}


def _shadows(boxes: np.ndarray, class_id: np.ndarray, score: np.ndarray) -> np.ndarray | None:
    return shadows(boxes, class_id, score, boxes.tolist())


@pytest.mark.parametrize(
    ("part", "score", "is_shadow"),
    [
        pytest.param((100, 100, 140, 160), 0.5, True, id="upper half"),
        pytest.param((102, 140, 138, 200), 0.5, True, id="lower half"),
        pytest.param((100, 100, 140, 160), 0.95, False, id="scores much higher"),
        pytest.param((110, 100, 140, 160), 0.5, False, id="another left edge"),
        pytest.param((100, 120, 140, 180), 0.5, False, id="neither top nor bottom"),
    ],
)
def test_a_second_box_on_an_object_is_a_shadow(part: tuple[int, ...], score: float, is_shadow: bool) -> None:
    boxes = np.array([(100, 100, 140, 200), part, (400, 100, 440, 200)], float).T
    found_shadows = _shadows(boxes, np.zeros(3), np.array([0.8, score, 0.8]))
    assert (found_shadows is not None and found_shadows.tolist() == [False, True, False]) is is_shadow


@pytest.mark.parametrize("count", [2, 17, 40, 80])
def test_all_equal_boxes_but_the_last_are_shadows_however_many_there_are(count: int) -> None:
    boxes = np.tile([[100.0], [100.0], [140.0], [200.0]], (1, count))
    shadow = _shadows(boxes, np.zeros(count), np.full(count, 0.8))
    assert shadow is not None
    assert shadow.tolist() == [True] * (count - 1) + [False]


def test_objects_of_two_classes_are_no_shadows() -> None:
    boxes = np.array([(100, 100, 140, 200), (100, 100, 140, 160)], float).T
    assert _shadows(boxes, np.array([0.0, 1.0]), np.array([0.8, 0.5])) is None


@pytest.mark.parametrize("seed", range(5))
def test_shadows_are_the_same_among_few_and_many(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    low, size = rng.uniform(0, 100, (2, 60)), rng.uniform(20, 90, (2, 60))
    boxes, score = np.concatenate((low, low + size)), rng.uniform(0.3, 0.9, 60)
    few = _shadows(boxes, np.zeros(60), score)
    monkeypatch.setattr("engine.analytics.identity.FEW", 0)
    many = _shadows(boxes, np.zeros(60), score)
    assert few is not None
    assert many is not None
    assert few.tolist() == many.tolist()
    assert 0 < sum(few.tolist()) < 60


def test_a_shadow_counts_nowhere() -> None:
    analytics = Analytics([ALL], [DOOR])
    walkers = list(walk((200, 300), (440, 300), 40))
    frames = [{1: box, 2: (box[0], box[1], box[2], box[1] + 60)} for box in walkers]
    views = play(analytics, frames)
    assert _crossings(analytics) == 1
    assert views[-1].occupancy == {"all": 1}


def test_a_child_before_an_adult_counts() -> None:
    analytics = Analytics([], [DOOR])
    walkers = list(walk((200, 300), (440, 300), 40))
    play(analytics, [{1: box, 2: (box[0] + 8, box[1] + 40, box[2] - 4, box[3])} for box in walkers])
    assert _crossings(analytics) == 2


def _switch(new_x: float, *, gap: int = 3, height: float = 100, others: int = 0) -> list[dict[int, object]]:
    """Return 4 s of a walk of 10 px per frame whose id changes at frame 15, after a gap, at `new_x`."""
    frames: list[dict[int, object]] = [{1: standing(100 + 10 * frame, 300)} for frame in range(15)]
    frames += [{}] * gap
    for step in range(25 - gap):
        starts = [new_x + 15 * n for n in range(1 + others)]
        frames.append({2 + n: standing(x + 10 * step, 300, height) for n, x in enumerate(starts)})
    return frames


@pytest.mark.parametrize(
    ("frames", "visits"),
    [
        pytest.param(_switch(270), 1, id="where constant velocity leads"),
        pytest.param(_switch(365, gap=12), 1, id="over 1.2 s"),
        pytest.param(_switch(270, gap=12), 2, id="not there any more"),
        pytest.param(_switch(400, gap=16), 2, id="too late"),
        pytest.param(_switch(400), 2, id="too far"),
        pytest.param(_switch(270, height=60), 2, id="another height"),
        pytest.param(_switch(270, others=1), 3, id="two could be meant"),
    ],
)
def test_a_visit_goes_on_over_a_change_of_id(frames: list[dict[int, object]], visits: int) -> None:
    analytics = Analytics([ALL])
    views = play(analytics, frames, ended={16: [1]})  # type: ignore[arg-type]
    assert analytics.summary()["zones"]["all"]["visits"] == visits
    if visits == 1:
        assert views[-1].objects.track_id.tolist() == [2]
        assert views[-1].objects.identity.tolist() == [1]
        assert views[-1].objects.dwell_s[0, 0] == pytest.approx(3.9)


@pytest.mark.parametrize("seed", range(5))
def test_tracks_are_stitched_the_same_among_few_and_many(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    walkers = rng.uniform((40, 100), (600, 460), (7, 2)), rng.uniform((-60, -20), (60, 20), (7, 2))

    def identities() -> list[int]:
        analytics = Analytics([ALL])
        for frame in [*range(10), *range(14, 20)]:
            feet = walkers[0] + walkers[1] * frame / 10
            boxes = {n + 1 + 10 * (frame >= 14): standing(x, y, 60) for n, (x, y) in enumerate(feet.tolist())}
            view = analytics.update(tracks_of(boxes), at(frame, 10), SIZE)
        found: list[int] = view.objects.identity[view.object_of_row].tolist()
        return found

    few = identities()
    monkeypatch.setattr("engine.analytics.identity.FEW", 0)
    assert identities() == few
    assert sum(identity <= 7 for identity in few) >= 4


def test_a_side_of_a_line_is_never_inherited() -> None:
    analytics = Analytics([], [DOOR])
    frames = [{1: standing(300, 300)} for _ in range(20)] + [{2: standing(331, 300)} for _ in range(20)]
    views = play(analytics, frames)
    assert views[-1].objects.identity.tolist() == [1]
    assert _crossings(analytics) == 0


def test_where_an_object_was_parked_a_new_track_makes_no_event_until_it_moves() -> None:
    analytics = Analytics([ALL])
    car = (300, 200, 420, 280)
    play(analytics, [{1: car}] * 700 + [{}] * 300, ended={701: [1]})
    for frame in range(1000, 1020):
        view = analytics.update(tracks_of({2: car}), at(frame, 10), SIZE)
    assert view.occupancy == {"all": 0}
    assert view.objects.parked.tolist() == [True]
    for frame in range(1020, 1040):
        moved = (300 + 6 * (frame - 1020), 200, 420 + 6 * (frame - 1020), 280)
        view = analytics.update(tracks_of({2: moved}), at(frame, 10), SIZE)
    assert view.occupancy == {"all": 1}
    assert view.objects.parked.tolist() == [False]
    for frame in range(1040, 1060):
        view = analytics.update(tracks_of({2: moved, 3: car}), at(frame, 10), SIZE)
    assert view.occupancy == {"all": 2}  # the place was freed


def test_parked_objects_may_be_wanted() -> None:
    analytics = Analytics([ALL], eligibility=Eligibility(ignore_parked=False))
    car = (300, 200, 420, 280)
    play(analytics, [{1: car}] * 700 + [{}] * 20 + [{2: car}] * 20, ended={701: [1]})
    assert analytics.summary()["zones"]["all"]["visits"] == 2


def test_the_list_of_parked_places_is_bounded_and_forgets() -> None:
    spots = ParkedSpots()
    for number in range(100):
        spots.add(np.array([number * 10, 0, number * 10 + 5, 5], float), float(number))
    assert len(spots) == 64
    spots.add(np.array([0.0, 50, 5, 55]), 8 * 86_400.0)
    assert len(spots) == 1
