"""How often the detector runs for sources with `detect_hz: auto`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from engine.clock import NS_PER_S
from engine.data import Detections, Frame, Tracks
from engine.flow.attention.gate import FrameGate
from engine.flow.attention.pace import MOVING_HZ, MOVING_NS, STILL_HZ, Pace
from engine.flow.pipeline import Pipeline
from engine.protocols import DetectorBase
from engine.tracking.steady import SteadyTrack
from tests.fakes import CountingSource

FRAME_NS = NS_PER_S // 25


def noted(pace: Pace, frames: range, *, step: float = 0.0, ids: Sequence[int] = (1,), unmatched: int = 0) -> int:
    """Let the pace see tracks of 40 x 80 pixels that move by `step` per frame; return the time of the last frame."""
    for number in frames:
        corner = np.array([[100.0 + number * step, 100.0 * row] for row in range(len(ids))], np.float32).reshape(-1, 2)
        xyxy = np.concatenate((corner, corner + np.array([40, 80], np.float32)), axis=1)
        tracks = Tracks(xyxy, np.ones(len(ids)), np.zeros(len(ids)), ids, None, np.arange(len(ids)))
        more = np.array([[500, 500, 540, 580]] * unmatched, np.float32).reshape(-1, 4)
        found = Detections(
            np.concatenate((xyxy, more)), np.full(len(ids) + unmatched, 0.9), [0] * (len(ids) + unmatched)
        )
        pace.note("gate", tracks, found, number * FRAME_NS)
    return frames[-1] * FRAME_NS


def test_the_rate_follows_how_far_objects_move_for_their_size() -> None:
    pace = Pace()
    assert pace.hz("gate", 0) is None
    at_ns = noted(pace, range(100))
    assert pace.hz("gate", at_ns) == STILL_HZ
    at_ns = noted(pace, range(100, 120), step=2.0)  # 1.25 widths a second
    assert pace.hz("gate", at_ns) == MOVING_HZ
    at_ns = noted(pace, range(120, 140), step=12.0)  # 7.5 widths a second
    assert pace.hz("gate", at_ns) is None
    at_ns = noted(pace, range(140, 240))
    assert pace.hz("gate", at_ns) == STILL_HZ


@pytest.mark.parametrize(
    "change", [{"ids": (1, 2)}, {"ids": ()}, {"unmatched": 1}], ids=["new", "gone", "no track yet"]
)
def test_what_appears_or_vanishes_is_looked_at_more_often_for_a_while(change: dict[str, int]) -> None:
    pace = Pace()
    noted(pace, range(100))
    at_ns = noted(pace, range(100, 101), **change)  # type: ignore[arg-type]
    assert pace.hz("gate", at_ns) == MOVING_HZ
    assert pace.hz("gate", at_ns + MOVING_NS) == STILL_HZ


def test_trembling_boxes_stand_still() -> None:
    pace, random = Pace(), np.random.default_rng(0)
    for number in range(200):
        xyxy = np.array([[100, 100, 140, 180]], np.float32) + random.normal(0, 0.7, 4).astype(np.float32)
        tracks = Tracks(xyxy, [1], [0], [7], None, [0])
        pace.note("gate", tracks, Detections(xyxy, [1], [0]), number * FRAME_NS)
    assert pace.hz("gate", 199 * FRAME_NS) == STILL_HZ


def test_time_that_goes_back_begins_again() -> None:
    pace = Pace()
    noted(pace, range(1000, 1100))
    at_ns = noted(pace, range(3))
    assert pace.hz("gate", at_ns) == MOVING_HZ
    pace.forget("gate")
    assert pace.hz("gate", at_ns) is None


class _Found:
    def __init__(self, found: list[Detections]) -> None:
        self._found = found
        self.stage_ms: dict[str, float] = {}

    def result(self) -> list[Detections]:
        return self._found


class _Walker(DetectorBase):
    """One box, which walks from frame 100 on."""

    name, class_names, depth, max_batch = "walker", ("person",), 1, 1

    def submit(self, frames: Sequence[Frame]) -> _Found:
        left = [100.0 + 8.0 * max(frame.frame_id - 100, 0) for frame in frames]
        return _Found([Detections([[x, 100, x + 40, 180]], [0.9], [0]) for x in left])


def test_a_run_detects_as_often_as_its_tracks_need() -> None:
    source = CountingSource("gate", 200)  # ten frames per second of stream time
    detected, ids = [], set()
    with Pipeline(source, _Walker(), SteadyTrack(), rules={"gate": FrameGate(detect_hz="auto")}) as pipeline:
        for packet in pipeline:
            detected.append(packet.is_detected)
            ids.update(packet.tracks.track_id.tolist())
    assert ids == {1}
    assert sum(detected[40:100]) <= 50  # 7.5 of 10
    assert sum(detected[110:]) >= 85
