"""What zones, lines and rules cost, compared with the tracker that they follow."""

from __future__ import annotations

from tools.analytics_cost import SIZE_WH, cpu_ms, crowd, scene, tracker_ms


def test_fifty_objects_at_eight_places_cost_about_as_much_as_their_tracker() -> None:
    """They cost 0.7 to 0.9 of it; a loop over objects or places would cost several times as much."""
    frames = crowd()[:200]
    own, tracker = [], []
    for _ in range(5):
        own.append(cpu_ms(frames, scene(4, 4), SIZE_WH))
        tracker.append(tracker_ms(frames))
    assert min(own) < 1.3 * min(tracker)
