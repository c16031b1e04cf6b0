"""The tool that finds how many cameras a machine carries."""

from __future__ import annotations

import pytest

from tests.freshness.ages import Part
from tests.freshness.many_cameras import ManyCameras
from tools.many_cameras import camera_settings, is_carried, largest


def report(p99: float, dropped: dict[str, int]) -> ManyCameras:
    sources = {"cam0": {"captured": 1000, "published": 1000 - sum(dropped.values()), "dropped": dropped}}
    return ManyCameras(1, 1.0, 10.0, 10.0, (Part(1000, 50.0, p99),), (), True, 0.1, 0, sources)


@pytest.mark.parametrize("carried", [0, 1, 2, 3, 7, 11, 31, 32])
def test_the_largest_number_is_found_in_few_trials(carried: int) -> None:
    tried: list[int] = []
    assert largest(lambda count: tried.append(count) or count <= carried, 32) == carried  # type: ignore[func-returns-value]
    assert len(tried) == len(set(tried)) <= 10
    assert all(1 <= count <= 32 for count in tried)


@pytest.mark.parametrize(
    ("p99", "dropped", "expected"),
    [
        (300.0, {}, True),
        (300.0, {"stale": 9, "shutdown": 5}, True),
        (300.0, {"overflow": 6, "age": 4}, False),
        (1200.0, {}, False),
    ],
)
def test_cameras_are_carried_while_results_are_young_and_complete(
    p99: float, dropped: dict[str, int], expected: bool
) -> None:
    assert is_carried(report(p99, dropped)) is expected


def test_settings_of_each_camera_are_written_out() -> None:
    assert camera_settings(["each.detect_hz=auto", "detector.size=640"], 2) == [
        "sources.0.detect_hz=auto",
        "sources.1.detect_hz=auto",
        "detector.size=640",
    ]
