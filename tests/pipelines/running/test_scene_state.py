"""Totals survive a restart of the engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.analytics.analyser import SceneAnalyser
from engine.analytics.analytics import Analytics
from engine.analytics.places import Line, Zone
from engine.errors import ConfigError
from pipelines.build.scene import restore_scenes
from pipelines.running.scene_state import SceneState
from tests.wire.test_findings import _packets

ALL, DOOR = Zone("all", [(0, 0), (640, 0), (640, 480), (0, 480)]), Line("door", [(320, 480), (320, 0)])


def _counted() -> SceneAnalyser:
    analyser = SceneAnalyser({"gate": Analytics([ALL], [DOOR])})
    for packet in _packets():
        analyser.analyse([packet])
    analyser.close()
    return analyser


def test_totals_are_written_and_continued(tmp_path: Path) -> None:
    file, analyser = tmp_path / "deep" / "totals.json", _counted()
    SceneState(str(file), analyser).write()
    scenes = {"gate": Analytics([ALL], [DOOR]), "new": Analytics([ALL])}
    restore_scenes(str(file), scenes)
    assert scenes["gate"].summary()["lines"] == {"door": {"left_to_right": 1, "right_to_left": 0}}
    assert scenes["gate"].summary()["zones"]["all"]["dwell_s"]["sum"] == pytest.approx(3.0)
    assert [path.name for path in file.parent.iterdir()] == ["totals.json"]


def test_the_file_is_only_written_when_something_changed_and_it_is_due(tmp_path: Path) -> None:
    file, analyser, now = tmp_path / "totals.json", _counted(), [0.0]
    state = SceneState(str(file), analyser, lambda: now[0])
    state.poll()
    file.unlink()
    for _ in range(10):
        now[0] += 0.1
        state.poll()
    assert not file.exists()


def test_a_folder_that_cannot_be_written_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    state = SceneState(str(tmp_path / "file" / "totals.json"), _counted())
    state.write()
    state.write()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="half"),
        pytest.param("[]x", id="no JSON"),
        pytest.param('{"gate": 3}', id="no totals"),
        pytest.param('{"gate": {"version": 1}}', id="parts are missing"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param("7", id="a number"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "totals.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"analytics\.state: .*remove"):
        restore_scenes(str(file), {"gate": Analytics([ALL])})


def test_a_file_that_is_not_there_means_zero(tmp_path: Path) -> None:
    restore_scenes(str(tmp_path / "none.json"), {"gate": Analytics([ALL])})
    restore_scenes(None, {"gate": Analytics([ALL])})


def _run(file: Path) -> subprocess.Popen[bytes]:
    scene = "gate=synthetic://?width=160&height=120&fps=50&objects=4&realtime=1"
    places = ["--line", "gate.door=80,120,80,0", "--zone", "gate.all=0,0,1,0,1,1,0,1"]
    options = ["--model", "motion", "--publish", "none", "--set", f"analytics.state={file}", *places]
    command = [sys.executable, "-m", "pipelines", "run", "--source", scene, *options]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _visits(file: Path) -> int:
    try:
        state: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return 0
    return sum(state["gate"]["counters"]["visits"]["all"].values())


def test_totals_are_never_lower_after_a_kill(tmp_path: Path) -> None:
    file, before = tmp_path / "totals.json", 0
    for _ in range(2):
        process = _run(file)
        try:
            deadline = time.monotonic() + 60
            while _visits(file) <= before:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert _visits(file) > before
        before = _visits(file)
