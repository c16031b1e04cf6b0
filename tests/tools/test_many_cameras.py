"""The tool that finds how many cameras a machine carries."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.freshness.ages import Part
from tests.freshness.many_cameras import Arrivals, ManyCameras
from tests.media import encode_clip, numbered_images
from tools.many_cameras import camera_settings, is_carried, largest, rotated


def report(p99: float, published: int, silent: int) -> ManyCameras:
    return ManyCameras(2, 1000, published, silent, 1.0, 10.0, 10.0, (Part(1000, 50.0, p99),), (), True, 0.1, 0, {})


@pytest.mark.parametrize("carried", [0, 1, 2, 3, 7, 11, 31, 32])
def test_the_largest_number_is_found_in_few_trials(carried: int) -> None:
    tried: list[int] = []
    assert largest(lambda count: tried.append(count) or count <= carried, 32) == carried  # type: ignore[func-returns-value]
    assert len(tried) == len(set(tried)) <= 10
    assert all(1 <= count <= 32 for count in tried)


@pytest.mark.parametrize(
    ("p99", "published", "silent", "expected"),
    [
        (300.0, 1000, 0, True),
        (300.0, 991, 0, True),
        (300.0, 990, 0, False),
        (1200.0, 1000, 0, False),
        (300.0, 1000, 1, False),
    ],
)
def test_cameras_are_carried_while_results_are_young_and_complete(
    p99: float, published: int, silent: int, expected: bool
) -> None:
    assert is_carried(report(p99, published, silent)) is expected


def test_frames_are_counted_for_each_connection_of_each_camera() -> None:
    arrivals = Arrivals()
    for source_id, epoch, frame_ids in (("a", 0, (500, 501, 504)), ("b", 0, (7,)), ("a", 1, (0, 1))):
        for frame_id in frame_ids:
            arrivals.add(source_id, epoch, frame_id)
    assert (arrivals.captured, arrivals.published, arrivals.cameras) == (5 + 1 + 2, 6, 2)


def test_settings_of_each_camera_are_written_out() -> None:
    assert camera_settings(["each.detect_hz=auto", "detector.size=640"], 2) == [
        "sources.0.detect_hz=auto",
        "sources.1.detect_hz=auto",
        "detector.size=640",
    ]


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]


def test_a_rotated_clip_begins_in_the_middle_and_loses_nothing(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    encode_clip(clip, numbered_images(40), options={"g": "10", "sc_threshold": "0", "bf": "2"})
    copies = [rotated(clip, tmp_path, share, speed=0.5) for share in (0.0, 0.3, 0.52, 0.8)]
    whole = pictures(clip)
    for copy, begin in zip(copies, (0, 10, 20, 30), strict=True):
        assert all(map(np.array_equal, pictures(copy), whole[begin:] + whole[:begin]))
        with av.open(str(copy)) as file:
            times = [frame.time for frame in file.decode(video=0)]
        assert np.allclose(np.diff(times), 2 / 25, atol=0.002)  # also where the end meets the beginning
