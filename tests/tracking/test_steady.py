from __future__ import annotations

from engine.data import Detections
from engine.tracking.bytetrack import ByteTrack
from engine.tracking.steady import SteadyTrack

FRAME_NS = 33_333_333


def passing(i: int) -> Detections:
    """A person walks behind a wider one who stands still, and is not detected while fully covered."""
    x = 100.0 + 3 * i
    boxes = [(300.0, 100.0, 400.0, 320.0)]
    if not 300 <= x <= 360:
        boxes.append((x, 120.0, x + 40, 280.0))
    return Detections(boxes, [0.9] * len(boxes), [0] * len(boxes))


def test_a_track_is_shown_while_another_covers_it() -> None:
    tracker = SteadyTrack()
    shown = [tracker.update(passing(i), i * FRAME_NS) for i in range(120)][5:]
    assert {tuple(tracks.track_id.tolist()) for tracks in shown} == {(1, 2)}
    assert sum(int((tracks.detection_index < 0).sum()) for tracks in shown) == 20


def test_bytetrack_leaves_a_gap_there() -> None:
    tracker = ByteTrack()
    shown = [tracker.update(passing(i), i * FRAME_NS) for i in range(120)][5:]
    assert {len(tracks) for tracks in shown} == {1, 2}


def test_a_track_that_is_missing_for_no_reason_is_lost() -> None:
    tracker = SteadyTrack()
    for i in range(30):
        tracker.update(Detections([[10, 10, 60, 130]], [0.9], [0]), i * FRAME_NS)
    assert len(tracker.update(Detections.empty(), 30 * FRAME_NS)) == 0


def test_coasting_shows_it_for_a_moment() -> None:
    tracker = SteadyTrack(coast_s=0.1)
    for i in range(30):
        tracker.update(Detections([[10, 10, 60, 130]], [0.9], [0]), i * FRAME_NS)
    assert [len(tracker.update(Detections.empty(), i * FRAME_NS)) for i in (30, 31, 32, 33)] == [1, 1, 1, 0]


def test_weak_detections_have_to_persist_longer() -> None:
    first_shown = {}
    for score in (0.9, 0.4):
        tracker = SteadyTrack(low_score=0.1)
        tracker.update(Detections.empty(), 0)
        shown = [tracker.update(Detections([[10, 10, 60, 130]], [score], [0]), i * FRAME_NS) for i in range(1, 10)]
        first_shown[score] = [len(tracks) for tracks in shown].index(1)
    assert first_shown == {0.9: 1, 0.4: 3}
