"""What the parts of the TensorRT backend are given: limits of a build, the header, compilers, DLA, kept kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from onnx import helper

from engine.assets import demo_model
from engine.backends import select
from engine.backends.base import BackendOptions, ImageInput
from engine.backends.cuda.probe import CudaProbe
from engine.backends.files.plan import PlanFile, read_plan_file, write_plan_file
from engine.backends.tensorrt import backend as tensorrt
from engine.backends.tensorrt import build_plan as plan_build
from engine.backends.tensorrt import find_plan
from engine.backends.tensorrt.api import Library, Messages, TensorRt
from engine.backends.tensorrt.backend import Parts, TensorRtBackend, load_plan
from engine.backends.tensorrt.build_plan import BuildOptions, PlanPlace, Prepared, build_plan
from engine.backends.tensorrt.find_plan import MissingPlan
from engine.backends.tensorrt.loaded_plan import TensorRtPlan
from engine.backends.tensorrt.plan_cache import PlanCache
from engine.detection.load import load_detector
from engine.errors import ModelError
from engine.testing.cuda import FAKE_GPU, FakeCuda
from tests.backends.tensorrt.fake_gpu import PLAN, plan_facts
from tests.backends.tensorrt.gpu_detector import gpu_detector, gpu_parts
from tests.onnx_models import save_model, save_pixel_model

CHECKOUT = Path(__file__).resolve().parents[3]
JETSON = CudaProbe((replace(FAKE_GPU, is_integrated=True),), (12, 6))
Build = Callable[..., tuple[PlanFile, BuildOptions]]


def library(name: Library, module: Any = None) -> TensorRt:
    return TensorRt(module or SimpleNamespace(), name, "10.3.0", None, Messages())


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Build:
    """A function that builds a plan on a Jetson without a library, and returns the arguments of the build."""

    def build(model: Path, options: BuildOptions, name: Library = "tensorrt") -> tuple[PlanFile, BuildOptions]:
        given: list[BuildOptions] = []

        def serialized(trt: TensorRt, content: bytes, facts: Any, limited: BuildOptions, **_: Any) -> tuple[Any, ...]:
            given.append(limited)
            return PLAN, facts.inputs, facts.outputs

        monkeypatch.setattr(plan_build, "probe_cuda", lambda: JETSON)
        monkeypatch.setattr(plan_build, "library_for_building", lambda wanted, probe: library(name))
        monkeypatch.setattr(plan_build, "build_serialized", serialized)
        prepare = lambda: Prepared(b"")  # noqa: E731
        return build_plan(model, tmp_path / "built.plan", options, prepare=prepare), given[0]

    return build


def test_a_build_on_a_jetson_is_limited_and_its_key_is_not(tmp_path: Path, built: Build) -> None:
    _, given = built(save_pixel_model(tmp_path / "pixels.onnx"), BuildOptions("fp32"))
    assert given.workspace_mib is not None
    assert built(tmp_path / "pixels.onnx", BuildOptions("fp32", workspace_mib=70))[1].workspace_mib == 70


@pytest.mark.parametrize(("operator", "can_record"), [("Relu", True), ("NonMaxSuppression", False)])
def test_the_header_says_whether_a_graph_can_record_it(
    tmp_path: Path, built: Build, operator: str, can_record: bool
) -> None:
    inputs = ["images"] if operator == "Relu" else ["images", "images"]
    model = save_model(
        tmp_path / "m.onnx", [helper.make_node(operator, inputs, ["out"])], {"images": (1, 8, 4)}, {"out": (1, 8, 4)}
    )
    file, _ = built(model, BuildOptions("fp32"))
    assert file.facts is not None
    assert file.facts.can_record is can_record


@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [
        pytest.param("tensorrt_rtx", "int8", "lists no INT8 convolutions", id="INT8 on RTX"),
        pytest.param("tensorrt_rtx", "fp16", "", id="FP16 on RTX"),
        pytest.param("tensorrt", "int8", "", id="INT8 on TensorRT"),
    ],
)
def test_int8_is_warned_of_where_it_brings_nothing(
    tmp_path: Path, built: Build, caplog: pytest.LogCaptureFixture, name: Library, precision: Any, words: str
) -> None:
    built(save_pixel_model(tmp_path / "pixels.onnx"), BuildOptions(precision), name)
    assert (words in caplog.text) if words else not caplog.text


def test_doubtful_models_are_named_when_they_are_built(
    tmp_path: Path, built: Build, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [helper.make_node("GridSample", ["images", "grid"], ["out"])]
    grid = np.zeros((1, 4, 4, 2), np.float32)
    model = save_model(tmp_path / "m.onnx", nodes, {"images": (1, 3, 8, 8)}, {"out": (1, 3, 4, 4)}, {"grid": grid})
    built(model, BuildOptions("fp32"), "tensorrt_rtx")
    assert "m.onnx uses GridSample" in caplog.text


def test_our_kernels_are_compiled_for_the_driver_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(tensorrt, "probe_cuda", lambda: JETSON)
    monkeypatch.setattr(tensorrt, "compile_kernels", lambda *arguments: asked.append(arguments) or b"cubin")
    assert Parts().compile_kernels((8, 7)) == b"cubin"
    assert asked == [((8, 7), (12, 6))]


@pytest.mark.parametrize(
    ("name", "is_eager", "kept"),
    [("tensorrt_rtx", True, "m.plan.kernels"), ("tensorrt_rtx", False, None), ("tensorrt", True, None)],
)
def test_a_plan_is_loaded_with_its_dla_core_and_its_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Library, is_eager: bool, kept: str | None
) -> None:
    path, given = tmp_path / "m.plan", {}
    write_plan_file(path, PLAN, plan_facts(library=name, library_version="10.3.0", dla_core=1), {})
    monkeypatch.setattr(tensorrt, "load_tensorrt", lambda wanted: library(name))
    monkeypatch.setattr(tensorrt, "plan_place", lambda trt, probe: PlanPlace(name, "10.3.0", "12.6", FAKE_GPU))
    monkeypatch.setattr(tensorrt, "TensorRtPlan", lambda trt, content, path, **options: given.update(options))
    load_plan(FakeCuda(), read_plan_file(path), is_eager=is_eager)
    assert given == {"dla_core": 1, "runtime_cache": path.with_name(kept) if kept else None, "is_eager": is_eager}


class Runtime:
    """As TensorRT's: the DLA core counts only if it is set before a plan is loaded."""

    DLA_core = 0

    def __init__(self, logger: object) -> None:
        self.loaded_on: int | None = None

    def deserialize_cuda_engine(self, content: bytes) -> Any:
        self.loaded_on = self.DLA_core
        return SimpleNamespace(
            num_io_tensors=0,
            create_runtime_config=lambda: SimpleNamespace(
                create_runtime_cache=lambda: SimpleNamespace(serialize=lambda: b"kernels"),
                set_runtime_cache=lambda cache: True,
            ),
            create_execution_context=lambda config: SimpleNamespace(is_stream_capturable=lambda stream: stream == 2),
        )


def rtx_plan(path: Path, **options: Any) -> TensorRtPlan:
    strategies = SimpleNamespace(EAGER="eager", LAZY="lazy")
    module = SimpleNamespace(Runtime=Runtime, DynamicShapesKernelSpecializationStrategy=strategies)
    return TensorRtPlan(library("tensorrt_rtx", module), b"plan", path, **options)


@pytest.mark.parametrize(("core", "expected"), [(None, 0), (1, 1)])
def test_the_dla_core_is_set_before_the_plan_is_loaded(tmp_path: Path, core: int | None, expected: int) -> None:
    assert rtx_plan(tmp_path / "m.plan", dla_core=core)._runtime.loaded_on == expected


@pytest.mark.parametrize("at", ["note_warm", "close"])
def test_compiled_kernels_are_kept_when_warm_and_when_closing(tmp_path: Path, at: str) -> None:
    kept = tmp_path / "m.plan.kernels"
    plan = rtx_plan(tmp_path / "m.plan", runtime_cache=kept)
    plan.create_context()
    assert not kept.exists()
    getattr(plan, at)()
    assert kept.read_bytes() == b"kernels"


@pytest.mark.parametrize(("options", "strategy"), [({}, "eager"), ({"is_eager": False}, "lazy")])
def test_contexts_are_eager_unless_it_is_measured_what_that_brings(
    tmp_path: Path, options: dict[str, Any], strategy: str
) -> None:
    plan = rtx_plan(tmp_path / "m.plan", **options)
    assert plan._contexts._config.dynamic_shapes_kernel_specialization_strategy == strategy


def test_a_context_is_recorded_only_where_the_library_allows_it(tmp_path: Path) -> None:
    context = rtx_plan(tmp_path / "m.plan").create_context()
    assert [context.is_capturable(stream) for stream in (1, 2)] == [False, True]


@pytest.mark.parametrize(("performance", "batch"), [("latency", (1, 1, 4)), ("throughput", (1, 4, 4))])
def test_the_kernels_are_chosen_for_the_usual_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, performance: Any, batch: tuple[int, ...]
) -> None:
    monkeypatch.setattr(find_plan, "load_tensorrt", lambda wanted: library("tensorrt"))
    options = BackendOptions(ImageInput((8, 8)), max_batch=4, performance=performance)
    missing = find_plan.find_plan(save_pixel_model(tmp_path / "pixels.onnx"), options)
    assert isinstance(missing, MissingPlan)
    assert missing.options.batch == batch


def test_the_preset_of_a_jetson_builds_for_its_one_camera() -> None:
    detector = yaml.safe_load((CHECKOUT / "configs" / "jetson_orin.yaml").read_text())["detector"]
    assert (detector["performance"], detector["max_batch"], detector["rebuild"]) == ("latency", 1, "background")


@pytest.mark.parametrize("backend", ["tensorrt", "auto"])
def test_a_plan_that_a_run_opens_is_compared_with_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """All steps from `load_detector` on, with a plan that finds nothing: it is refused."""
    model = tmp_path / demo_model().name
    model.write_bytes(demo_model().read_bytes())
    plan = gpu_detector(model, tmp_path, max_batch=1).facts.path
    file = read_plan_file(plan)
    assert file.facts is not None
    write_plan_file(plan, PLAN, replace(file.facts, model=model.name), file.metadata)
    parts = gpu_parts(model, max_batch=1)
    load = parts.load_plan
    assert load is not None

    def nothing(cuda: Any, file: PlanFile) -> Any:
        found = load(cuda, file)
        respond = found._respond  # type: ignore[attr-defined]
        found._respond = lambda feeds: [np.zeros_like(output) for output in respond(feeds)]  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(select, "why_not", lambda name, path=None: None)
    made, load_part = partial(TensorRtBackend, parts=replace(parts, load_plan=nothing)), select.require_attribute
    monkeypatch.setattr(select, "require_attribute", lambda name: made if "tensorrt" in name else load_part(name))
    with pytest.raises(Exception, match="finds 0 of the .* boxes that its model finds"):
        load_detector(plan, backend=backend).open()


def test_a_folder_that_cannot_be_written_lets_auto_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector tries the next backend after a ModelError; a ConfigError would end the run."""
    (tmp_path / "file").write_bytes(b"in the way")

    def build(path: Path, options: BackendOptions) -> PlanFile:
        with PlanCache(tmp_path / "file" / "plans")._locked():
            raise AssertionError

    monkeypatch.setattr(tensorrt, "plan_to_run", build)
    backend = TensorRtBackend(tmp_path / "m.onnx", parts=Parts(obstacle=lambda: None))
    with pytest.raises(ModelError, match="plans cannot be kept in .*detector.cache_dir"):
        backend.open()
