"""The parts fulfil their contracts, and run by name and by module:attribute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from my_parts.bright import BrightDetector  # noqa: E402
from my_parts.nearest import NearestTracker  # noqa: E402
from my_parts.queue_length import QueueLength  # noqa: E402

from engine.testing import (  # noqa: E402
    ANALYSER_CHECKS,
    DETECTOR_CHECKS,
    TRACKER_CHECKS,
    check_analyser,
    check_detector,
    check_tracker,
    name_of,
)


def test_the_parts_keep_their_contracts() -> None:
    check_detector(BrightDetector)
    check_tracker(NearestTracker)
    check_analyser(QueueLength)


CHECKS = [
    *[(check, BrightDetector) for check in DETECTOR_CHECKS],
    *[(check, NearestTracker) for check in TRACKER_CHECKS],
    *[(check, QueueLength) for check in ANALYSER_CHECKS],
]


@pytest.mark.parametrize(
    ("check", "make"), CHECKS, ids=lambda value: name_of(value) if hasattr(value, "__code__") else ""
)
def test_each_point_of_a_contract_is_a_test_of_its_own(check, make) -> None:  # type: ignore[no-untyped-def]
    check(make)


def test_a_run_finds_the_parts_by_module_and_attribute() -> None:
    command = [sys.executable, "-m", "pipelines", "run", str(HERE / "run_uninstalled.yaml"), "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parents[1])))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["model"] == "bright"
    assert summary["sources"]["gate"]["published"] == 50
    assert "analyse" in summary["stage_ms"]
