"""Several models in one run, from the configuration to the summary, and changed while it runs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import Packet
from engine.errors import ConfigError
from engine.flow.pipeline import Pipeline
from pipelines.build.detector import build_detector
from pipelines.build.pipeline import build_pipeline
from pipelines.config.file import load_config, validated
from pipelines.config.models import Config
from pipelines.running.control import ControlServer
from pipelines.running.detect_and_publish import summary
from pipelines.running.reconfigure import Reconfigurer
from pipelines.verbs.running.start import opening_line, uses_demo_unasked
from tests.onnx_models import save_constant_model

PATIENCE_S = 30.0
FILE = "synthetic://?width=64&height=48&fps=25&count={count}&objects=1&seed=3"
CAMERA = "synthetic://?width=64&height=48&fps=50&objects=1&realtime=1"


def saved(folder: Path, name: str, score: float) -> str:
    """Return the path of a detector that finds one box of a score on every image."""
    output = np.zeros((5, 84), np.float32)
    output[:, 5] = (20, 20, 10, 10, score)
    return str(save_constant_model(folder / f"{name}.onnx", [output], 64, {"names": f"{{0: '{name}'}}"}))


@pytest.fixture
def people(tmp_path: Path) -> dict[str, Any]:
    return {"model": saved(tmp_path, "person", 0.9), "backend": "onnxruntime"}


@pytest.fixture
def cars(tmp_path: Path) -> dict[str, Any]:
    return {"model": saved(tmp_path, "car", 0.6), "backend": "onnxruntime"}


def configured(sources: dict[str, str | None], address: str = FILE.format(count=20), **sections: Any) -> Config:
    listed = [{"source_id": name, "uri": address, "model": model} for name, model in sources.items()]
    return validated({"sources": listed, "publish": {"address": "none"}, **sections}, "test")


def packets(pipeline: Pipeline) -> dict[str, list[tuple[int, list[float], list[int], str, str]]]:
    found: dict[str, list[Any]] = {}
    with pipeline:
        for p in pipeline:
            found.setdefault(p.frame.source_id, []).append(row(p))
    return found


def row(p: Packet) -> tuple[int, list[float], list[int], str, str]:
    boxes = [*p.detections.xyxy.ravel().tolist(), *p.tracks.xyxy.ravel().tolist()]
    return p.frame.frame_id, boxes, p.tracks.track_id.tolist(), p.run.model, p.run.class_name(0)


def test_each_source_has_the_results_of_a_run_with_its_model_alone(people: Any, cars: Any) -> None:
    models = {"people": people, "cars": cars}
    both = packets(build_pipeline(configured({"gate": "people", "road": "cars"}, models=models)))
    for source_id, model in (("gate", people), ("road", cars)):
        alone = packets(build_pipeline(configured({source_id: None}, detector=model)))
        assert both[source_id] == alone[source_id]
    assert {name: rows[0][3:] for name, rows in both.items()} == {
        "gate": ("person.onnx", "person"),
        "road": ("car.onnx", "car"),
    }


def test_the_summary_has_each_model_and_stays_as_it_is_for_one(people: Any, cars: Any) -> None:
    models = {"people": people, "cars": cars}
    pipeline = build_pipeline(configured({"gate": "people", "road": "cars", "yard": "people"}, models=models))
    pipeline.run()
    facts = summary(pipeline)
    assert {name: (m["model"], m["backend"], m["detected"]) for name, m in facts["models"].items()} == {
        "people": ("person.onnx", "onnxruntime", 40),
        "cars": ("car.onnx", "onnxruntime", 20),
    }
    assert set(facts["models"]["people"]["stage_ms"]["infer"]) == {"p50", "p99"}
    assert (facts["model"], facts["backend"]) == ("person.onnx, car.onnx", "onnxruntime")
    pipeline = build_pipeline(configured({"gate": None}, detector=people))
    pipeline.run()
    facts = summary(pipeline)
    assert (facts["model"], facts["backend"], list(facts["models"])) == ("person.onnx", "onnxruntime", ["detector"])
    assert facts["models"]["detector"]["detected"] == 20


def test_the_section_detector_is_not_loaded_where_every_source_names_a_model(people: Any) -> None:
    missing = {"model": "/nowhere/at/all.onnx"}
    pipeline = build_pipeline(configured({"gate": "people"}, detector=missing, models={"people": people, "x": missing}))
    assert list(pipeline.models) == ["people"]


@pytest.mark.parametrize(
    ("sources", "given", "path", "expected"),
    [
        pytest.param({"a": "people"}, None, None, False, id="every source names a model"),
        pytest.param({"a": "people", "b": None}, None, None, True, id="one source names none"),
        pytest.param({"a": None}, "demo", None, False, id="an option asks for the embedded model"),
        pytest.param({"a": None}, "demo", __file__, False, id="a file asks for the embedded model"),
        pytest.param({"a": None}, "demo", "multi_camera", True, id="a preset names the embedded model"),
    ],
)
def test_the_embedded_model_is_commented_only_where_it_runs_unasked(
    sources: dict[str, str | None], given: str | None, path: str | None, expected: bool, people: Any
) -> None:
    config = configured(sources, models={"people": people}, **({"detector": {"model": given}} if given else {}))
    assert uses_demo_unasked(config, path) is expected


def test_a_source_without_a_model_uses_the_section_detector(people: Any, cars: Any) -> None:
    pipeline = build_pipeline(configured({"road": "cars", "gate": None}, detector=people, models={"cars": cars}))
    assert [pipeline.model_of(name) for name in ("gate", "road")] == ["detector", "cars"]
    assert opening_line("none", pipeline).startswith("road: car.onnx on onnxruntime")
    assert "; gate: person.onnx on onnxruntime" in opening_line("none", pipeline)


@pytest.mark.parametrize(
    ("sources", "models", "expected"),
    [
        pytest.param({"gate": "poeple"}, {"people": {}}, "sources.0.model: .* did you mean people", id="typo"),
        pytest.param({"gate": "b"}, {}, "sources.0.model: there is no model b; expected one of detector", id="none"),
        pytest.param({}, {"detector": {}}, "models.detector: this name stands for", id="reserved"),
        pytest.param({}, {"a.b": {}}, r"models.a.b", id="dot in the name"),
        pytest.param({}, {"a": {"scoore_threshold": 1}}, "models.a.scoore_threshold.*score_threshold", id="key"),
    ],
)
def test_mistakes_are_refused_by_key(sources: Any, models: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        configured(sources, models=models)


def test_classes_of_the_second_stage_must_belong_to_some_model(people: Any, cars: Any, tmp_path: Path) -> None:
    stage = {"model": "never/opened.onnx", "classes": ["lorry"]}
    with pytest.raises(ConfigError, match='no model has a class "lorry"'):
        build_pipeline(configured({"gate": "people"}, models={"people": people}, second_stage=stage))


def test_models_that_classify_frames_do_not_mix_with_others_unless_a_tracker_is_named(people: Any) -> None:
    whole = {"model": people["model"], "task": "classify"}
    config = configured({"gate": "people", "road": "whole"}, models={"people": people, "whole": whole})
    with pytest.raises((ConfigError, Exception), match="classif"):
        build_pipeline(config)


@contextmanager
def running(sources: dict[str, str | None], **sections: Any) -> Iterator[tuple[Pipeline, Reconfigurer]]:
    config = configured(sources, CAMERA, control={"address": "ipc://unused"}, **sections)
    with build_pipeline(config) as pipeline:
        pipeline.start()
        yield pipeline, Reconfigurer(pipeline, config)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_a_source_moves_to_a_model_that_is_loaded_for_it(people: Any, cars: Any) -> None:
    with running({"gate": None, "road": None}, detector=people, models={"cars": cars}) as (pipeline, changes):
        wait_for(lambda: pipeline.stats.source("gate").published > 1)
        assert changes.set("sources.1.model", "cars") == ["loading model cars", "moved road to cars"]
        wait_for(lambda: pipeline.model_of("road") == "cars")
        assert pipeline.model_of("gate") == "detector"
        wait_for(lambda: pipeline.stats.model("cars").detected > 2)
        assert [source.model for source in changes.config.sources] == [None, "cars"]
        assert changes.set("sources.1.model", None) == ["moved road to detector"]
        wait_for(lambda: pipeline.model_of("road") == "detector")
        assert "cars" in pipeline.models


def test_a_model_is_freed_by_name_once_no_source_uses_it(people: Any, cars: Any) -> None:
    with running({"gate": None, "road": "cars"}, detector=people, models={"cars": cars}) as (pipeline, changes):
        wait_for(lambda: pipeline.model_of("road") == "cars" and pipeline.models["cars"].is_loaded)
        with pytest.raises(ConfigError, match="cars"):
            changes.set("models.cars", None)
        assert "cars" in pipeline.models
        changes.set("sources.1.model", None)
        assert changes.set("models.cars", None) == ["removed model cars"]
        wait_for(lambda: changes.config.models == {} and list(pipeline.models) == ["detector"])
        assert changes.set("models.cars", None) == []


def test_one_model_changes_while_the_other_goes_on(people: Any, cars: Any) -> None:
    models = {"people": people, "cars": cars}
    with running({"gate": "people", "road": "cars"}, models=models) as (pipeline, changes):
        wait_for(lambda: all(lane.is_loaded for lane in pipeline.models.values()))
        assert changes.set("models.cars.score_threshold", 0.95) == ["cars.score_threshold is 0.95"]
        assert pipeline.models["cars"].detector.score_threshold == 0.95  # type: ignore[attr-defined]
        assert pipeline.models["people"].detector.score_threshold == 0.25  # type: ignore[attr-defined]
        kept, before = pipeline.models["people"].detector, pipeline.models["cars"].detector
        changes.set("models.cars.model", people["model"])
        wait_for(lambda: pipeline.models["cars"].detector is not before)
        assert pipeline.models["cars"].run.model == "person.onnx"
        assert pipeline.models["people"].detector is kept
        assert changes.config.models["cars"].model == people["model"]


def test_a_model_that_cannot_be_used_is_refused_before_anything_changes(people: Any) -> None:
    with running({"gate": None}, detector=people, models={"gone": {"model": "/nowhere.onnx"}}) as (pipeline, changes):
        with pytest.raises(Exception, match="nowhere"):
            changes.set("sources.0.model", "gone")
        assert changes.config.sources[0].model is None
        assert pipeline.model_of("gate") == "detector"


def test_a_model_that_does_not_load_leaves_its_sources_where_they_are(people: Any, cars: Any, tmp_path: Path) -> None:
    config = configured({"gate": None}, CAMERA, detector=people, models={"cars": cars}, control={"address": "ipc://x"})
    with build_pipeline(config) as pipeline:
        pipeline.start()
        may_fail = threading.Event()

        def make(config: Config, sources: Any, model: str) -> Any:
            detector = build_detector(config, sources, model)

            def refuse() -> None:
                assert may_fail.wait(PATIENCE_S)
                raise RuntimeError("no memory")

            detector.open = refuse  # type: ignore[method-assign]
            return detector

        changes = Reconfigurer(pipeline, config, make)
        tree = changes.config.model_dump()
        tree["sources"][0]["model"] = "cars"
        tree["sources"].append({"source_id": "road", "uri": CAMERA, "model": "cars"})
        assert changes.change_to(validated(tree, "test")) == ["loading model cars", "moved gate to cars", "added road"]
        may_fail.set()
        wait_for(lambda: len(changes.config.sources) == 1)
        assert changes.config.sources[0].model is None
        before = pipeline.stats.source("gate").published
        wait_for(lambda: pipeline.stats.source("gate").published > before + 2)
        wait_for(lambda: pipeline.running_sources == ["gate"])


def test_a_model_taken_out_of_the_configuration_is_freed_once_unused(people: Any, cars: Any) -> None:
    models = {"people": people, "cars": cars}
    with running({"gate": "people", "road": "cars"}, models=models) as (pipeline, changes):
        wait_for(lambda: all(lane.is_loaded for lane in pipeline.models.values()))
        tree = changes.config.model_dump()
        del tree["models"]["cars"]
        tree["sources"][1]["model"] = "people"
        assert changes.change_to(validated(tree, "test")) == ["moved road to people", "removed model cars"]
        wait_for(lambda: changes.config and list(pipeline.models) == ["people"])
        assert summary(pipeline)["models"]["cars"]["model"] == "car.onnx"


def test_status_tells_the_model_of_each_source_and_the_figures_of_each_model(
    people: Any, cars: Any, tmp_path: Path
) -> None:
    models = {"cars": cars | {"score_threshold": 0.4}}
    with running({"gate": None, "road": "cars"}, detector=people, models=models) as (pipeline, changes):
        wait_for(lambda: pipeline.stats.model("cars").detected > 1)
        server = ControlServer(f"ipc://{tmp_path}/ctl", pipeline, changes)
        status = json.loads(json.dumps(server.answer(b'{"command": "status"}')))
        server.close()
    assert {name: facts["model"] for name, facts in status["sources"].items()} == {"gate": "detector", "road": "cars"}
    assert status["models"]["cars"]["model"] == "car.onnx"
    assert status["models"]["cars"]["score_threshold"] == 0.4
    assert status["models"]["cars"]["detected"] > 1
    assert status["detector"]["model"] == people["model"]


def test_two_models_are_read_from_a_file(people: Any, cars: Any, tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    sources = [{"source_id": name, "uri": FILE.format(count=3), "model": name} for name in ("people", "cars")]
    file.write_text(json.dumps({"models": {"people": people, "cars": cars}, "sources": sources}))
    pipeline = build_pipeline(load_config(str(file), {"publish.address": "none"}))
    pipeline.run()
    assert [m["detected"] for m in summary(pipeline)["models"].values()] == [3, 3]
