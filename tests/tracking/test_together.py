"""Updating the trackers of several cameras in one step gives what one by one gives, to the bit."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from engine.data import Detections, Tracks
from engine.tracking.base import BaseTracker
from engine.tracking.registry import tracker_by_name
from engine.tracking.together import JointTrackers

TRACKERS = [
    pytest.param("steady", {}, id="steady"),
    pytest.param("steady", {"coast_s": 0.3, "hidden_share": 0.3, "class_aware": True}, id="steady, by class"),
    pytest.param("bytetrack", {"confirm_hits": 1}, id="bytetrack, one hit"),
    pytest.param("bytetrack", {"max_objects": 4, "lost_s": 0.2}, id="bytetrack, few objects"),
    pytest.param("botsort", {}, id="botsort"),
    pytest.param("ocsort", {"confirm_hits": 2, "lost_s": 3.0}, id="ocsort"),
    pytest.param("sort", {"min_overlap": 0.1}, id="sort"),
]
COLUMNS = ("xyxy", "score", "class_id", "track_id", "age", "detection_index")
FRAME_NS = 66_666_667


class Scene:
    """Objects that move through the view of one camera; some frames miss some of them, or contain false detections."""

    def __init__(self, seed: int, objects: int) -> None:
        self._random = np.random.default_rng(seed)
        self._centre = self._random.uniform(0, 600, (objects, 2))
        self._speed = self._random.normal(0, 6, (objects, 2))
        self._size = self._random.uniform(20, 120, (objects, 2))

    def step(self) -> Detections:
        self._centre = (self._centre + self._speed) % 640
        seen = self._random.random(len(self._centre)) < 0.85
        noise = self._random.normal(0, 2, (len(self._centre), 4))
        xyxy = np.concatenate((self._centre - self._size / 2, self._centre + self._size / 2), axis=1) + noise
        extra = self._random.uniform(0, 600, (int(self._random.integers(0, 3)), 2))
        xyxy = np.concatenate((xyxy[seen], np.concatenate((extra, extra + 40), axis=1)))
        # few different scores and boxes on a grid: many ties
        score = self._random.integers(2, 20, len(xyxy)) / 20
        if self._random.random() < 0.3:
            xyxy = np.round(xyxy / 16) * 16
        if self._random.random() < 0.05 and len(xyxy):
            xyxy[0] = np.nan
        return Detections(xyxy.astype(np.float32), score.astype(np.float32), self._random.integers(0, 2, len(xyxy)))


def assert_equal(found: Tracks, expected: Tracks) -> None:
    for name in COLUMNS:
        left, right = getattr(found, name), getattr(expected, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.mark.parametrize("objects", [3, 12, 40], ids="{} objects".format)
@pytest.mark.parametrize(("name", "parameters"), TRACKERS)
def test_together_is_one_by_one_to_the_bit(name: str, parameters: dict[str, Any], objects: int) -> None:
    """Random sets of cameras, dropped frames, pauses, clocks that go back, skipped detections, and resets."""
    random = np.random.default_rng(7)
    count = 6
    scenes = [Scene(seed, max(1, objects - 2 * seed)) for seed in range(count)]
    alone = [tracker_by_name(name, **parameters) for _ in range(count)]
    jointly = [tracker_by_name(name, **parameters) for _ in range(count)]
    joint = JointTrackers()
    now = [int(camera * 1e9) for camera in range(count)]
    shown = 0
    cameras: list[int] = []
    for _ in range(90):
        if not cameras or random.random() < 0.5:  # else the same as before: their tables are still joined
            cameras = random.permutation(count)[: random.integers(1, count + 1)].tolist()
        given: list[Detections | None] = []
        for camera in range(count):  # scenes go on, whether a frame is dropped or not
            found = scenes[camera].step()
            now[camera] += FRAME_NS + int(random.integers(0, 1000))
            now[camera] += int(random.choice([0, 0, 0, 0, 0, 0, 0, 0, 3e9, -5e9, -FRAME_NS]))
            if camera in cameras:
                given.append(None if random.random() < 0.2 else found)
        cameras.sort()
        if random.random() < 0.1:
            alone[cameras[0]].reset()
            jointly[cameras[0]].reset()
        times = [now[camera] for camera in cameras]
        together = joint.update([jointly[camera] for camera in cameras], given, times)
        for camera, detections, at_ns, tracks in zip(cameras, given, times, together, strict=True):
            assert_equal(tracks, alone[camera].update(detections, at_ns))
            shown += len(tracks)
            left, right = jointly[camera], alone[camera]
            assert isinstance(left, BaseTracker) and isinstance(right, BaseTracker)  # noqa: PT018
            assert left.size == right.size
            if random.random() < 0.5:
                assert left.events() == right.events()
    assert shown > 100
    for left, right in zip(jointly, alone, strict=True):
        assert left.events() == right.events()  # type: ignore[attr-defined]


def test_trackers_of_several_kinds_and_others_are_updated_side_by_side() -> None:
    names = ["steady", "none", "sort", "steady", "botsort", "sort"]
    scenes = [Scene(seed, 5) for seed in range(len(names))]
    make = [tracker_by_name(name, **({"camera_motion": True} if name == "botsort" else {})) for name in names]
    alone = [tracker.clone() for tracker in make]
    joint = JointTrackers()
    for step in range(10):
        given = [scene.step() for scene in scenes]
        times = [step * FRAME_NS] * len(names)
        for tracks, tracker, found in zip(joint.update(make, given, times), alone, given, strict=True):
            assert_equal(tracks, tracker.update(found, step * FRAME_NS))


def test_tracks_stay_as_they_were_when_the_trackers_go_on() -> None:
    """The tables are changed in place; what was returned is a copy, contiguous, in C order."""
    boxes = np.array([[0, 0, 40, 80], [200, 0, 240, 80]], np.float32)
    trackers, joint = [tracker_by_name("steady") for _ in range(3)], JointTrackers()
    kept: list[tuple[Tracks, list[Any]]] = []
    for step in range(6):
        found = Detections(boxes + 3 * step, [0.9, 0.8], [0, 0])
        returned = joint.update(trackers, [found] * 3, [step * FRAME_NS] * 3)
        kept += [(tracks, [getattr(tracks, name).copy() for name in COLUMNS]) for tracks in returned]
    for tracks, columns in kept:
        assert len(tracks) == 2
        assert tracks.xyxy.flags.c_contiguous
        for name, expected in zip(COLUMNS, columns, strict=True):
            np.testing.assert_array_equal(getattr(tracks, name), expected, err_msg=name)


def test_cameras_without_objects_take_part() -> None:
    trackers = [tracker_by_name("steady") for _ in range(3)]
    joint = JointTrackers()
    empty, one = Detections.empty(), Detections([[0, 0, 40, 40]], [0.9], [0])
    for step in range(3):
        tracks = joint.update(trackers, [empty, one, empty], [step * FRAME_NS] * 3)
    assert [len(found) for found in tracks] == [0, 1, 0]
    assert joint.update([], [], []) == []


def test_many_cameras_together_take_a_fraction_of_the_time() -> None:
    """A ratio of two loops in one run: 32 cameras with 10 objects, the best of several rounds each."""
    scenes = [Scene(seed, 10) for seed in range(32)]
    frames = [[scene.step() for scene in scenes] for _ in range(12)]
    spent: dict[str, list[float]] = {"alone": [], "together": []}
    for _ in range(3):
        alone = [tracker_by_name("steady") for _ in scenes]
        jointly = [tracker_by_name("steady") for _ in scenes]
        joint = JointTrackers()
        for step, given in enumerate(frames):
            started = time.process_time()
            for tracker, found in zip(alone, given, strict=True):
                tracker.update(found, step * FRAME_NS)
            middle = time.process_time()
            joint.update(jointly, given, [step * FRAME_NS] * len(scenes))
            spent["alone"].append(middle - started)
            spent["together"].append(time.process_time() - middle)
    assert min(spent["together"][4:]) < 0.6 * min(spent["alone"][4:])
