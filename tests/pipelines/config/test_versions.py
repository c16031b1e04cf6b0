"""Configuration versions: newer files are refused, older ones are read and rewritten with their comments."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from engine.errors import ConfigError
from pipelines.cli import app
from pipelines.config.file import load_config
from pipelines.config.versions import CURRENT, Rename, migrated, upgraded

OLD = """\
# my cameras
version: 1  # of the format
sources:
  - uri: "0"       # the webcam
  - {uri: rtsp://x/y, cam_name: gate}
models:
  people: {thresh: 0.4}
"""
STEPS = {
    1: [Rename("sources.*.cam_name", "source_id")],
    2: [Rename("models.*.thresh", "score_threshold"), Rename("sources", "inputs")],
}


def test_an_old_file_is_rewritten_and_keeps_its_comments() -> None:
    new = migrated(OLD, STEPS, current=3)
    renamed = (("version: 1", "version: 3"), ("cam_name", "source_id"), ("thresh", "score_threshold"))
    expected = OLD
    for old_name, name in (*renamed, ("sources:", "inputs:")):
        expected = expected.replace(old_name, name)
    assert new == expected
    tree = yaml.safe_load(new)
    assert tree == upgraded(yaml.safe_load(OLD), "old.yaml", STEPS, current=3)
    assert (tree["version"], tree["inputs"][1]["source_id"]) == (3, "gate")


def test_a_file_without_a_version_gets_one_after_its_first_comments() -> None:
    assert migrated("# mine\n\nsources: []\n") == f"# mine\n\nversion: {CURRENT}\nsources: []\n"
    assert migrated(migrated("sources: []\n")) == migrated("sources: []\n")


@pytest.mark.parametrize(
    ("version", "message"), [("99", "reads up to"), ("zero", "expected a number"), ("0", "expected")]
)
def test_a_version_that_cannot_be_read_is_refused_with_a_remedy(tmp_path: Path, version: str, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"version: {version}\nsources: []\n")
    with pytest.raises(ConfigError, match=message):
        load_config(str(file), {})


def test_the_command_shows_the_change_and_writes_only_when_asked(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("# mine\nsources: []\n")
    shown = CliRunner().invoke(app, ["config", "migrate", str(file)])
    assert "+version: 1" in shown.output
    assert file.read_text() == "# mine\nsources: []\n"
    assert CliRunner().invoke(app, ["config", "migrate", str(file), "--write"]).exit_code == 0
    assert file.read_text() == "# mine\nversion: 1\nsources: []\n"
    assert (tmp_path / "run.yaml.bak").read_text() == "# mine\nsources: []\n"
    assert "up to date" in CliRunner().invoke(app, ["config", "migrate", str(file)]).output
    assert load_config(str(file), {}).version == 1
