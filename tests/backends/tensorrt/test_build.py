"""Plans built for real with TensorRT-RTX, which needs no GPU for that; loading them does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from engine.assets import demo_model
from engine.backends.base import BackendOptions, ImageInput
from engine.backends.cuda.probe import probe_cuda
from engine.backends.files.base import read_model_file
from engine.backends.files.plan import read_plan_file
from engine.backends.tensorrt import api
from engine.backends.tensorrt import build_plan as plan_build
from engine.backends.tensorrt.api import PhaseTree, installed_libraries, load_tensorrt
from engine.backends.tensorrt.backend import TensorRtBackend
from engine.backends.tensorrt.build_plan import BuildOptions, Prepared, _apply, build_plan, parse_batch
from engine.backends.tensorrt.plan_cache import PlanCache
from engine.backends.tensorrt.precision import with_precision
from engine.detection.model import inspect_model
from engine.errors import ConfigError, ModelError
from tests.backends.tensorrt.fake_gpu import plan_facts
from tests.onnx_models import save_constant_model, save_model, save_pixel_model

pytestmark = pytest.mark.skipif(
    "tensorrt_rtx" not in installed_libraries(), reason="tensorrt_rtx is not installed: pip install tensorrt-rtx"
)
without_gpu = pytest.mark.skipif(probe_cuda().reason is None, reason="there is a GPU here")
RTX = "tensorrt_rtx"


def calibration() -> Iterator[NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    for _ in range(4):
        yield rng.random((1, 3, 416, 416)).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_demo_model_becomes_a_plan_that_describes_itself(tmp_path: Path, precision):
    output = tmp_path / "demo.plan"
    options = BuildOptions(precision, (1, 4, 8))
    content, _ = with_precision(demo_model(), precision, calibration())
    built = build_plan(
        demo_model(), output, options, library=RTX, prepare=lambda: Prepared(content, {"agreement": 0.9})
    )
    assert built.facts is not None
    assert (built.facts.library, built.facts.precision, built.facts.batch) == (RTX, precision, (1, 4, 8))
    assert built.facts.accuracy == {"agreement": 0.9}
    assert built.plan()[:4] == b"vtrt"
    found = read_model_file(output)
    assert [str(spec) for spec in found.inputs] == ["images (?, 3, 416, 416) float32"]
    names = [f"{kind}_{step}" for kind in ("scores", "distances") for step in (8, 16, 32)]
    assert [spec.name for spec in found.outputs] == names
    assert found.outputs[0].shape == (None, 2704, 80)
    assert found.metadata["head"] == "nanodet"


def test_a_fixed_batch_needs_no_profile(tmp_path: Path, data_dir: Path):
    model = data_dir / "models" / "yolov8n_fp32_dequantised.onnx"
    built = build_plan(model, tmp_path / "v8.plan", BuildOptions(batch=(1, 8, 16)), library=RTX)
    assert built.facts is not None
    assert built.facts.batch == (1, 1, 1)
    assert [str(spec) for spec in built.facts.outputs] == ["output0 (1, 84, 8400) float32"]
    assert "person" in str(built.metadata["names"])


def test_one_batch_asked_for_is_a_fixed_batch_that_the_detector_fills_up(tmp_path: Path):
    names = {"names": "{0: 'a', 1: 'b', 2: 'c'}"}
    model = save_constant_model(tmp_path / "m.onnx", [np.zeros((7, 84), np.float32)], 64, names)
    built = build_plan(model, tmp_path / "m.plan", BuildOptions("fp32", parse_batch("4")), library=RTX)
    assert built.facts is not None
    assert built.facts.batch == (4, 4, 4)
    assert inspect_model(built.path).batch == 4
    assert [spec.shape for spec in built.facts.outputs] == [(4, 7, 84)]


def test_batch_one_of_an_open_model_is_fixed_in_the_plan(tmp_path: Path):
    built = build_plan(save_pixel_model(tmp_path / "p.onnx"), tmp_path / "p.plan", BuildOptions("fp32"), library=RTX)
    assert built.facts is not None
    assert [spec.shape for spec in built.facts.inputs] == [(1, 3, 8, 8)]


def test_a_plan_may_be_recorded_as_a_graph():
    trt = load_tensorrt(RTX)
    builder = trt.make(trt.module.Builder)
    config = builder.create_builder_config()
    _apply(trt, builder, config, BuildOptions())
    assert config.get_flag(trt.module.BuilderFlag.REQUIRE_USER_ALLOCATION)


def test_progress_rises_to_the_end(tmp_path: Path):
    seen: list[tuple[float, str]] = []
    build_plan(
        demo_model(), tmp_path / "a.plan", BuildOptions("fp32"), library=RTX, report=lambda *now: seen.append(now)
    )
    fractions = [fraction for fraction, _ in seen]
    assert len(seen) > 10
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < 0.5
    assert 0.8 < fractions[-1] <= 1
    assert all(phase for _, phase in seen)


def test_a_build_can_be_cancelled(tmp_path: Path):
    def stop(fraction: float, phase: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(demo_model(), tmp_path / "a.plan", library=RTX, report=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_open_image_size_must_be_said(tmp_path: Path):
    model = save_pixel_model(tmp_path / "open.onnx", side="side")
    with pytest.raises(ConfigError, match=r"leaves its image size open: give it with --imgsz"):
        build_plan(model, tmp_path / "a.plan", BuildOptions("fp32"), library=RTX)
    built = build_plan(model, tmp_path / "a.plan", BuildOptions("fp32", (1, 1, 2), (16, 16)), library=RTX)
    assert built.facts is not None
    assert built.facts.inputs[0].shape == (None, 3, 16, 16), "what was built, not what the model left open"


def test_operators_that_tensorrt_lacks_are_named_with_the_remedy(tmp_path: Path, data_dir: Path):
    model = save_model(
        tmp_path / "det.onnx",
        [helper.make_node("Det", ["images"], ["out"])],
        {"images": (1, 3, 8, 8)},
        {"out": (1, 3)},
    )
    with pytest.raises(ModelError, match=r"TensorRT-RTX .* does not support Det \(1 times\)"):
        build_plan(model, tmp_path / "a.plan", BuildOptions("fp32"), library=RTX)
    with pytest.raises(ModelError, match=r"quantised dynamically \(.*ConvInteger.*\).*give the FP32 model"):
        build_plan(data_dir / "models" / "yolov8n_int8.onnx", tmp_path / "a.plan", BuildOptions("fp32"), library=RTX)


def test_an_operator_of_nobody_is_named(tmp_path: Path):
    nodes = [helper.make_node("Sprinkle", ["images"], ["out"], domain="my.own")]
    model = onnx.load(save_model(tmp_path / "a.onnx", nodes, {"images": (1, 3, 8, 8)}, {"out": (1, 3, 8, 8)}))
    model.opset_import.append(helper.make_opsetid("my.own", 1))
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="Sprinkle"):
        build_plan(tmp_path / "a.onnx", tmp_path / "a.plan", BuildOptions("fp32"), library=RTX)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_garbage_is_a_model_error(tmp_path: Path, precision):
    model = tmp_path / "garbage.onnx"
    model.write_bytes(b"\x08\x07garbage")
    with pytest.raises(ModelError, match=r"garbage\.onnx"):
        build_plan(model, tmp_path / "a.plan", BuildOptions(precision), library=RTX)


def test_garbage_that_reaches_the_parser_is_a_model_error():
    trt = load_tensorrt(RTX)
    facts = read_model_file(demo_model())
    with pytest.raises(ModelError, match="cannot read it"):
        plan_build.build_serialized(trt, b"garbage", facts, BuildOptions("fp32"))


def test_a_missing_profile_is_a_model_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(plan_build, "_fill_profile", lambda *arguments: False)
    with pytest.raises(ModelError, match="profile"):
        build_plan(demo_model(), tmp_path / "a.plan", BuildOptions("fp32"), library=RTX)


def test_a_dla_is_refused_where_there_is_none(tmp_path: Path):
    with pytest.raises(ConfigError, match="does not build for a DLA"):
        build_plan(demo_model(), tmp_path / "a.plan", BuildOptions(dla_core=0), library=RTX)


def test_the_cache_builds_once_and_says_why(tmp_path: Path):
    cache = PlanCache(tmp_path / "plans")
    model = save_pixel_model(tmp_path / "pixels.onnx")
    options = BuildOptions("fp32", (1, 2, 4))
    first, why_first = cache.get_or_build(model, options, library=RTX)
    changed = first.path.stat().st_mtime_ns
    second, why_second = cache.get_or_build(model, options, library=RTX)
    assert why_first == "built now: none was built for this model, GPU and setting yet"
    assert why_second == f"built before: {first.path}"
    assert (second.facts, second.path.stat().st_mtime_ns) == (first.facts, changed)
    other, _ = cache.get_or_build(model, BuildOptions("fp16", (1, 2, 4)), library=RTX)
    assert other.path != first.path


def test_the_cache_replaces_a_damaged_plan(tmp_path: Path):
    cache = PlanCache(tmp_path / "plans")
    model = save_pixel_model(tmp_path / "pixels.onnx")
    first, _ = cache.get_or_build(model, BuildOptions("fp32"), library=RTX)
    first.path.write_bytes(first.path.read_bytes()[:-1])
    second, why = cache.get_or_build(model, BuildOptions("fp32"), library=RTX)
    assert "damaged" in why
    assert second.plan()


@without_gpu
def test_tensorrt_itself_is_not_touched_without_a_gpu(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"TensorRT builds on the GPU.*(driver|GPU)"):
        build_plan(demo_model(), tmp_path / "a.plan", library="tensorrt")


@without_gpu
def test_where_both_are_installed_the_cache_takes_the_one_that_builds_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api, "installed_libraries", lambda: ("tensorrt", RTX))
    built, _ = PlanCache(tmp_path).get_or_build(save_pixel_model(tmp_path / "pixels.onnx"), BuildOptions("fp32"))
    assert built.facts is not None
    assert built.facts.library == RTX


@without_gpu
def test_running_without_a_gpu_is_an_error_with_the_reason(tmp_path: Path):
    model = save_pixel_model(tmp_path / "pixels.onnx")
    options = BackendOptions(ImageInput((8, 8)), precision="f32", cache_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"driver|GPU"):
        TensorRtBackend(model, options).open()


def test_a_plan_of_another_version_is_refused_with_the_remedy(tmp_path: Path):
    from engine.backends.files.plan import write_plan_file
    from engine.backends.tensorrt.backend import load_plan
    from engine.testing.cuda import FakeCuda

    path = tmp_path / "old.plan"
    write_plan_file(path, b"vtrt", plan_facts(library=RTX, library_version="1.0.0"), {})
    message = r'plan old.plan was built with TensorRT-RTX 1.0.0, this is TensorRT-RTX .*framewire build pixels.onnx"'
    with pytest.raises(ModelError, match=message):
        load_plan(FakeCuda(), read_plan_file(path))


def test_the_header_is_plain_json(tmp_path: Path):
    model = save_pixel_model(tmp_path / "pixels.onnx", metadata={"names": "{0: 'pixel'}"})
    built = build_plan(model, tmp_path / "a.plan", BuildOptions("fp32"), library=RTX)
    content = built.path.read_bytes()
    header = json.loads(content[4 : built.offset])
    assert header["names"] == "{0: 'pixel'}"
    assert header["framewire_plan"]["precision"] == "fp32"


def test_a_model_with_nms_is_refused_with_the_remedy_rather_than_the_libraries_words(tmp_path: Path):
    nodes = [helper.make_node("NonMaxSuppression", ["images", "images"], ["kept"])]
    path = save_model(tmp_path / "nms.onnx", nodes, {"images": (1, 8, 4)}, {"kept": ("n", 3)})
    with pytest.raises(ModelError, match=r"counts its boxes itself \(NonMaxSuppression\).*nms=False"):
        build_plan(path, tmp_path / "nms.plan", BuildOptions("fp32"), library=RTX)


def test_phases_that_repeat_and_nest_never_go_back():
    tree = PhaseTree()
    tree.start("build", None, 2)
    tree.start("inner", "build", 2)
    tree.step("inner", 0)
    assert tree.fraction == 0.25
    tree.finish("inner")
    assert tree.fraction == 0.25
    tree.step("build", 0)
    assert tree.fraction == 0.5
    tree.start("inner", "build", 4)
    assert tree.fraction == 0.5
    tree.finish("build")
    assert tree.fraction == 1.0
