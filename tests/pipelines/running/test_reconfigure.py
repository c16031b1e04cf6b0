"""Changing a run from the inside: refused changes touch nothing, and partial failures are distinguished."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.data import Frame
from engine.errors import ConfigError, ModelError
from engine.events.media.event_media import EventMedia
from engine.flow.changes import LAST_FRAMES_S
from engine.flow.pipeline import Pipeline
from engine.latch import Latch
from engine.protocols import Detector
from pipelines.build.detector import build_detector
from pipelines.build.events import event_log_of
from pipelines.build.pipeline import build_pipeline
from pipelines.cli import app
from pipelines.config.file import load_config, validated
from pipelines.config.models import Config
from pipelines.running.control import ControlServer
from pipelines.running.reconfigure import ConfigWatch, PartlyChangedError, Reconfigurer
from tests.fakes import CountingSource, PixelDetector
from tests.onnx_models import save_constant_model

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
    pipeline = build_pipeline(config, make_detector=lambda *_: first)
    with pipeline:
        pipeline.start()
        yield pipeline, Reconfigurer(pipeline, config, lambda config, *_: (make or (lambda _: first))(config))


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
        with pytest.raises(ConfigError, match="encloses no area"):
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


def test_status_tells_which_camera_is_paused(tmp_path: Path) -> None:
    with running("gate", "yard") as (pipeline, changes):
        wait_for(lambda: published(pipeline, "gate", "yard"))
        server = ControlServer(f"ipc://{tmp_path}/ctl", pipeline, changes)
        paused = []
        for command in ("status", "pause", "resume"):
            server.answer(json.dumps({"command": command, "source_id": "gate"}).encode())
            sources = server.answer(b'{"command": "status"}')["sources"]
            paused.append([name for name, facts in sources.items() if facts["paused"]])
        server.close()
        assert paused == [[], ["gate"], []]


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


class Stuck(CountingSource):
    """A camera that cannot be interrupted, until it is let go."""

    def __init__(self, source_id: str, let_go: threading.Event) -> None:
        super().__init__(source_id, 1_000_000, is_live=True)
        self._interrupted = let_go

    def interrupt(self) -> None:
        """It does not hear."""

    def __iter__(self) -> Iterator[Frame]:
        self._interrupted.wait(PATIENCE_S)
        yield from super().__iter__()


def test_camera_that_hangs_is_given_up_and_keeps_nothing_else_from_changing(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    monkeypatch.setattr("engine.flow.pipeline.STOP_TIMEOUT_S", 0.1)
    with running("yard", "door") as (pipeline, changes):
        with monkeypatch.context() as patch:
            patch.setattr("pipelines.running.reconfigure.build_source", lambda config, name: Stuck(name, let_go))
            changes.add({"source_id": "gate", "uri": CAMERA})
        tree = changes.config.model_dump()
        tree["sources"] = [source for source in tree["sources"] if source["source_id"] == "yard"]
        tree["sources"].append({"source_id": "shed", "uri": CAMERA})
        with pytest.raises(PartlyChangedError, match=r"removed door, removed gate, added shed\): source gate is still"):
            changes.change_to(validated(tree, "test"))
        assert [source.source_id for source in changes.config.sources] == ["yard", "shed"]
        wait_for(lambda: published(pipeline, "shed"))
        with pytest.raises(PartlyChangedError, match="gate was removed and has not ended yet"):
            changes.add({"source_id": "gate", "uri": CAMERA})
        let_go.set()
        wait_for(lambda: "gate" not in pipeline.running_sources)
        assert changes.add({"source_id": "gate", "uri": CAMERA}) == ["added gate"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The path of a detector that finds one box on every image."""
    output = np.zeros((5, 84), np.float32)
    output[:, 5] = (20, 20, 10, 10, 0.9)
    return str(save_constant_model(tmp_path / "one.onnx", [output], 64, {"names": "{0: 'person'}"}))


class Loading:
    """Makes detectors that load once the test lets them, and then fail if it says so."""

    def __init__(self, error: ModelError | None = None) -> None:
        self.is_loading, self.may_load, self.error = threading.Event(), threading.Event(), error

    def __call__(self, config: Config) -> Detector:
        detector = build_detector(config, [])
        load = detector.inference.open  # type: ignore[attr-defined]

        def open_later() -> None:
            self.is_loading.set()
            assert self.may_load.wait(PATIENCE_S)
            if self.error is not None:
                raise self.error
            load()

        detector.inference.open = open_later  # type: ignore[attr-defined]
        return detector


def test_camera_and_model_of_one_edit_are_both_changed_however_long_the_model_loads(model: str) -> None:
    make = Loading()
    with running("gate", make=make) as (pipeline, changes):
        wait_for(lambda: published(pipeline, "gate"))
        tree = changes.config.model_dump()
        tree["sources"][0]["uri"] += "&seed=2"
        tree["detector"] |= {"model": model, "backend": "onnxruntime"}
        done = changes.change_to(validated(tree, "test"))
        assert done[:2] == ["removed gate", "added gate"]
        make.may_load.set()
        before = pipeline.stats.source("gate").published
        wait_for(lambda: pipeline.run_facts.model == "one.onnx")
        wait_for(lambda: pipeline.stats.source("gate").published > before + 1)


def test_change_waits_for_nothing_once_the_run_is_to_end(model: str) -> None:
    """The frames of the former camera wait for a model that loads, so its end is not published."""
    make, is_over = Loading(), Latch()
    with running("gate", make=make) as (pipeline, changes):
        wait_for(lambda: published(pipeline, "gate"))
        changes.set("detector.model", model)
        assert make.is_loading.wait(PATIENCE_S)
        hurried = Reconfigurer(pipeline, changes.config, make, is_over)
        tree = changes.config.model_dump()
        tree["sources"][0]["uri"] += "&seed=2"
        threading.Timer(0.2, is_over.set).start()
        started = time.monotonic()
        with pytest.raises(PartlyChangedError, match="frames of the previous one are still waiting"):
            hurried.change_to(validated(tree, "test"))
        assert time.monotonic() - started < LAST_FRAMES_S
        with pytest.raises(PartlyChangedError, match="the run ends"):
            Reconfigurer(pipeline, changes.config, make, is_over).remove("gate")
        make.may_load.set()


def test_threshold_set_while_a_model_loads_is_that_of_the_new_model(model: str) -> None:
    make, first = Loading(), Loading()
    first.may_load.set()
    values = {"detector.model": model, "detector.backend": "onnxruntime"}
    used = first(load_config(None, values))
    with running("gate", detector=used, make=make, **values) as (pipeline, changes):
        wait_for(lambda: published(pipeline, "gate"))
        changes.set("detector.threads", 1)
        assert changes.set("detector.score_threshold", 0.9) == ["score_threshold is 0.9"]
        make.may_load.set()
        wait_for(lambda: pipeline.detector is not used)
        assert pipeline.detector.score_threshold == 0.9  # type: ignore[attr-defined]
        changes.set("detector.score_threshold", 0.8)
        assert pipeline.detector.score_threshold == 0.8  # type: ignore[attr-defined]
        assert (changes.config.detector.score_threshold, changes.config.detector.threads) == (0.8, 1)


def test_model_that_cannot_be_loaded_is_not_in_the_configuration_and_can_be_asked_for_again(model: str) -> None:
    make = Loading(ModelError("no such plan"))
    make.may_load.set()
    with running("gate", make=make) as (_, changes):
        tree = changes.config.model_dump()
        tree["detector"] |= {"model": model, "backend": "onnxruntime"}
        for _ in range(2):
            assert changes.change_to(validated(tree, "test"))[-1] == "backend is 'onnxruntime'"
            wait_for(lambda: changes.config.detector.model == "demo")
        assert changes.config.detector.backend == "auto"


def test_only_camera_of_a_watched_run_is_replaced_and_goes_on() -> None:
    with running("gate", **{"control.address": "none", "control.watch": True}) as (pipeline, changes):
        for n in range(5):
            wait_for(lambda: published(pipeline, "gate"))
            changes.set("sources.0.uri", CAMERA + f"&seed={n}")
            before = pipeline.stats.source("gate").published
            wait_for(lambda before=before: pipeline.stats.source("gate").published > before + 1)
        changes.remove("gate")
        assert not pipeline.wait(0.3), "it goes on without a camera"


def test_run_that_watches_ends_with_the_last_file_it_plays(tmp_path: Path) -> None:
    tree = {"sources": [{"uri": CAMERA.replace("realtime=1", "count=5")}], "detector": {"model": "motion"}}
    tree |= {"control": {"watch": True}, "publish": {"address": "none"}}
    pipeline = build_pipeline(validated(tree, "test"))
    pipeline.start()
    assert pipeline.wait(PATIENCE_S)


def test_watching_without_a_file_is_refused() -> None:
    command = ["run", "--source", CAMERA, "--set", "control.watch=true", "--control", "tcp://*:1"]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, ConfigError)
    assert "there is no file to watch" in str(done.exception)


def test_video_of_each_camera_is_saved_when_another_comes(tmp_path: Path) -> None:
    with running("gate", **{"output.save": str(tmp_path / "out.mp4")}) as (pipeline, changes):
        wait_for(lambda: published(pipeline, "gate"))
        changes.add({"source_id": "yard", "uri": CAMERA})
        wait_for(lambda: published(pipeline, "gate", "yard"))
        wait_for(lambda: len(list(tmp_path.glob("*.mp4"))) == 2)
        pipeline.finish()
        assert pipeline.wait(PATIENCE_S)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.mp4", "out_yard.mp4"]


def test_file_that_is_being_written_is_read_once_it_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "run.yaml"
    with running("gate", "yard") as (pipeline, changes):
        gate, yard = changes.config.model_dump()["sources"]
        file.write_text(json.dumps({"sources": [gate, yard]}))
        same = {key: value for key, value in changes.config.model_dump().items() if key != "sources"}
        watch = ConfigWatch(str(file), same, [], changes)
        file.write_text("")
        watch.poll()
        file.write_text(json.dumps({"sources": [gate]}))
        watch.poll()
        assert len(changes.config.sources) == 2, "it was another one at the last call"
        watch.poll()
        assert [source.source_id for source in changes.config.sources] == ["gate"]
        file.write_text("# all gone\n")
        watch.poll()
        watch.poll()
        assert "run.yaml is empty: for a run without cameras" in caplog.text
        assert pipeline.running_sources == ["gate"]
        file.write_text("sources: []\n")
        watch.poll()
        watch.poll()
        assert pipeline.running_sources == []


def test_what_events_are_kept_for_changes_while_it_runs_and_nothing_else_of_events(tmp_path: Path) -> None:
    events = {"folder": str(tmp_path / "events"), "keep": {"alert_d": 60, "max_gb": 100, "min_free_gb": 0}}
    with running("gate", events=events) as (pipeline, changes):
        wait_for(lambda: published(pipeline, "gate"))
        log = event_log_of(pipeline)
        assert log is not None
        [media] = [follower for follower in log.followers if isinstance(follower, EventMedia)]
        assert media.upkeep is not None
        keep = {"alert_d": 7, "tracks_d": 0, "max_gb": 0.5, "min_free_gb": 0}
        tree = changes.config.model_dump()
        assert changes.change_to(validated({**tree, "events": {**tree["events"], "keep": keep}}, "edit")) == [
            "changed what events.keep keeps"
        ]
        assert not log.keep_tracks
        assert changes.config.events.keep.alert_d == 7
        wait_for(lambda: media.upkeep is not None and media.upkeep.report.get("limit") == 500_000_000)
        tree = changes.config.model_dump()
        with pytest.raises(ConfigError, match="events cannot change while running"):
            changes.change_to(validated({**tree, "events": {**tree["events"], "folder": "other"}}, "edit"))
