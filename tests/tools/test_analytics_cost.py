"""What zones, lines and rules cost, compared with the tracker that they follow."""

from __future__ import annotations

from tools.analytics_cost import SIZE_WH, cpu_ms, crowd, scene, tracker_ms


def test_fifty_objects_at_eight_places_cost_less_than_their_tracker() -> None:
    frames = crowd()[:200]
    own, tracker = [], []
    for _ in range(5):
        own.append(cpu_ms(frames, scene(4, 4), SIZE_WH))
        tracker.append(tracker_ms(frames))
    assert min(own) < min(tracker)
