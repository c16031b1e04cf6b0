"""Frames that the network held back are as old as they are, not as fresh as they came."""

from __future__ import annotations

import pytest

from engine.sources.backlog import Backlog

MS = 1_000_000


def lateness(arrivals_ms: list[int], pts_ms: list[int | None]) -> list[int]:
    backlog = Backlog()
    return [
        backlog.late_ns(arrival * MS, None if pts is None else pts * MS) // MS
        for arrival, pts in zip(arrivals_ms, pts_ms, strict=True)
    ]


@pytest.mark.parametrize(
    ("arrivals", "pts", "late"),
    [
        pytest.param([0, 40, 80], [0, 40, 80], [0, 0, 0], id="steady"),
        pytest.param([0, 190, 195, 230], [0, 40, 80, 120], [0, 0, 0, 0], id="jitter below the limit"),
        pytest.param(
            [0, 4000, 4001, 4002, 4042], [0, 40, 80, 120, 160], [0, 3960, 3921, 3882, 0], id="burst, then not"
        ),
        pytest.param([0, 4000, 4040], [0, 40, 80], [0, 3960, 0], id="the camera itself paused"),
        pytest.param([0, 4000, 4040], [0, 4000, 4040], [0, 0, 0], id="a gap that stream time shows"),
        pytest.param([0, 4000, 4001], [9000, 40, 80], [0, 0, 0], id="stream time begins anew"),
        pytest.param([0, 4000], [0, None], [0, 0], id="no stream time"),
        pytest.param([0, 1000, 2000], [0, 1000, 2000], [0, 0, 0], id="a slow camera"),
    ],
)
def test_lateness(arrivals: list[int], pts: list[int | None], late: list[int]) -> None:
    assert lateness(arrivals, pts) == late


def test_a_burst_that_catches_up_ends_at_zero() -> None:
    arrivals = [0, 1000, *(1000 + n for n in range(1, 40))]
    assert lateness(arrivals, [40 * n for n in range(41)])[-1] == 0
