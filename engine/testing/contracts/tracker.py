"""What the pipeline relies on in a tracker."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.data import Detections, Tracks
from engine.protocols import Tracker
from engine.testing.contracts.base import FRAME_NS, ensure, run_all

MakeTracker = Callable[[], Tracker]


def walk(tracker: Tracker, frames: int, start: int = 0) -> list[Tracks]:
    """Return the tracks of two objects that move towards each other on separate lines."""
    shown = []
    for step in range(start, start + frames):
        boxes = [(10 + 3 * step, 10, 50 + 3 * step, 110), (400 - 3 * step, 200, 440 - 3 * step, 300)]
        shown.append(tracker.update(Detections(boxes, [0.9, 0.9], [0, 0]), step * FRAME_NS))
    return shown


def it_has_the_members(make: MakeTracker) -> None:
    """The tracker has `update`, `reset` and `clone`."""
    tracker = make()
    ensure(isinstance(tracker, Tracker), f"the members of engine.Tracker; found {type(tracker).__name__}")


def rows_name_the_detections_they_are_made_from(make: MakeTracker) -> None:
    """`detection_index` is a row of the detections, or -1."""
    for tracks in walk(make(), 10):
        index = tracks.detection_index
        ensure(((index >= -1) & (index < 2)).all(), f"detection_index is -1 to 1 for 2 detections; found {index}")
        own = index[index >= 0]
        ensure(len(set(own.tolist())) == len(own), "no detection belongs to two tracks")


def ids_are_unique_on_a_frame_and_stay_with_their_object(make: MakeTracker) -> None:
    """Two objects that stay apart each keep their id."""
    shown = walk(make(), 40)[5:]
    for tracks in shown:
        ensure(len(set(tracks.track_id.tolist())) == len(tracks), "an id occurs once per frame")
    ensure(len({tuple(sorted(tracks.track_id.tolist())) for tracks in shown}) == 1, "ids stay with their objects")


def no_detections_are_no_failure(make: MakeTracker) -> None:
    """No rows, and a frame without detection (`None`), are valid input."""
    tracker = make()
    ensure(len(tracker.update(Detections.empty(), 0)) == 0, "nothing found gives no track")
    ensure(len(tracker.update(None, FRAME_NS)) == 0, "no detection at the beginning gives no track")
    walk(tracker, 10, start=2)
    ensure(np.isfinite(tracker.update(None, 13 * FRAME_NS).xyxy).all(), "predicted boxes are finite")


def ids_are_never_used_again(make: MakeTracker) -> None:
    """Ids continue counting after `reset`."""
    tracker = make()
    first = {i for tracks in walk(tracker, 10) for i in tracks.track_id.tolist()}
    tracker.reset()
    second = {i for tracks in walk(tracker, 10, start=100) for i in tracks.track_id.tolist()}
    ensure(first and second, "objects seen ten times are tracked")
    ensure(not first & second, f"no id comes back after a reset; found {sorted(first & second)}")


def a_clone_shares_nothing(make: MakeTracker) -> None:
    """Every source gets a clone, which shares no state with the others."""
    tracker = make()
    walk(tracker, 10)
    clone = tracker.clone()
    ensure(clone is not tracker, "clone returns another object")
    ensure(len(clone.update(None, 10 * FRAME_NS)) == 0, "a clone has no tracks")
    before = [tracks.track_id.tolist() for tracks in walk(tracker, 5, start=10)]
    walk(clone, 5)
    after = [tracks.track_id.tolist() for tracks in walk(tracker, 5, start=15)]
    ensure(before[-1] == after[0], "tracking in a clone changes nothing here")


def a_repeated_or_earlier_time_is_no_failure(make: MakeTracker) -> None:
    """Stream times may stand still or go back."""
    tracker = make()
    for captured_ns in (10, 10, 5, 20):
        tracks = tracker.update(Detections([[0, 0, 40, 90]], [0.9], [0]), captured_ns)
    ensure(np.isfinite(tracks.xyxy).all(), "boxes stay finite")


def detections_are_not_changed(make: MakeTracker) -> None:
    """The columns are shared and read-only."""
    found = Detections([[0, 0, 40, 90], [50, 50, 90, 140]], [0.9, 0.8], [0, 1])
    before = found.xyxy.copy(), found.score.copy()
    make().update(found, 0)
    ensure((found.xyxy == before[0]).all() and (found.score == before[1]).all(), "detections stay as they are")


TRACKER_CHECKS = (
    it_has_the_members,
    rows_name_the_detections_they_are_made_from,
    ids_are_unique_on_a_frame_and_stay_with_their_object,
    no_detections_are_no_failure,
    ids_are_never_used_again,
    a_clone_shares_nothing,
    a_repeated_or_earlier_time_is_no_failure,
    detections_are_not_changed,
)


def check_tracker(make: MakeTracker) -> None:
    """Check a tracker against its contract.

    Args:
        make: returns a new tracker each time.

    Raises:
        ContractError: the tracker breaks its contract.
    """
    run_all(TRACKER_CHECKS, make)
