"""The support bundle: everything needed, nothing secret, and written also when things are broken."""

from __future__ import annotations

import json
import stat
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.errors import SinkError
from pipelines.cli import app
from pipelines.machine import support_bundle
from pipelines.metrics.server import MetricsServer, Reply


@pytest.fixture(autouse=True)
def quick_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support_bundle, "doctor", list)  # it runs a model, and has tests of its own


def files_of(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert all(member.isfile() and member.name.startswith("framewire-support/") for member in members)
        return {m.name.partition("/")[2]: archive.extractfile(m).read().decode() for m in members}  # type: ignore[union-attr]


def test_it_has_configuration_logs_health_and_versions_without_secrets(tmp_path: Path) -> None:
    config, log, out = tmp_path / "run.yaml", tmp_path / "run.log", tmp_path / "out.tar.gz"
    config.write_text("sources: [{uri: 'rtsp://admin:magnolia-77@camera.example/live', source_id: gate}]\n")
    log.write_text("x" * 2_000_000 + "\nrefused rtsp://admin:magnolia-77@camera.example/live\n")
    with MetricsServer("127.0.0.1:0") as server:
        server.start({"/metrics": lambda: Reply("up 1\n"), "/healthz": lambda: Reply('{"live": false}\n', 503)})
        words = ["support-bundle", str(config), "--out", str(out), "--log", str(log), "--metrics", server.address]
        done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    found = files_of(out)
    assert set(json.loads(done.stdout)["files"]) == set(found)
    assert "magnolia" not in "".join(found.values())
    assert json.loads(found["config.json"])["sources"][0]["source_id"] == "gate"
    assert found["log.txt"].endswith("camera.example/live\n")
    assert len(found["log.txt"]) <= support_bundle.MAX_LOG_BYTES
    assert (found["metrics.txt"], found["healthz.txt"]) == ("up 1\n", '{"live": false}\n')
    assert "msgspec==" in found["versions.txt"]
    assert json.loads(found["system.json"])["cores"] >= 1
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_it_is_written_also_if_the_configuration_is_broken_and_the_run_is_away(tmp_path: Path) -> None:
    config, out = tmp_path / "run.yaml", tmp_path / "out.tar.gz"
    config.write_text("sourcez: []\n")
    words = [
        "support-bundle",
        str(config),
        "--out",
        str(out),
        "--metrics",
        "127.0.0.1:1",
        "--log",
        str(tmp_path / "no"),
    ]
    assert CliRunner().invoke(app, words).exit_code == 0
    found = files_of(out)
    assert "did you mean sources" in json.loads(found["config.json"])["error"]
    assert "refused" in found["metrics.txt"]
    assert "FileNotFoundError" in found["log.txt"]


def test_it_replaces_no_file(tmp_path: Path) -> None:
    out = tmp_path / "out.tar.gz"
    out.write_text("mine")
    with pytest.raises(SinkError, match="File exists"):
        support_bundle.write_bundle(out, config=None, address=None, log=None, service="framewire")
    assert out.read_text() == "mine"
