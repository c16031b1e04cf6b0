"""Faults of cameras and networks, played to a running engine: nothing hangs, nothing is invented, all is counted.

The whole list, with longer faults, is `tools/faults.py`; its table is `docs/faults.md`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults import catalogue
from tests.faults.lab import Outcome
from tests.rtsp_server import missing_server

pytestmark = pytest.mark.rtsp


@pytest.fixture(autouse=True, scope="module")
def _rtsp_server() -> None:
    if missing_server():
        pytest.skip(missing_server())


RECOVERING = [
    pytest.param(lambda: catalogue.server_away(1), ["offline", "connecting", "live"], id="server killed"),
    pytest.param(lambda: catalogue.half_open(5.5), ["stalled", "offline", "connecting", "live"], id="half-open TCP"),
    pytest.param(lambda: catalogue.corrupt_bytes(2), [], id="corrupt bytes"),
    pytest.param(lambda: catalogue.changed_server(size="640x480"), ["offline", "connecting", "live"], id="new size"),
    pytest.param(lambda: catalogue.changed_server(codec="h265"), ["offline", "connecting", "live"], id="new codec"),
    pytest.param(catalogue.mid_gop_join, [], id="join between keyframes"),
    pytest.param(lambda: catalogue.clock_step(-3600), [], id="wall clock steps back"),
]


@pytest.mark.parametrize(("fault", "states"), RECOVERING)
def test_a_fault_is_survived(fault: Callable[[], Outcome], states: list[str]) -> None:
    outcome = fault()
    assert outcome.recovery_s is not None
    assert outcome.victim[2].fps > 0
    assert set(states) <= set(outcome.states)
    check(outcome)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(lambda: catalogue.unreachable("rtsp://127.0.0.1:9/x"), "refused", id="connection refused"),
    ],
)
def test_a_camera_that_never_comes_changes_nothing_for_the_other(fault: Callable[[], Outcome], words: str) -> None:
    outcome = fault()
    assert outcome.victim[2].fps == 0
    assert any(words in reason for reason in outcome.reasons)
    check(outcome)


def check(outcome: Outcome) -> None:
    """Hold what is true of every fault."""
    assert outcome.is_accounted, outcome.sources
    assert outcome.is_genuine
    assert outcome.stopped_in_time
    before, during, after = (phase.fps for phase in outcome.healthy)
    assert during > 0.7 * before, "the healthy camera keeps its rate"
    assert after > 0.7 * before
