"""Changing a run from the inside: what is refused touches nothing, what goes wrong halfway is told apart."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.errors import ConfigError
from engine.pipeline import Pipeline
from engine.protocols import Detector
from pipelines.build import build_pipeline
from pipelines.cli import app
from pipelines.config import Config
from pipelines.config_file import load_config
from pipelines.control import ControlServer
from pipelines.reconfigure import ConfigWatch, Reconfigurer
from tests.fakes import PixelDetector

CAMERA = "synthetic://?width=64&height=48&fps=50&objects=1&realtime=1"
PATIENCE_S = 30.0


@contextmanager
def running(
    *names: str, detector: Detector | None = None, make: Callable[[Config], Detector] | None = None, **values: Any
) -> Iterator[tuple[Pipeline, Reconfigurer]]:
    """Yield a pipeline that runs, of synthetic cameras with these names, and what changes it."""
    sources = [{"source_id": name, "uri": CAMERA} for name in names]
    fixed = {"sources": sources, "publish.address": "none", "control.address": "ipc://unused", **values}
    config = load_config(None, fixed)
    first = detector or PixelDetector()
    pipeline = build_pipeline(config, make_detector=lambda config, sources: first)
    with pipeline:
        pipeline.start()
        yield pipeline, Reconfigurer(pipeline, config, lambda config, sources: (make or (lambda _: first))(config))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def published(pipeline: Pipeline, *names: str) -> bool:
    return all(pipeline.stats.source(name).published > 1 for name in names)


def test_camera_with_an_impossible_region_is_refused_before_it_is_touched() -> None:
    with running("gate", "yard") as (pipeline, changes):
        wait_for(lambda: published(pipeline, "gate", "yard"))
        with pytest.raises(ConfigError, match="encloses nothing"):
            changes.set("sources.0.regions", [[[0, 0], [10, 10]]])
        assert sorted(pipeline.running_sources) == ["gate", "yard"]
        assert changes.set("sources.0.regions", [[[0, 0], [10, 0], [10, 10]]]) == ["removed gate", "added gate"]
        assert sorted(pipeline.running_sources) == ["gate", "yard"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("sources.0.record", {"max_mb": float("inf")}, id="space without end"),
        pytest.param("sources.0.record", {"max_mb": 1e305}, id="space beyond all bytes"),
        pytest.param("sources.0.fps", float("inf"), id="rate without end"),
        pytest.param("sources.0.ignore", [[[0, 0], [1, 0], [float("nan"), 1]]], id="corner nowhere"),
    ],
)
def test_number_without_end_is_refused_by_name(key: str, value: Any) -> None:
    with running("gate") as (_, changes), pytest.raises(ConfigError, match=key):
        changes.set(key, value)


def confused(config: Config) -> Detector:
    raise OverflowError("nobody thought of this")


def test_mistake_of_ours_is_answered_and_logged_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running("gate", make=confused) as (pipeline, changes):
        server = ControlServer(f"ipc://{tmp_path}/ctl", pipeline, changes)
        answer = server.answer(json.dumps({"command": "set", "key": "detector.model", "value": "x.onnx"}).encode())
        server.close()
        assert not answer["ok"]
        assert "OverflowError: nobody thought of this" in answer["error"]
        assert caplog.records[-1].exc_info
        assert pipeline.running_sources == ["gate"]


def test_edit_that_meets_a_mistake_of_ours_is_logged_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("{}\n")
    with running("gate", make=confused) as (pipeline, changes), caplog.at_level(logging.ERROR):
        watch = ConfigWatch(str(file), changes.config.model_dump(exclude={"detector"}), [], changes)
        file.write_text("detector: {model: x.onnx}\n")
        wait_for(lambda: watch.poll() or caplog.records)
        assert caplog.records[-1].exc_info
        assert pipeline.running_sources == ["gate"]


def test_removed_camera_ends_as_removed() -> None:
    with running("gate", "yard") as (pipeline, changes):
        wait_for(lambda: published(pipeline, "gate"))
        changes.remove("gate")
        gate = pipeline.stats.source("gate")
        wait_for(lambda: gate.state == "ended")
        assert gate.reason == "removed"


def test_only_camera_of_a_watched_run_is_replaced_and_goes_on() -> None:
    with running("gate", **{"control.address": "none", "control.watch": True}) as (pipeline, changes):
        for n in range(5):
            wait_for(lambda: published(pipeline, "gate"))
            changes.set("sources.0.uri", CAMERA + f"&seed={n}")
            before = pipeline.stats.source("gate").published
            wait_for(lambda before=before: pipeline.stats.source("gate").published > before + 1)
        changes.remove("gate")
        assert not pipeline.wait(0.3), "it goes on without a camera"


def test_watching_without_a_file_is_refused() -> None:
    command = ["run", "--source", CAMERA, "--set", "control.watch=true", "--control", "tcp://*:1"]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, ConfigError)
    assert "there is no file to watch" in str(done.exception)
