"""Plans built in the background: what serves meanwhile, switching over, failing, and stopping at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.backends.base import BackendOptions
from engine.backends.files.plan import read_plan_file, write_plan_file
from engine.backends.tensorrt.api import installed_libraries
from engine.backends.tensorrt.backend import TensorRtBackend
from engine.backends.tensorrt.build_plan import BuildOptions, build_plan
from engine.backends.tensorrt.find_plan import MissingPlan
from engine.data import DEFAULT_MODEL, SourceInfo
from engine.detection.detector import ModelDetector
from engine.detection.model import inspect_model
from engine.errors import ModelError
from engine.protocols import Detector
from pipelines.build.detector import build_detector
from pipelines.build.pipeline import build_pipeline
from pipelines.config.file import validated
from pipelines.config.models import Config
from pipelines.running.detect_and_publish import summary
from pipelines.running.plan_child import missing_from_request, request_from_missing
from pipelines.running.plan_rebuild import PlanBuild, PlanRebuild, _Change
from tests.backends.tensorrt.gpu_detector import gpu_parts
from tests.onnx_models import save_constant_model
from tests.patience import AT_ONCE_S

needs_rtx = pytest.mark.skipif(
    "tensorrt_rtx" not in installed_libraries(), reason="tensorrt_rtx is not installed: pip install tensorrt-rtx"
)
SIDE, ANCHORS = 64, 84
PATIENCE_S = 60.0
CAMERA = "synthetic://?width=64&height=48&fps=50&count=1000000&objects=1&seed=1&realtime=1"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A detector of three classes that finds two boxes, of scores 0.9 and 0.4, on every image."""
    output = np.zeros((7, ANCHORS), np.float32)
    output[:4, 5], output[5, 5] = (20, 20, 10, 10), 0.9
    output[:4, 9], output[6, 9] = (40, 40, 10, 10), 0.4
    return save_constant_model(tmp_path / "three.onnx", [output], SIDE, {"names": "{0: 'a', 1: 'b', 2: 'c'}"})


def config_for(model: Path, **detector: object) -> Config:
    tree: dict[str, Any] = {
        "sources": [{"uri": CAMERA, "source_id": "camera"}],
        "detector": {"model": str(model), "cache_dir": str(model.parent / "plans"), **detector},
        "publish": {"address": "none"},
    }
    return validated(tree, "test")


def with_fake_gpu(config: Config, sources: Sequence[SourceInfo], model: str = DEFAULT_MODEL) -> Detector:
    """Make a detector as if there were a GPU: its plan is real, and its runtime is a stand-in."""
    options = config.detector
    if options.backend not in ("auto", "tensorrt"):
        return build_detector(config, sources)
    facts = inspect_model(options.model)
    file = facts.path if facts.path.suffix == ".onnx" else facts.path.with_suffix(".onnx")
    backend_options = BackendOptions(
        facts.image,
        facts.head().class_scores,
        max_batch=4,
        cache_dir=Path(str(options.cache_dir)),
        build_plans=options.rebuild != "never",
    )
    backend = TensorRtBackend(facts.path, backend_options, parts=gpu_parts(file))
    score = facts.usual_score if options.score_threshold is None else options.score_threshold
    return ModelDetector(facts, backend, score_threshold=score, max_batch=4)


@pytest.fixture
def plans() -> Iterator[PlanRebuild]:
    plans = PlanRebuild(with_fake_gpu)
    yield plans
    plans.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


@needs_rtx
def test_the_processor_serves_until_the_plan_is_built_and_then_the_gpu(
    model: Path, plans: PlanRebuild, caplog: pytest.LogCaptureFixture
):
    config = config_for(model, rebuild="background")
    pipeline = build_pipeline(config, make_detector=plans.detector)
    assert "runs while a plan is built: none was built for this model" in caplog.text
    assert plans.status()["plan"]["state"] == "building"
    states, backends = ["building"], []
    for packet in pipeline:
        plans.poll(pipeline, config)
        states.append(plans.status()["plan"]["state"])
        backends.append(summary(pipeline)["backend"])
        assert packet.detections is not None
        assert packet.detections.class_id.tolist() == [1, 2]
        if states[-1] == "in use":
            break
        assert len(states) < 50 * PATIENCE_S
    pipeline.stop()
    order = ["building", "loading", "in use"]
    assert list(dict.fromkeys(states)) in (order, [order[0], order[2]])
    assert (backends[0] in ("openvino", "onnxruntime"), backends[-1]) == (True, "tensorrt")
    assert len(list((model.parent / "plans").glob("three-fp16-*.plan"))) == 1


@needs_rtx
def test_a_plan_that_is_there_is_used_at_once(model: Path, plans: PlanRebuild):
    config = config_for(model, rebuild="background")
    with plans.detector(config_for(model, rebuild="foreground"), []) as first:  # type: ignore[attr-defined]
        assert first.backend == "tensorrt"
    again = plans.detector(config, [])
    assert isinstance(again, ModelDetector)
    assert (again.backend, plans.status()) == ("tensorrt", {})


@needs_rtx
def test_thresholds_that_change_meanwhile_hold_for_the_gpu_too(model: Path, plans: PlanRebuild):
    config = config_for(model, rebuild="background")
    later = config_for(model, rebuild="background", score_threshold=0.5)
    pipeline = build_pipeline(config, make_detector=plans.detector)
    found = []
    for packet in pipeline:
        plans.poll(pipeline, later)
        found.append(packet.detections)
        if plans.status()["plan"]["state"] == "in use" and len(found[-1] or ()) == 1:
            break
        assert len(found) < 50 * PATIENCE_S
    pipeline.stop()
    assert found[-1].class_id.tolist() == [1]


class Built:
    """A plan whose building has ended."""

    wall_s, failure = 0.0, None
    missing = MissingPlan(Path("m.onnx"), BuildOptions(), Path(), "none was built")

    def poll(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is left to end."""


def test_thresholds_that_change_while_the_built_plan_is_loaded_hold_for_it(model: Path, plans: PlanRebuild) -> None:
    config = config_for(model, backend="onnxruntime")
    later = config_for(model, backend="onnxruntime", score_threshold=0.5)
    with_plan = build_detector(config, [])
    plans._changes["detector"] = _Change(with_plan, Built())  # type: ignore[arg-type]
    with build_pipeline(config) as pipeline:
        pipeline.start()
        plans.poll(pipeline, config)
        wait_for(lambda: pipeline.detector is with_plan)
        plans.poll(pipeline, later)
        assert plans.status()["plan"]["state"] == "in use"
        assert with_plan.score_threshold == 0.5  # type: ignore[attr-defined]


@needs_rtx
def test_a_model_that_cannot_be_built_stays_on_the_processor_and_the_reason_is_one_line(
    tmp_path: Path, model: Path, plans: PlanRebuild, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "plans").write_text("a file where the folder of plans should be")
    config = config_for(model, rebuild="background", cache_dir=str(tmp_path / "plans"))
    pipeline = build_pipeline(config, make_detector=plans.detector)
    pipeline.start()
    while plans.status()["plan"]["state"] == "building":
        plans.poll(pipeline, config)
        threading.Event().wait(0.02)
    published = pipeline.stats.source("camera").published
    wait_for(lambda: pipeline.stats.source("camera").published > published)
    pipeline.stop()
    status = plans.status()["plan"]
    assert status["state"] == "failed"
    [line] = [record.getMessage() for record in caplog.records if "no plan:" in record.getMessage()]
    assert line == f"no plan: {status['failure']}; the current backend continues"
    assert "\n" not in line


@needs_rtx
def test_a_gpu_that_fails_to_load_leaves_the_processor(model: Path, caplog: pytest.LogCaptureFixture):
    def broken(config: Config, sources: Sequence[SourceInfo], model: str) -> Detector:
        detector = with_fake_gpu(config, sources)
        if isinstance(detector, ModelDetector) and isinstance(detector.inference, TensorRtBackend):

            def refuse(*_: object) -> None:
                raise ModelError("the GPU fell off the bus")

            detector.inference._parts = replace(detector.inference._parts, load_plan=refuse)
        return detector

    plans = PlanRebuild(broken)
    config = config_for(model, rebuild="background")
    pipeline = build_pipeline(config, make_detector=plans.detector)
    pipeline.start()
    while plans.status()["plan"]["state"] in ("building", "loading"):
        plans.poll(pipeline, config)
        threading.Event().wait(0.02)
    assert plans.status()["plan"]["failure"] == "the GPU fell off the bus"
    assert summary(pipeline)["backend"] != "tensorrt"
    pipeline.stop()
    plans.close()


@needs_rtx
def test_never_serves_on_the_processor_and_is_an_error_where_tensorrt_was_asked_for(
    model: Path, plans: PlanRebuild, caplog: pytest.LogCaptureFixture
):
    stand_in = plans.detector(config_for(model, rebuild="never"), [])
    assert isinstance(stand_in, ModelDetector)
    assert stand_in.backend != "tensorrt"
    assert "runs: there is no plan, and building is off" in caplog.text
    asked_for = plans.detector(config_for(model, rebuild="never", backend="tensorrt"), [])
    with pytest.raises(ModelError, match=r'no plan for .*three.onnx: none was built.*"framewire build '):
        asked_for.open()  # type: ignore[attr-defined]
    assert plans.status() == {}


@needs_rtx
def test_a_plan_that_does_not_fit_is_built_again_from_the_onnx_file_beside_it(model: Path, plans: PlanRebuild):
    path = model.with_suffix(".plan")
    built = build_plan(model, path, BuildOptions("fp32", (1, 2, 4)), library="tensorrt_rtx")
    assert built.facts is not None
    write_plan_file(path, built.plan(), replace(built.facts, library_version="1.0.0"), built.metadata)
    config = config_for(path, rebuild="background")
    stand_in = plans.detector(config, [])
    assert isinstance(stand_in, ModelDetector)
    assert stand_in.facts.path == model
    assert "was built with TensorRT-RTX 1.0.0" in plans.status()["plan"]["reason"]
    plans.close()
    with plans.detector(config_for(path), []) as detector:  # type: ignore[attr-defined]
        assert detector.backend == "tensorrt"
    [cached] = (model.parent / "plans").glob("*.plan")
    facts = read_plan_file(cached).facts
    assert facts is not None
    assert (facts.precision, facts.batch) == ("fp32", (1, 2, 4))


def test_a_request_survives_its_way_to_the_process():
    options = BuildOptions("fp32", (1, 2, 4), (64, 96), optimization_level=2)
    missing = MissingPlan(Path("a/b.onnx"), options, Path("plans"), "none yet")
    assert replace(missing_from_request(request_from_missing(missing)), reason="none yet") == missing


@pytest.fixture
def slow(data_dir: Path, tmp_path: Path) -> MissingPlan:
    model = data_dir / "models" / "yolov8n_fp32_dequantised.onnx"
    return MissingPlan(model, BuildOptions("fp16", (1, 1, 1), (640, 640)), tmp_path, "test")


@needs_rtx
def test_a_build_ends_at_once_when_the_run_does(slow: MissingPlan):
    build = PlanBuild(slow)
    wait_for(lambda: build.poll() or build.done > 0)
    assert build.failure is None
    started = time.monotonic()
    build.close()
    build.close()
    assert time.monotonic() - started < AT_ONCE_S
    wait_for(lambda: not is_alive(build.pid))  # killed; a busy machine takes its time to bury it
    assert list(slow.folder.glob("*.plan")) == []


@needs_rtx
def test_a_build_dies_with_the_engine(slow: MissingPlan):
    program = (
        "import sys, time\n"
        "from pipelines.running.plan_child import missing_from_request\n"
        "from pipelines.running.plan_rebuild import PlanBuild\n"
        "build = PlanBuild(missing_from_request(sys.argv[1]))\n"
        "print(build.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    engine = subprocess.Popen([sys.executable, "-c", program, request_from_missing(slow)], stdout=subprocess.PIPE)
    assert engine.stdout is not None
    child = int(engine.stdout.readline())
    threading.Event().wait(0.5)
    engine.kill()
    engine.wait()
    engine.stdout.close()
    wait_for(lambda: not is_alive(child))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_build_goes_first_when_memory_runs_out(slow: MissingPlan):
    """On a Jetson, it shares its memory with the engine that serves meanwhile."""
    program = (
        "import os, socket, sys\n"
        "from pathlib import Path\n"
        "from engine.process import Messages\n"
        "from pipelines.running import plan_child\n"
        "ours, theirs = socket.socketpair()\n"
        "Messages(ours.detach()).send_bytes(sys.argv[1].encode())\n"
        "plan_child.build = lambda missing, connection: {'built': Path('/proc/self/oom_score_adj').read_text()}\n"
        "plan_child.tell = lambda connection, **fields: print(fields['built'].strip())\n"
        "sys.argv = ['child', str(theirs.detach()), str(os.pipe()[0])]\n"
        "plan_child.main()\n"
    )
    command = [sys.executable, "-c", program, request_from_missing(slow)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "800\n", done.stderr
