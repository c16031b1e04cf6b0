"""What `framewire run` loads before its first frame: only what its configuration needs.

Each module in `UNNEEDED` was once loaded by every run and cost it time. The test counts modules, not seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pipelines import cli

SYNTHETIC = "synthetic://?width=64&height=48&fps=25&count=3&seed=1"
UNNEEDED = (
    "asyncio",
    "engine.analytics.analytics",
    "engine.backends.tensorrt",
    "engine.sinks.camera_video.record_process",
    "engine.sinks.media",
    "engine.video.sandbox",
    "pipelines.verbs.scoring",
    "pipelines.verbs.stream",
    "rich",
)
REPORT = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
from pipelines.entry import main
main()
"""


def modules_of_run(*words: str) -> set[str]:
    """Return the modules that a command has loaded by its end."""
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    command = [sys.executable, "-c", REPORT, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_a_run_loads_only_what_it_needs() -> None:
    loaded = modules_of_run("run", "--source", SYNTHETIC, "--model", "motion", "--json")
    assert {"numpy", "cv2", "zmq", "engine.flow.pipeline", "pipelines.verbs.running.run"} <= loaded
    assert not [name for name in UNNEEDED if name in loaded]


def test_zones_still_load_analytics() -> None:
    zone = "synthetic.door=0.1,0.1,0.9,0.1,0.9,0.9"
    words = ("-q", "run", "--source", SYNTHETIC, "--model", "motion", "--json", "--zone", zone)
    assert "engine.analytics.analytics" in modules_of_run(*words)


def test_every_verb_is_the_same_alone_and_among_all() -> None:
    """Help covers most of a verb that can be compared: its options, their defaults and its subcommands."""
    assert {name for name in cli.VERBS if cli.app_for([name]) is not cli.app} == set(cli.VERBS)
    for name in cli.VERBS:
        alone = CliRunner().invoke(cli.make_app([name]), [name, "--help"], prog_name="framewire")
        among_all = CliRunner().invoke(cli.app, [name, "--help"], prog_name="framewire")
        assert alone.exit_code == 0, alone.output
        assert alone.output == among_all.output


@pytest.mark.parametrize("words", [[], ["--help"], ["-v"], ["no-such-verb"]], ids=" ".join)
def test_without_a_known_verb_all_are_offered(words: list[str]) -> None:
    assert cli.app_for(words) is cli.app


def test_completion_knows_all_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "_FRAMEWIRE_COMPLETE", "complete_bash")
    assert cli.app_for(["run"]) is cli.app
