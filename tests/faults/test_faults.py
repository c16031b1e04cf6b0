"""Camera and network faults on a running engine: nothing hangs, nothing is invented, everything is counted.

The whole list, with longer faults, is `tools/faults.py`; its table is `docs/faults.md`.
"""

from __future__ import annotations

import json
import subprocess
import sys
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
    pytest.param(lambda: catalogue.by_udp(2.0, late=0.1), [], id="UDP packets reordered"),
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


@pytest.mark.parametrize("fault", [catalogue.disk_full_while_recording, catalogue.disk_full_while_saving])
def test_a_full_disk_is_told_and_detection_goes_on(fault: Callable[[], Outcome]) -> None:
    try:
        outcome = fault()
    except catalogue.NotPlayableError as error:
        pytest.skip(str(error))
    assert "No space left on device" in outcome.notes[0]
    before, during, after = (phase.fps for phase in outcome.victim)
    assert min(during, after) > 0.7 * before
    assert outcome.states == ()
    check(outcome)


def test_the_verb_plays_a_fault_and_prints_it() -> None:
    line = [sys.executable, "-m", "pipelines", "bench", "--faults", "--only", "connection refused", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout.splitlines()[-1]).values()
    assert outcome["is_accounted"]
    assert outcome["victim"][2]["fps"] == 0
    assert outcome["healthy"][2]["fps"] > 0


def check(outcome: Outcome) -> None:
    """Check what must hold after every fault."""
    assert outcome.is_accounted, outcome.sources
    assert outcome.is_genuine
    assert outcome.stopped_in_time
    before, during, after = (phase.fps for phase in outcome.healthy)
    assert during > 0.7 * before, "the healthy camera keeps its rate"
    assert after > 0.7 * before
