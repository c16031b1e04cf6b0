"""Lines: every crossing counts, and counts once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.analytics.analytics import Analytics
from engine.analytics.places import Line
from tests.analytics.scripted import NS, SIZE, alone, at, found, play, standing, tracks_of, walk

DOOR = Line("door", [(320, 480), (320, 0)], left_to_right="in", right_to_left="out")


def _counts(analytics: Analytics, name: str = "door") -> tuple[int, int]:
    into, out = analytics.summary()["lines"][name].values()
    return into, out


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param([(320, 480), (320, 0)], (1, 0), id="upwards, walking to the right"),
        pytest.param([(320, 0), (320, 480)], (0, 1), id="downwards"),
        pytest.param([(320, 200), (320, 50)], (0, 0), id="beside the segment"),
        pytest.param([(100, 480), (540, 0)], (1, 0), id="aslant"),
        pytest.param([(320, 480), (320, 320), (420, 220), (420, 0)], (1, 0), id="bent"),
        pytest.param([(320, 480), (250, 300), (320, 250), (320, 0)], (1, 0), id="through a bend"),
    ],
)
def test_a_walk_to_the_right(points: list[tuple[float, float]], expected: tuple[int, int]) -> None:
    analytics = Analytics([], [Line("door", points, left_to_right="in", right_to_left="out")])
    play(analytics, alone(walk((100, 300), (540, 300), 40)))
    assert _counts(analytics) == expected


def test_a_crossing_tells_where_and_when() -> None:
    views = play(Analytics([], [DOOR]), alone(walk((120, 300), (520, 300), 41)))
    (crossing,) = found(views)
    assert (crossing.event, crossing.direction, crossing.place) == ("line_crossed", "in", "door")
    assert crossing.at == pytest.approx((320, 300))
    assert crossing.began_ns == pytest.approx(2 * NS, abs=1)
    assert crossing.data == {"speed_h": pytest.approx(1.0), "inferred": False}
    assert crossing.xyxy is not None
    assert crossing.track_ids == (1,)


def test_there_and_back_are_two_crossings() -> None:
    analytics = Analytics([], [DOOR])
    play(analytics, alone([*walk((200, 300), (440, 300), 20), *walk((440, 300), (200, 300), 20)] * 3))
    assert _counts(analytics) == (3, 3)


def test_memory_of_objects_that_ended_holds_nothing_of_them_for_the_next() -> None:
    """Sixty objects, three at a time, each where no other has been; a crossing is where it is for one alone."""
    paths = [list(walk((200, 100 + 5 * number), (440, 130 + 5 * number), 9)) for number in range(60)]
    analytics, crossings, alone_at = Analytics([], [DOOR]), [], []
    for frame in range(3 * 60 + 60):
        boxes = {n + 1: path[frame - 3 * n] for n, path in enumerate(paths) if 0 <= frame - 3 * n < len(path)}
        ended = [n + 1 for n, path in enumerate(paths) if frame - 3 * n == len(path)]
        view = analytics.update(tracks_of(boxes), at(frame, 10), SIZE, ended=ended)
        crossings += [finding for finding in view.findings if finding.event == "line_crossed"]
    for path in paths:
        (crossing,) = found(play(Analytics([], [DOOR]), alone(path)))
        alone_at.append(crossing.at)
    assert [crossing.track_ids for crossing in crossings] == [(n + 1,) for n in range(60)]
    assert [crossing.at for crossing in crossings] == alone_at


def test_once_counts_each_identity_once_per_direction() -> None:
    line = Line("door", DOOR.points, left_to_right="in", right_to_left="out", once=True)
    analytics = Analytics([], [line])
    play(analytics, alone([*walk((200, 300), (440, 300), 20), *walk((440, 300), (200, 300), 20)] * 3))
    assert _counts(analytics) == (1, 1)


@pytest.mark.parametrize(("beyond", "counted"), [(7.0, 0), (9.0, 1)])
def test_travel_across_of_16_percent_of_the_height_counts(beyond: float, counted: int) -> None:
    analytics = Analytics([], [DOOR])
    play(analytics, alone([standing(312, 300)] * 5 + [standing(320 + beyond, 300)] * 5))
    assert _counts(analytics) == (counted, 0)


def test_a_track_that_ends_right_behind_the_line_counts() -> None:
    analytics = Analytics([], [DOOR])
    play(analytics, alone(walk((200, 300), (332, 300), 40)), fps=10)
    assert _counts(analytics) == (1, 0)


@pytest.mark.parametrize("fps", [0.4, 1.0, 3.0])
def test_few_frames_per_second_miss_nothing(fps: float) -> None:
    analytics = Analytics([], [DOOR])
    frames = max(3, round(fps * 6))
    views = play(analytics, alone(walk((100, 300), (540, 300), frames)), fps=fps)
    assert _counts(analytics) == (1, 0)
    assert found(views)[0].data["inferred"] is (fps <= 0.9)


def test_walking_round_the_end_of_a_line_is_no_crossing() -> None:
    analytics = Analytics([], [Line("door", [(320, 300), (320, 100)])])
    path = [*walk((250, 250), (250, 400), 10), *walk((250, 400), (400, 400), 10), *walk((400, 400), (400, 250), 10)]
    views = play(analytics, alone(path))
    assert not found(views)
    play_on = [*walk((400, 250), (250, 250), 10)]
    later = [analytics.update(tracks_of({1: box}), at(40 + n, 10), SIZE) for n, box in enumerate(play_on)]
    assert [crossing.direction for crossing in found(later)] == ["right_to_left"]


def test_an_end_on_the_border_cannot_be_walked_round() -> None:
    analytics = Analytics([], [Line("door", [(320, 477), (320, 0)])])
    play(analytics, alone(walk((100, 490), (540, 490), 40)))
    assert _counts(analytics) == (1, 0)


def test_lines_that_share_an_end_count_once() -> None:
    lines = [Line("upper", [(320, 200), (320, 0)]), Line("lower", [(320, 480), (320, 200)])]
    analytics = Analytics([], lines)
    for number, y in enumerate(range(100, 301, 5)):
        boxes = list(walk((200, y), (440, y), 10))
        for frame, box in enumerate(boxes):
            analytics.update(tracks_of({number: box}), at(number * 100 + frame, 10), SIZE)
    assert sum(_counts(analytics, "upper")) + sum(_counts(analytics, "lower")) == 41


def test_a_gap_is_spanned_by_a_chord_and_says_so() -> None:
    boxes = list(walk((120, 300), (520, 300), 41))
    views = play(Analytics([], [DOOR]), alone([*boxes[:17], *[None] * 7, *boxes[24:]]))
    (crossing,) = found(views)
    assert crossing.data["inferred"] is True
    assert crossing.began_ns == pytest.approx(2 * NS, abs=1)


def test_one_bad_box_crosses_nothing() -> None:
    analytics = Analytics([], [DOOR])
    boxes = [standing(250, 300)] * 100
    boxes[50] = standing(345, 300)  # less than a jump, at 25 fps
    play(analytics, alone(boxes), fps=25)
    assert _counts(analytics) == (0, 0)


def test_a_jump_moves_nothing_until_it_is_believed_and_crosses_nothing_then() -> None:
    analytics = Analytics([], [DOOR])
    near, far = standing(100, 300, 50), standing(600, 300, 50)
    views = play(analytics, alone([near] * 20 + [far] * 2 + [near] * 20), fps=10)
    assert not found(views)
    views = [analytics.update(tracks_of({1: far}), at(42 + n, 10), SIZE) for n in range(10)]
    assert not found(views)
    assert [round(view.objects.xyxy[0, 0]) for view in views[:4]] == [80, 80, 580, 580]


@pytest.mark.parametrize(
    ("noise", "horizontal", "most"),
    [(0.01, True, 0), (0.02, True, 0), (0.01, False, 0), (0.02, False, 0), (0.03, True, 2)],
)
def test_standing_on_a_line_for_two_minutes(noise: float, horizontal: bool, most: int) -> None:
    points = [(0, 300), (640, 300)] if horizontal else [(320, 480), (320, 0)]
    crossings, dithers = [], 0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        edges = np.array(standing(320, 300)) + rng.normal(0, noise * 100, (2 * 60 * 25, 4))
        analytics = Analytics([], [Line("door", points)], heat=False)
        play(analytics, [{1: tuple(box)} for box in edges.tolist()], fps=25)
        crossings.append(sum(_counts(analytics)))
        dithers += analytics.counters.dithers["door"]
    assert np.mean(crossings) <= most
    assert dithers <= sum(crossings)


def test_dithering_is_counted() -> None:
    analytics = Analytics([], [DOOR])
    play(analytics, alone([*walk((300, 300), (340, 300), 5), *walk((340, 300), (300, 300), 5)] * 6))
    assert _counts(analytics) == (6, 5) or _counts(analytics) == (6, 6)
    assert analytics.counters.dithers["door"] >= 8


def _truth(starts: np.ndarray, ends: np.ndarray, line: np.ndarray) -> tuple[int, int]:
    """Count straight walks that cut a segment, by the directions of the corners of the quadrilateral."""
    into = out = 0
    (ax, ay), (bx, by) = line
    for (px, py), (qx, qy) in zip(starts, ends, strict=True):
        before = (bx - ax) * (py - ay) - (by - ay) * (px - ax)
        after = (bx - ax) * (qy - ay) - (by - ay) * (qx - ax)
        first = (qx - px) * (ay - py) - (qy - py) * (ax - px)
        last = (qx - px) * (by - py) - (qy - py) * (bx - px)
        if (before > 0) != (after > 0) and (first > 0) != (last > 0):
            into, out = (into + 1, out) if before < 0 else (into, out + 1)
    return into, out


@pytest.mark.parametrize("seed", range(40))
def test_counts_equal_the_truth_on_random_scenes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fps, count, height, seconds = float(rng.choice([1, 2, 5, 8, 10, 15, 25, 30, 60])), 12, 60.0, 6.0
    angle = rng.uniform(0, math.pi * 2)
    middle = rng.uniform((200, 150), (440, 330))
    line = np.array([middle + 120 * np.array((math.cos(angle + t), math.sin(angle + t))) for t in (0, math.pi)])
    normal = np.array([line[1, 1] - line[0, 1], line[0, 0] - line[1, 0]]) / 240
    starts, ends = rng.uniform((50, 100), (590, 430), (2, count, 2))
    clear = np.minimum(np.abs((starts - line[0]) @ normal), np.abs((ends - line[0]) @ normal)) > height / 2
    starts, ends = starts[clear], ends[clear]
    analytics = Analytics([], [Line("door", [tuple(point) for point in line])], heat=False)
    frames = round(seconds * fps)
    for frame in range(frames + 1):
        walkers = starts + (ends - starts) * frame / frames
        seen = rng.random(len(walkers)) > 0.2 if 0 < frame < frames else np.ones(len(walkers), bool)
        boxes = {n + 1: standing(x, y, height) for n, (x, y) in enumerate(walkers) if seen[n]}
        analytics.update(tracks_of(boxes), at(frame, fps), SIZE)
    assert _counts(analytics) == _truth(starts, ends, line)


def _until_beyond(fps: float = 25.0) -> list[dict[int, tuple[float, float, float, float]]]:
    """Return a walk to the right whose very last box is the first one beyond the line, 10 % of a height away."""
    return alone(standing(330 - 750 / fps * left, 300) for left in reversed(range(round(fps))))


@pytest.mark.parametrize("fps", [5.0, 15.0, 25.0, 30.0])
def test_a_crossing_on_the_last_box_of_a_track_counts_when_the_track_ends(fps: float) -> None:
    analytics, frames = Analytics([], [DOOR]), _until_beyond(fps)
    last = len(frames) - 1
    views = play(analytics, [*frames, *[{}] * round(3 * fps)], fps, ended={last + 1: [1]})
    (crossing,) = found(views)
    assert _counts(analytics) == (1, 0)
    assert crossing.began_ns == pytest.approx(at(last, fps) - 10 / 750 * NS, abs=1)
    assert views[-1].totals == {"door": {"in": 1, "out": 0}}
    assert analytics.finish() == ()


def test_a_crossing_on_the_last_box_of_a_run_counts_once() -> None:
    analytics = Analytics([], [DOOR])
    play(analytics, _until_beyond(), 25.0)
    assert _counts(analytics) == (0, 0)
    (crossing,) = analytics.settle()
    assert (crossing.event, crossing.direction) == ("line_crossed", "in")
    assert _counts(analytics) == (1, 0)
    assert analytics.settle() == analytics.finish() == ()
    assert _counts(analytics) == (1, 0)


def test_a_crossing_on_the_last_box_of_a_track_that_another_continues_counts_once() -> None:
    analytics, frames = Analytics([], [DOOR]), _until_beyond()
    play(analytics, [*frames, {}, *[{2: standing(390 + 30 * step, 300)} for step in range(7)]], 25.0)
    assert _counts(analytics) == (1, 0)


@pytest.mark.parametrize("last", [pytest.param(330, id="just beyond"), pytest.param(400, id="far beyond")])
def test_one_bad_box_at_the_end_of_a_track_crosses_nothing(last: float) -> None:
    frames = [*[standing(300, 300)] * 30, standing(last, 300)]
    analytics = Analytics([], [DOOR])
    play(analytics, [*alone(frames), *[{}] * 60], 25.0, ended={31: [1]})
    analytics.finish()
    assert _counts(analytics) == (0, 0)


def test_the_last_box_of_an_object_that_never_counted_crosses_nothing() -> None:
    analytics = Analytics([], [DOOR])
    play(analytics, [*_until_beyond()[-4:], *[{}] * 60], 25.0, ended={4: [1]})
    assert (analytics.finish(), _counts(analytics)) == ((), (0, 0))
