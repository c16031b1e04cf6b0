"""What every tracker must do, whatever its method."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine.data import Detections, Tracks
from engine.protocols import Tracker
from engine.tracking.bytetrack import ByteTrack

FRAME_NS = 33_333_333
TRACKERS = [pytest.param(ByteTrack, id="bytetrack")]

pytestmark = pytest.mark.parametrize("make", TRACKERS)
Make = Callable[[], Tracker]


def found(*boxes: tuple[float, float, float, float], score: float = 0.9) -> Detections:
    return Detections(list(boxes), [score] * len(boxes), [0] * len(boxes))


def walk(tracker: Tracker, frames: int, start: int = 0) -> list[Tracks]:
    """Two people who walk towards each other on separate lines."""
    return [
        tracker.update(found((10 + 3 * i, 10, 50 + 3 * i, 110), (400 - 3 * i, 200, 440 - 3 * i, 300)), i * FRAME_NS)
        for i in range(start, start + frames)
    ]


def test_it_is_a_tracker(make: Make) -> None:
    assert isinstance(make(), Tracker)


def test_two_walkers_keep_their_ids(make: Make) -> None:
    shown = walk(make(), 40)[3:]
    assert {tuple(tracks.track_id.tolist()) for tracks in shown} == {(1, 2)}


def test_a_track_names_the_detection_that_it_was_made_from(make: Make) -> None:
    tracks = walk(make(), 10)[-1]
    boxes = np.float32([[37, 10, 77, 110], [373, 200, 413, 300]])
    assert np.abs(boxes[tracks.detection_index] - tracks.xyxy).max() < 8


def test_no_detections_give_no_rows(make: Make) -> None:
    tracker = make()
    assert len(tracker.update(Detections.empty(), 0)) == 0
    assert len(tracker.update(None, FRAME_NS)) == 0


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


def test_ids_are_never_reused_also_after_a_reset(make: Make) -> None:
    tracker = make()
    first = {i for tracks in walk(tracker, 10) for i in tracks.track_id.tolist()}
    tracker.reset()
    second = {i for tracks in walk(tracker, 10, start=100) for i in tracks.track_id.tolist()}
    assert first
    assert second
    assert not first & second


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
    ids = {i for f in range(3000) for i in tracker.update(found((5, 5, 45, 95)), f * FRAME_NS).track_id.tolist()}
    assert ids == {1}
