"""`fleet.yaml`: what is accepted, and the message for each mistake."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from pipelines.fleet.config import load_fleet
from pipelines.fleet.launching.engine_tree import engine_tree
from pipelines.fleet.running import address
from pipelines.fleet.running.address import running_fleet
from tests.pipelines.fleet.lab import COMMAND

EXAMPLE = Path(__file__).parents[3] / "configs" / "fleet" / "fleet.yaml"


def written(folder: Path, **tree: Any) -> str:
    file = folder / "fleet.yaml"
    file.write_text(json.dumps(tree))
    return str(file)


def test_the_example_is_valid() -> None:
    config = load_fleet(str(EXAMPLE))
    assert [spec.source_id for spec in config.specs()] == ["gate", "yard", "roof"]
    assert [spec.spread for spec in config.specs()] == ["", "outside", "outside"]
    tree = engine_tree(config, "node1", "ipc:///tmp/c", "new.onnx")
    assert tree["sources"] == []
    assert tree["detector"]["model"] == "new.onnx"
    assert tree["publish"]["connect"] == ["tcp://127.0.0.1:5551"]


CAMERA = {"source_id": "a", "uri": "rtsp://gate/1"}


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"nodse": []}, "nodse: unknown key"),
        ({"cameras": [CAMERA, CAMERA]}, "cameras: a occurs twice"),
        ({"nodes": [{"name": "n"}, {"name": "n"}]}, "nodes: n occurs twice"),
        ({"nodes": [{"name": "n/1"}]}, "nodes.0.name"),
        ({"nodes": []}, "nodes"),
        ({"lease": {"seconds": 2, "renew_s": 1}}, "at most a third of seconds"),
        ({"placement": {"target": 0.9}}, "expected low < target <= high"),
        ({"engine": {"detector": {"modelx": "x"}}}, "engine: detector.modelx: unknown key: did you mean model?"),
        ({"engine": {"pipeline": {"workers": 2}}, "collector": {"collect": "none"}}, "need a collector"),
        (
            {"engine": {"pipeline": {"workers": 2}, "events": {"folder": "x"}}},
            "engine: events.folder does not work with",
        ),
        ({"launcher": "ray"}, "make both with framewire keys"),
        ({"collector": {"collect": "tcp://*:5551"}}, "expected tcp://127.0.0.1:5551"),
        ({"engine": {"sources": []}}, "write cameras next to engine"),
        ({"engine": {"pipeline": {"engine_id": "x"}}}, "the fleet sets it"),
        ({"ledger": "redis://x"}, "expected sqlite, or nats://"),
        ({"control": "tcp://0.0.0.0:1"}, "expected auto, or ipc://"),
        ({"cameras": [{**CAMERA, "model": "faces"}]}, "there is no model faces"),
        ({"cameras": [{"uri": "rtsp://gate/1"}]}, "cameras.0.source_id"),
        ({"cameras_in": ["missing.yaml"]}, "missing.yaml cannot be read"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, tree: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_fleet(written(tmp_path, **tree))
    assert why in str(caught.value)


def test_cameras_may_be_in_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE", "rtsp://user:pass-1@gate/1")
    (tmp_path / "hall.yaml").write_text(json.dumps({"cameras": [{"source_id": "b", "uri": "${GATE}"}]}))
    config = load_fleet(written(tmp_path, cameras=[CAMERA], cameras_in=["hall.yaml"]))
    assert {spec.source_id: spec.source["uri"] for spec in config.specs()} == {
        "a": "rtsp://gate/1",
        "b": "rtsp://user:pass-1@gate/1",
    }


def test_a_fleet_that_does_not_run_is_named(tmp_path: Path) -> None:
    import subprocess

    done = subprocess.run(
        [*COMMAND, "fleet", "status", "--name", "missing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no fleet missing runs here" in done.stderr


def test_the_only_fleet_needs_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "runtime_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match="no fleet runs here: start one with framewire fleet up"):
        running_fleet(None)
    sockets = []
    for name in ("site", "yard", "killed"):
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].bind(str(tmp_path / f"fleet-{name}.sock"))
    try:
        sockets[0].listen()
        assert running_fleet(None) == running_fleet("site") == f"ipc://{tmp_path}/fleet-site.sock"
        with pytest.raises(ConfigError, match="no fleet killed runs here: those that do: site"):
            running_fleet("killed")
        sockets[1].listen()
        with pytest.raises(ConfigError, match="several fleets run here: give --name, one of: site, yard"):
            running_fleet(None)
    finally:
        for each in sockets:
            each.close()
