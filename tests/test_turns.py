"""Tests marked `alone` run once more without others, and tests that start a pytest take turns without a deadlock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, LONGEST

STARTS_PYTEST = """
import pathlib, subprocess, sys, time
def test_parent(tmp_path):
    mark = pathlib.Path("is_running")
    mark.touch()
    while not pathlib.Path("has_failed").exists():
        time.sleep(0.01)
    time.sleep(1)  # the other worker waits at the turnstile by now
    (tmp_path / "test_child.py").write_text("def test_child(): pass")
    line = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "--timeout=0", str(tmp_path)]
    assert subprocess.run(line, timeout=40).returncode == 0
    mark.unlink()
"""
RUNS_ALONE = """
import pathlib, time, pytest
@pytest.mark.alone
def test_alone(tmp_path):
    while not pathlib.Path("has_failed").exists() and not pathlib.Path("is_running").exists():
        time.sleep(0.01)
    if pathlib.Path("is_running").exists():
        pathlib.Path("has_failed").touch()
        assert False, "busy"
"""
FAILS = """
import pathlib, pytest
@pytest.mark.alone
def test_alone(tmp_path):
    with pathlib.Path("runs").open("a") as runs:
        runs.write("x")
    assert False, "always"
"""


def run(folder: Path, *, workers: int) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = alone: runs alone\n")
    line = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-n", str(workers), "--dist=loadfile"]
    environment = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin"}
    return subprocess.run([*line, str(folder)], capture_output=True, text=True, cwd=folder, env=environment)


def test_a_test_that_fails_beside_others_runs_alone_and_waits_for_no_pytest_inside_them(tmp_path: Path) -> None:
    (tmp_path / "test_parent.py").write_text(STARTS_PYTEST)
    (tmp_path / "test_alone.py").write_text(RUNS_ALONE)
    done = run(tmp_path, workers=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert "ALONE test_alone.py::test_alone failed beside others: AssertionError: busy" in done.stdout


@pytest.mark.parametrize(("workers", "runs"), [(2, 2), (0, 1)], ids=["beside others", "one process"])
def test_a_test_that_fails_alone_too_fails(workers: int, runs: int, tmp_path: Path) -> None:
    (tmp_path / "test_alone.py").write_text(FAILS)
    done = run(tmp_path, workers=workers)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    assert (tmp_path / "runs").read_text() == "x" * runs


def test_the_files_that_start_first_are_there() -> None:
    assert [name for name in LONGEST if not (CHECKOUT / name).exists()] == []
