"""Tests that run alone, and tests that start a pytest, take turns without a deadlock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import CHECKOUT

STARTS_PYTEST = """
import subprocess, sys, time
def test_parent(tmp_path):
    time.sleep(2)  # the other worker waits at the turnstile by now
    (tmp_path / "test_child.py").write_text("def test_child(): pass")
    line = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "--timeout=0", str(tmp_path)]
    assert subprocess.run(line, timeout=40).returncode == 0
"""
RUNS_ALONE = """
import time, pytest
def test_before():
    time.sleep(1)
@pytest.mark.alone
def test_alone():
    pass
"""


def test_a_test_that_starts_pytest_does_not_wait_for_one_that_runs_alone(tmp_path: Path) -> None:
    (tmp_path / "test_parent.py").write_text(STARTS_PYTEST)
    (tmp_path / "test_alone.py").write_text(RUNS_ALONE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone: runs alone\n")
    line = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-n", "2", "--dist=loadfile", str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
