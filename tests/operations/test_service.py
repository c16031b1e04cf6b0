"""The systemd unit: systemd itself finds no error in it, and little exposure."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.errors import ConfigError
from pipelines.cli import app
from pipelines.machine.unit import ServiceOptions, unit_text

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: apt-get install systemd"
)
COMMAND = Path("/usr/bin/env")
DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
VARIANTS = [
    pytest.param({}, id="no devices"),
    pytest.param({"devices": ("video",)}, id="cameras"),
    pytest.param({"devices": ("video", "gpu")}, id="cameras and GPUs"),
    pytest.param({"user": "daemon", "writes": [Path("/srv/recordings 1")]}, id="an account"),
]


def options(**more: object) -> ServiceOptions:
    return ServiceOptions("framewire", Path("/etc/framewire/cameras.yaml"), COMMAND, **more)  # type: ignore[arg-type]


@needs_systemd
@pytest.mark.parametrize("more", VARIANTS)
def test_systemd_verifies_the_unit_and_rates_its_exposure_low(tmp_path: Path, more: dict[str, object]) -> None:
    unit = tmp_path / "framewire.service"
    unit.write_text(unit_text(options(**more)))
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in verified.stderr.splitlines() if "framewire" in line]
    assert (verified.returncode, complaints) == (0, [])
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    match = re.search(r"Overall exposure level for .*: ([\d.]+)", rated.stdout)
    assert match is not None, rated.stdout + rated.stderr
    assert float(match[1]) <= 2.5


def test_models_may_generate_code_and_the_watchdog_is_on() -> None:
    lines = unit_text(options()).splitlines()
    assert {"Type=notify", "WatchdogSec=30s", "DynamicUser=yes", "ProtectSystem=strict"} <= set(lines)
    assert not [line for line in lines if line.startswith(("MemoryDenyWriteExecute", "ProcSubset"))]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"writes": [Path("/srv/recordings")]}, r"writes to /srv/recordings: give --user"),
        ({"reads": [Path("/home/me/model.onnx")]}, r"cannot read /home/me/model.onnx.*home"),
        ({"reads": [Path("/tmp/model.onnx")], "user": "daemon"}, r"cannot read /tmp/model.onnx.*its own /tmp"),
        ({"devices": ["sound"]}, r"expected one of: video, gpu"),
        ({"user": "a b"}, r"expected the name of an account"),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(more: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        unit_text(options(**more))


def test_a_service_is_installed_shown_and_removed(tmp_path: Path) -> None:
    config = DEPLOY / "cameras.yaml"
    words = ["service", "install", str(config), "--user", "daemon", "--folder", str(tmp_path)]
    runner = CliRunner()
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    unit = tmp_path / "framewire.service"
    assert f"run {config}" in unit.read_text()
    assert runner.invoke(app, ["service", "status", "--folder", str(tmp_path)]).exit_code == 0
    assert runner.invoke(app, ["service", "uninstall", "--folder", str(tmp_path)]).exit_code == 0
    assert not unit.exists()
    assert runner.invoke(app, ["service", "status", "--folder", str(tmp_path)]).exit_code == 1


def test_a_unit_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    unit = tmp_path / "framewire.service"
    unit.write_text("[Unit]\n")
    words = ["service", "install", str(DEPLOY / "cameras.yaml"), "--user", "daemon", "--folder", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigError)
    assert unit.read_text() == "[Unit]\n"
