"""What every tracker must do, whatever its method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import Detections, Tracks
from engine.errors import ConfigError
from engine.protocols import Tracker
from engine.testing import TRACKER_CHECKS, name_of
from engine.tracking.base import BaseTracker
from engine.tracking.registry import TRACKERS, tracker_by_name

FRAME_NS = 33_333_333
FOLLOWING = [name for name in TRACKERS if name != "none"]

pytestmark = pytest.mark.parametrize("make", [partial(tracker_by_name, name) for name in FOLLOWING], ids=FOLLOWING)
Make = Callable[..., BaseTracker]


def found(*boxes: tuple[float, float, float, float], score: float = 0.9) -> Detections:
    return Detections(list(boxes), [score] * len(boxes), [0] * len(boxes))


def walk(tracker: Tracker, frames: int, start: int = 0) -> list[Tracks]:
    """Two objects that move towards each other on separate lines."""
    return [
        tracker.update(found((10 + 3 * i, 10, 50 + 3 * i, 110), (400 - 3 * i, 200, 440 - 3 * i, 300)), i * FRAME_NS)
        for i in range(start, start + frames)
    ]


@pytest.mark.parametrize("check", TRACKER_CHECKS, ids=name_of)
def test_it_keeps_the_public_contract(make: Make, check: Callable[[Make], None]) -> None:
    check(make)
    assert isinstance(make(), BaseTracker)


def test_two_walkers_keep_their_ids(make: Make) -> None:
    shown = walk(make(), 40)[3:]
    assert {tuple(tracks.track_id.tolist()) for tracks in shown} == {(1, 2)}


def test_a_track_names_the_detection_that_it_was_made_from(make: Make) -> None:
    tracks = walk(make(), 10)[-1]
    boxes = np.float32([[37, 10, 77, 110], [373, 200, 413, 300]])
    assert np.abs(boxes[tracks.detection_index] - tracks.xyxy).max() < 8


def test_a_frame_that_was_not_detected_on_shows_predicted_tracks(make: Make) -> None:
    tracker = make()
    before = walk(tracker, 20)[-1]
    predicted = tracker.update(None, 20 * FRAME_NS)
    assert predicted.track_id.tolist() == before.track_id.tolist()
    assert (predicted.detection_index == -1).all()
    np.testing.assert_allclose(predicted.xyxy[0, [0, 2]] - before.xyxy[0, [0, 2]], 3, atol=1.0)


def test_skipped_frames_do_not_change_ids(make: Make) -> None:
    tracker = make()
    ids = set()
    for i in range(60):
        tracks = tracker.update(found((10 + 3 * i, 10, 50 + 3 * i, 110)) if i % 3 == 0 else None, i * FRAME_NS)
        ids |= set(tracks.track_id.tolist())
    assert ids == {1}


def test_a_clone_shares_nothing(make: Make) -> None:
    tracker = make()
    walk(tracker, 10)
    clone = tracker.clone()
    assert type(clone) is type(tracker)
    assert len(clone.update(None, 10 * FRAME_NS)) == 0
    assert {i for tracks in walk(clone, 10) for i in tracks.track_id.tolist()} == {1, 2}


def test_rows_are_ordered_by_id(make: Make) -> None:
    rng = np.random.default_rng(7)
    tracker = make()
    corners = rng.uniform(0, 900, (40, 2))
    for i in range(30):
        here = corners[rng.random(40) > 0.2] + i
        tracks = tracker.update(found(*map(tuple, np.hstack((here, here + 40)))), i * FRAME_NS)
        assert (np.diff(tracks.track_id) > 0).all()


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((float("nan"), 0.0, 10.0, 10.0), id="nan"),
        pytest.param((0.0, 0.0, float("inf"), 10.0), id="infinite"),
        pytest.param((5.0, 5.0, 5.0, 25.0), id="no width"),
        pytest.param((20.0, 5.0, 10.0, 25.0), id="inside out"),
        pytest.param((-1e30, 0.0, 1e30, 10.0), id="absurd"),
    ],
)
def test_unusable_boxes_are_ignored(make: Make, box: tuple[float, float, float, float]) -> None:
    tracker = make()
    for i in range(8):
        tracks = tracker.update(found((100, 100, 140, 200), box), i * FRAME_NS)
    assert tracks.track_id.tolist() == [1]
    assert np.isfinite(tracks.xyxy).all()


def test_a_nan_score_is_ignored(make: Make) -> None:
    tracker = make()
    for i in range(8):
        tracks = tracker.update(Detections([[0, 0, 9, 9]], [np.nan], [0]), i * FRAME_NS)
    assert len(tracks) == 0


def test_boxes_beyond_the_frame_are_tracked_as_they_are(make: Make) -> None:
    tracker = make()
    for i in range(8):
        tracks = tracker.update(found((-500, -300, -400, -100), (5000, 5000, 5100, 5200)), i * FRAME_NS)
    assert len(tracks) == 2


def test_ten_thousand_boxes_keep_the_best(make: Make) -> None:
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 1900, (10_000, 2))
    detections = Detections(np.hstack((corners, corners + 50)), rng.uniform(0.5, 1, 10_000), np.zeros(10_000))
    tracker = make()
    for i in range(3):
        tracks = tracker.update(detections, i * FRAME_NS)
    assert 0 < len(tracks) <= 1000


def test_a_repeated_or_earlier_time_is_no_failure(make: Make) -> None:
    tracker = make()
    for captured_ns in (10, 10, 5, 20):
        tracks = tracker.update(found((0, 0, 40, 90)), captured_ns)
    assert len(tracks) == 1
    assert np.isfinite(tracks.xyxy).all()


def test_an_hour_without_frames_is_no_failure(make: Make) -> None:
    tracker = make()
    walk(tracker, 10)
    tracks = tracker.update(found((0, 0, 40, 90)), 3_600_000_000_000)
    assert np.isfinite(tracks.xyxy).all()


def test_a_static_box_keeps_one_id_for_ever(make: Make) -> None:
    tracker = make()
    ids = {i for f in range(1000) for i in tracker.update(found((5, 5, 45, 95)), f * FRAME_NS).track_id.tolist()}
    assert ids == {1}


def scene(seed: int, objects: int, frames: int) -> list[Detections]:
    """Objects in a narrow space: they cross, and a tenth of them is missed on each frame."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 300, (objects, 2)), rng.uniform(30, 90, (objects, 2))
    velocity = rng.normal(0, 4, (objects, 2))
    shots = []
    for _ in range(frames):
        corner = corner + velocity
        boxes = np.hstack((corner, corner + size)) + rng.normal(0, 1, (objects, 4))
        seen = rng.random(objects) > 0.1
        shots.append(Detections(boxes[seen], rng.uniform(0.15, 1, seen.sum()), np.zeros(seen.sum())))
    return shots


def history(tracker: Tracker, shots: list[Detections]) -> list[dict[int, tuple[int, ...]]]:
    """Per frame: rounded box by id."""
    shown = [tracker.update(shot, i * FRAME_NS) for i, shot in enumerate(shots)]
    return [dict(zip(t.track_id.tolist(), map(tuple, t.xyxy.round().astype(int).tolist()), strict=True)) for t in shown]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_the_input_does_not_matter(make: Make, seed: int) -> None:
    shots = scene(seed, objects=12, frames=25)
    rng = np.random.default_rng(seed)
    shuffled = [shot[rng.permutation(len(shot))] for shot in shots]
    assert history(make(), shots) == history(make(), shuffled)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), dx=st.integers(-2000, 2000), dy=st.integers(-2000, 2000))
def test_moving_the_whole_scene_does_not_change_ids(make: Make, seed: int, dx: int, dy: int) -> None:
    shots = scene(seed, objects=12, frames=25)
    moved = [Detections(s.xyxy + np.float32([dx, dy, dx, dy]), s.score, s.class_id) for s in shots]
    assert [list(frame) for frame in history(make(), shots)] == [list(frame) for frame in history(make(), moved)]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_two_scenes_far_apart_are_tracked_as_each_alone(make: Make, seed: int) -> None:
    left, right = scene(seed, 8, 25), scene(seed + 1, 8, 25)
    right = [Detections(s.xyxy + np.float32(5000), s.score, s.class_id) for s in right]
    both = [
        Detections(np.vstack((a.xyxy, b.xyxy)), np.append(a.score, b.score), np.zeros(len(a) + len(b)))
        for a, b in zip(left, right, strict=True)
    ]
    alone = [history(make(), left), history(make(), right)]
    together = history(make(), both)
    names: dict[int, tuple[bool, int]] = {}
    for one, other, union in zip(*alone, together, strict=True):
        where = {box: (side, i) for side, boxes in ((False, one), (True, other)) for i, box in boxes.items()}
        assert set(where) == set(union.values())
        for i, box in union.items():
            assert names.setdefault(i, where[box]) == where[box]


def test_half_of_the_frames_at_random_are_enough(make: Make) -> None:
    rng = np.random.default_rng(1)
    tracker, ids = make(), set()
    for i in np.flatnonzero(rng.random(300) < 0.5).tolist():
        shot = found((10 + 2 * i, 10, 60 + 2 * i, 130), (700 - 2 * i, 300, 750 - 2 * i, 420))
        tracks = tracker.update(shot, i * FRAME_NS)
        ids |= set(tracks.track_id.tolist())
    assert ids == {1, 2}


@pytest.mark.parametrize("fps", [5, 10, 30, 60])
def test_a_walker_keeps_one_id_at_any_frame_rate(make: Make, fps: int) -> None:
    tracker, ids = make(), set()
    for i in range(6 * fps):
        x = 80 * i / fps
        ids |= set(tracker.update(found((x, 10, x + 50, 130)), i * 1_000_000_000 // fps).track_id.tolist())
    assert ids == {1}


def test_one_frame_every_five_seconds_is_a_stream_too(make: Make) -> None:
    tracker = make()
    ids = {i for f in range(20) for i in tracker.update(found((5, 5, 45, 95)), f * 5_000_000_000).track_id.tolist()}
    assert ids == {1}


def test_after_a_gap_in_the_stream_tracks_are_new(make: Make) -> None:
    tracker = make()
    before = walk(tracker, 10)[-1]
    after = walk(tracker, 10, start=10_000)[-1]
    assert not set(before.track_id.tolist()) & set(after.track_id.tolist())


def test_the_life_of_a_track_is_told_once(make: Make) -> None:
    tracker = make()
    present = [True] * 20 + [False] * 8 + [True] * 20 + [False] * 120
    for i, here in enumerate(present):
        shot = found((10 + i, 10, 60 + i, 130), score=0.8) if here else Detections.empty()
        tracker.update(shot, i * FRAME_NS)
    events = tracker.events()
    assert [event.kind for event in events] == ["new", "lost", "resumed", "lost", "ended"]
    last = events[-1]
    assert (last.track_id, last.first_seen_ns, last.last_seen_ns, last.hits) == (1, 0, 47 * FRAME_NS, 40)
    assert last.mean_score == pytest.approx(0.8)
    assert tracker.events() == []


def test_events_agree_with_the_rows(make: Make) -> None:
    tracker, visible = make(), set()
    for i, shot in enumerate(scene(5, objects=15, frames=120)):
        shown = set(tracker.update(shot if i % 40 < 30 else Detections.empty(), i * FRAME_NS).track_id.tolist())
        for event in tracker.events():
            if event.kind in ("new", "resumed"):
                assert event.track_id not in visible
                visible.add(event.track_id)
            else:
                visible.discard(event.track_id)
        assert shown == visible


def test_a_reset_ends_all_tracks(make: Make) -> None:
    tracker = make()
    walk(tracker, 10)
    tracker.events()
    tracker.reset()
    assert Counter(event.kind for event in tracker.events()) == {"ended": 2}


def test_classes_are_kept_apart_where_asked(make: Make) -> None:
    apart, together = make(class_aware=True), make(class_aware=False)
    for i in range(20):
        shot = Detections([[10, 10, 60, 130]], [0.9], [0 if i < 10 else 1])
        ids = [tracker.update(shot, i * FRAME_NS).track_id.tolist() for tracker in (apart, together)]
    assert ids == [[2], [1]]


def test_hours_of_passers_by_leave_nothing_behind(make: Make) -> None:
    """A group of three passes every minute for four simulated hours, and nobody reads the events."""
    minutes = 4 * 60
    tracker = make(max_objects=20)
    sizes = []
    for minute in range(minutes):
        for step in range(4):
            boxes = [(100.0 * i + 5 * step, 0.0, 100.0 * i + 60 + 5 * step, 120.0) for i in range(3)]
            tracks = tracker.update(found(*boxes), minute * 60_000_000_000 + step * 100_000_000)
        sizes.append(tracker.size)
    assert tracks.track_id.max() == 3 * minutes
    assert max(sizes) <= 6
    assert len(tracker.events()) <= 10 * 20


def test_no_more_objects_are_remembered_than_allowed(make: Make) -> None:
    tracker, rng = make(max_objects=50), np.random.default_rng(0)
    for i in range(60):
        corner = rng.uniform(0, 5000, (100, 2))
        tracker.update(Detections(np.hstack((corner, corner + 50)), np.full(100, 0.9), np.zeros(100)), i * FRAME_NS)
        assert tracker.size <= 100


def test_a_parameter_out_of_range_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match="lost_s is -1"):
        make(lost_s=-1)


CLOCKS = {
    "goes back an hour": lambda i: i * FRAME_NS + (3600 * 10**9 if i < 20 else 0),
    "begins again at 0": lambda i: (i if i < 20 else i - 20) * FRAME_NS,
    "stands still": lambda i: 0,
    "goes back in small steps": lambda i: (i - 3 * (i % 2)) * FRAME_NS,
}


@pytest.mark.parametrize("clock", list(CLOCKS.values()), ids=list(CLOCKS))
def test_time_that_does_not_rise_leaves_no_ghosts_and_keeps_ids(make: Make, clock: Callable[[int], int]) -> None:
    """Joined recordings: objects up to the join and a little beyond, then an empty scene for four seconds."""
    tracker = make()
    shown = []
    for i in range(26):
        boxes = (10 + 3 * i, 10, 50 + 3 * i, 110), (400 - 3 * i, 200, 440 - 3 * i, 300)
        shown.append(tracker.update(found(*boxes), clock(i)))
    assert {tuple(tracks.track_id.tolist()) for tracks in shown[3:]} == {(1, 2)}
    empty = [tracker.update(Detections.empty(), clock(i)) for i in range(26, 200)]
    assert not any(len(tracks) for tracks in empty[30:])
    assert tracker.size == 0
    assert Counter(event.kind for event in tracker.events()) == {"new": 2, "lost": 2, "ended": 2}
