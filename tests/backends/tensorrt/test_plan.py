"""Plan files and their cache: headers, refusals, keys. No TensorRT needed."""

from __future__ import annotations

import json
import os
import struct
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from engine.backends.base import BackendOptions
from engine.backends.cuda.probe import Gpu
from engine.backends.files.base import read_model_file
from engine.backends.files.plan import PlanFacts, facts_from_json, facts_to_json, read_plan_file, write_plan_file
from engine.backends.tensorrt import find_plan as tensorrt_file
from engine.backends.tensorrt import plan_cache
from engine.backends.tensorrt.api import Library
from engine.backends.tensorrt.backend import TensorRtBackend, why_not
from engine.backends.tensorrt.build_plan import BuildOptions, PlanPlace, model_sha256, parse_batch
from engine.backends.tensorrt.find_plan import MissingPlan, find_plan
from engine.backends.tensorrt.network import why_not_model
from engine.backends.tensorrt.plan_cache import PlanCache, cache_for, plan_key, why_not_plan
from engine.backends.tensorrt.precision import with_precision
from engine.errors import ConfigError, ModelError
from tests.backends.tensorrt.fake_gpu import PLAN, plan_facts
from tests.onnx_models import save_model, save_pixel_model

ORIN = Gpu(0, "Orin", (8, 7), "GPU-1", 8 << 30, True)
DESKTOP = Gpu(0, "RTX 4090", (8, 9), "GPU-2", 24 << 30, False)
JETSON = PlanPlace("tensorrt", "10.3.0", "12.6", ORIN)


def ultralytics_engine(path: Path, metadata: dict[str, object], plan: bytes = b"ftrt and so on") -> Path:
    text = json.dumps(metadata).encode()
    path.write_bytes(struct.pack("<i", len(text)) + text + plan)
    return path


def test_a_header_comes_back_as_it_was_written(tmp_path: Path):
    path = tmp_path / "deep" / "model.plan"
    facts = plan_facts(key="k", accuracy={"agreement": 0.98})
    write_plan_file(path, PLAN, facts, {"names": "{0: 'person'}", "stride": "32"})
    found = read_plan_file(path)
    assert found.facts == facts
    assert found.metadata == {"names": "{0: 'person'}", "stride": "32"}
    assert found.plan() == PLAN
    assert [entry.name for entry in path.parent.iterdir()] == ["model.plan"]


def test_what_a_killed_build_left_goes_with_the_next_one(tmp_path: Path):
    left, under_way, other = tmp_path / ".m.plan.a1", tmp_path / ".m.plan.b2", tmp_path / ".n.plan.c3"
    for each in (left, under_way, other):
        each.write_bytes(b"half of a plan")
    long_ago = time.time() - 2 * 3600
    os.utime(left, (long_ago, long_ago))
    os.utime(other, (long_ago, long_ago))
    write_plan_file(tmp_path / "m.plan", PLAN, plan_facts(), {})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".m.plan.b2", ".n.plan.c3", "m.plan"]


def test_a_plan_describes_itself_without_tensorrt(tmp_path: Path):
    path = tmp_path / "model.plan"
    write_plan_file(path, PLAN, plan_facts(), {"names": "{0: 'person'}"})
    found = read_model_file(path)
    assert (found.format, found.precision) == ("plan", "fp16")
    assert [str(spec) for spec in found.inputs] == ["images (?, 3, 8, 8) float32"]
    assert [spec.name for spec in found.outputs] == ["doubled", "means"]
    assert found.metadata["names"] == "{0: 'person'}"


def test_the_header_of_an_ultralytics_engine_is_read(tmp_path: Path):
    metadata = {"names": {"0": "person"}, "stride": 32, "imgsz": [640, 640], "args": {"half": True}}
    found = read_plan_file(ultralytics_engine(tmp_path / "yolo.engine", metadata))
    assert found.facts is None
    assert found.metadata == metadata
    assert found.plan() == b"ftrt and so on"


def test_our_plans_have_the_layout_that_ultralytics_reads(tmp_path: Path):
    path = tmp_path / "model.plan"
    write_plan_file(path, PLAN, plan_facts(), {"stride": "32"})
    content = path.read_bytes()
    length = struct.unpack_from("<i", content)[0]
    assert json.loads(content[4 : 4 + length])["stride"] == "32"
    assert content[4 + length :] == PLAN


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"vtrt\x00\x00\x00\x00rest", id="the length is beyond the file"),
        pytest.param(struct.pack("<i", -1) + b"{}", id="negative length"),
        pytest.param(struct.pack("<i", 2) + b"[]rest", id="JSON that is no object"),
        pytest.param(struct.pack("<i", 4) + b"\xff\xfe\xfd\xfcrest", id="no text"),
        pytest.param(b"ab", id="two bytes"),
    ],
)
def test_a_file_without_a_header_is_a_bare_plan(tmp_path: Path, content: bytes):
    path = tmp_path / "bare.plan"
    path.write_bytes(content)
    found = read_plan_file(path)
    assert (found.facts, found.metadata, found.plan()) == (None, {}, content)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"format": 99}, id="a later format"),
        pytest.param({"batch": [1]}, id="a short profile"),
        pytest.param({"inputs": None}, id="no inputs"),
        pytest.param({"surprise": 1}, id="an unknown key"),
    ],
)
def test_a_header_of_ours_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object]):
    values = {**facts_to_json(plan_facts()), **change}
    path = ultralytics_engine(tmp_path / "model.plan", {"framewire_plan": values})
    with pytest.raises(ModelError, match=r"header does not fit.*build it again"):
        read_plan_file(path)


def test_facts_survive_json():
    facts = plan_facts()
    assert facts_from_json(json.loads(json.dumps(facts_to_json(facts)))) == facts


def test_a_damaged_plan_is_found(tmp_path: Path):
    path = tmp_path / "model.plan"
    write_plan_file(path, PLAN, plan_facts(), {})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ModelError, match="damaged; build it again"):
        read_plan_file(path).plan()


def test_a_foreign_plan_without_a_gpu_says_what_is_missing(tmp_path: Path):
    reason = why_not()
    if reason is None:
        pytest.skip("TensorRT is usable here: the plan would be loaded")
    path = ultralytics_engine(tmp_path / "yolo.engine", {"stride": 32})
    with pytest.raises(ModelError, match=r"can only be read by loading it.*(NVIDIA|CUDA|GPU|TensorRT)"):
        read_model_file(path)


def test_the_backend_says_why_it_cannot_run_before_it_builds_anything(tmp_path: Path):
    if why_not() is None:
        pytest.skip("TensorRT is usable here")
    model = save_pixel_model(tmp_path / "pixels.onnx")
    with pytest.raises(ConfigError, match=r"TensorRT cannot run here: .*(driver|GPU|installed).*--backend auto"):
        TensorRtBackend(model).open()
    assert [path.name for path in tmp_path.iterdir()] == ["pixels.onnx"]


def test_a_dynamically_quantised_model_is_left_to_the_processor(tmp_path: Path):
    nodes = [helper.make_node("DynamicQuantizeLinear", ["images"], ["q", "s", "z"])]
    nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["out"]))
    path = save_model(tmp_path / "q.onnx", nodes, {"images": (1, 3, 8, 8)}, {"out": (1, 3, 8, 8)})
    reason = why_not_model(read_model_file(path), "tensorrt")
    assert "q.onnx is quantised dynamically (DynamicQuantizeLinear)" in str(reason)
    assert why_not_model(read_model_file(save_pixel_model(tmp_path / "pixels.onnx")), "tensorrt_rtx") is None


def test_a_model_that_takes_no_fp32_images_is_left_to_the_processor(tmp_path: Path):
    path = save_pixel_model(tmp_path / "pixels.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, path)
    reason = why_not_model(read_model_file(path), "tensorrt")
    assert "pixels.onnx takes float16 images" in str(reason)


BRANCH = helper.make_graph(
    [helper.make_node("Identity", ["images"], ["branch"])],
    "branch",
    [],
    [helper.make_tensor_value_info("branch", onnx.TensorProto.FLOAT, None)],
)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        pytest.param([helper.make_node("Relu", ["images"], ["out"])], "fp16", id="plain"),
        pytest.param(
            [
                helper.make_node("QuantizeLinear", ["images", "scale"], ["q"]),
                helper.make_node("DequantizeLinear", ["q", "scale"], ["out"]),
            ],
            "fp32",
            id="quantised statically",
        ),
        pytest.param(
            [helper.make_node("If", ["yes"], ["out"], then_branch=BRANCH, else_branch=BRANCH)], "fp32", id="branches"
        ),
    ],
)
def test_a_model_that_cannot_be_made_fp16_is_built_as_it_is(
    tmp_path: Path, nodes: list[onnx.NodeProto], expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tensorrt_file, "load_tensorrt", lambda library: None)
    monkeypatch.setattr(tensorrt_file, "plan_place", lambda trt, probe: JETSON)
    weights = {"scale": np.float32(0.1), "yes": np.array(True)}
    path = save_model(tmp_path / "m.onnx", nodes, {"images": (1, 3, 8, 8)}, {"out": (1, 3, 8, 8)}, weights)
    missing = find_plan(path, BackendOptions())
    assert isinstance(missing, MissingPlan)
    assert missing.options.precision == expected
    content, _ = with_precision(path, missing.options.precision)
    assert onnx.load_from_string(content).graph.node


@pytest.mark.parametrize(
    ("outputs", "library", "is_refused"),
    [
        pytest.param({"kept": ("n", 3)}, "tensorrt", True, id="open"),
        pytest.param({"kept": (1, 300, 6)}, "tensorrt", False, id="padded"),
        pytest.param({"kept": (1, "n", 6)}, "tensorrt", True, id="open rows"),
        pytest.param({"kept": (1, 300, 6)}, "tensorrt_rtx", True, id="RTX runs no NMS"),
    ],
)
def test_a_model_that_counts_its_boxes_itself_is_refused_before_it_is_built(
    tmp_path: Path, outputs: dict[str, tuple[int | str, ...]], library: Library, is_refused: bool
):
    nodes = [helper.make_node("NonMaxSuppression", ["images", "images"], ["kept"])]
    path = save_model(tmp_path / "nms.onnx", nodes, {"images": (1, 3, 8, 8)}, outputs)
    reason = why_not_model(read_model_file(path), library)
    assert (reason is not None) == is_refused
    if reason is not None:
        assert "nms.onnx counts its boxes itself (NonMaxSuppression)" in reason
        assert "export it without NMS (nms=False)" in reason


@pytest.mark.parametrize(
    ("facts", "target", "reason"),
    [
        pytest.param({}, replace(JETSON, gpu=DESKTOP), None, id="the same"),
        pytest.param(
            {"library_version": "10.13.0"}, JETSON, "built with TensorRT 10.13.0, this is TensorRT 10.3.0", id="version"
        ),
        pytest.param({"library": "tensorrt_rtx"}, JETSON, "TensorRT-RTX 10.3.0, this is TensorRT 10.3.0", id="library"),
        pytest.param({}, JETSON, r"built on Fake GPU \(sm_89\), this is Orin \(sm_87", id="GPU"),
        pytest.param(
            {"library": "tensorrt_rtx", "compute_capability": (0, 0)},
            PlanPlace("tensorrt_rtx", "10.3.0", "13.0", DESKTOP),
            None,
            id="RTX compiles for any GPU",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_in_words(facts, target: PlanPlace, reason: str | None):
    import re

    found = why_not_plan(plan_facts(**facts), target)
    assert found is None if reason is None else re.search(reason, found or "")


BASE = {"model_digest": "m", "target": JETSON, "options": BuildOptions()}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"model_digest": "other"}, id="model"),
        pytest.param({"target": replace(JETSON, library="tensorrt_rtx")}, id="library"),
        pytest.param({"target": replace(JETSON, library_version="10.7.0")}, id="version"),
        pytest.param({"target": replace(JETSON, cuda_version="13.0")}, id="CUDA"),
        pytest.param({"target": replace(JETSON, gpu=DESKTOP)}, id="GPU"),
        pytest.param({"options": BuildOptions(precision="fp32")}, id="precision"),
        pytest.param({"options": BuildOptions(batch=(1, 8, 16))}, id="batch"),
        pytest.param({"options": BuildOptions(size_hw=(320, 320))}, id="size"),
        pytest.param({"options": BuildOptions(workspace_mib=64)}, id="workspace"),
        pytest.param({"options": BuildOptions(dla_core=0)}, id="DLA"),
        pytest.param({"options": BuildOptions(calibration_id="images")}, id="calibration images"),
    ],
)
def test_the_key_changes_with_everything_that_the_plan_depends_on(change: dict[str, object]):
    assert plan_key(**{**BASE, **change}) != plan_key(**BASE)  # type: ignore[arg-type]
    assert plan_key(**{**BASE, **change}) == plan_key(**{**BASE, **change})  # type: ignore[arg-type]


def test_a_board_of_the_same_kind_takes_the_same_plan():
    twin = replace(ORIN, uuid="GPU-9", index=1)
    assert plan_key("m", replace(JETSON, gpu=twin), BuildOptions()) == plan_key("m", JETSON, BuildOptions())


class Cached:
    """A cache with one plan in it."""

    def __init__(self, folder: Path) -> None:
        self.model = save_pixel_model(folder / "yolo.onnx")
        self.cache = PlanCache(folder / "plans")
        self.options = BuildOptions()
        self.key = plan_key(model_sha256(self.model), JETSON, self.options)
        self.path = self.cache.path(self.model, self.options, self.key)
        self.facts = plan_facts(key=self.key, gpu="Orin", compute_capability=(8, 7))
        write_plan_file(self.path, PLAN, self.facts, {})

    def find(self, target: PlanPlace = JETSON, options: BuildOptions | None = None) -> tuple[PlanFacts | None, str]:
        found, reason = self.cache.find(self.model, target, options or self.options)
        return (found.facts if found else None), reason


def test_the_cache_finds_what_fits(tmp_path: Path):
    cached = Cached(tmp_path)
    assert cached.find() == (cached.facts, f"built before: {cached.path}")


def test_the_cache_misses_after_the_model_changed(tmp_path: Path):
    cached = Cached(tmp_path)
    save_pixel_model(cached.model, side=16)
    assert cached.find() == (None, "none was built for this model, GPU and setting yet")


def test_the_cache_misses_after_weights_beside_the_model_changed(tmp_path: Path):
    path = save_pixel_model(tmp_path / "yolo.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="yolo.data", size_threshold=0)
    before = path.read_bytes()
    first, again = model_sha256(path), model_sha256(path)
    weights = tmp_path / "yolo.data"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    assert path.read_bytes() == before
    assert model_sha256(path) != first == again


def test_the_cache_says_which_plan_does_not_fit_any_more(tmp_path: Path):
    cached = Cached(tmp_path)
    found, reason = cached.find(replace(JETSON, library_version="10.13.0"))
    assert found is None
    assert reason.endswith("was built with TensorRT 10.3.0, this is TensorRT 10.13.0")


def test_a_damaged_plan_in_the_cache_is_not_used(tmp_path: Path):
    cached = Cached(tmp_path)
    cached.path.write_bytes(cached.path.read_bytes() + b"x")
    found, reason = cached.find()
    assert found is None
    assert "damaged" in reason


def test_a_plan_under_another_name_is_not_used(tmp_path: Path):
    cached = Cached(tmp_path)
    write_plan_file(cached.path, PLAN, replace(cached.facts, key="another"), {})
    found, reason = cached.find()
    assert found is None
    assert "is not the plan that its name promises" in reason


@pytest.mark.parametrize("text", ["", "a", "1:2:3:4", "1:-2", "1,2"])
def test_a_batch_profile_that_is_none_is_refused(text: str):
    with pytest.raises(ConfigError, match="MIN:OPTIMAL:MAX"):
        parse_batch(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"batch": (2, 1, 4)}, "smallest <= optimal <= largest", id="order"),
        pytest.param({"batch": (0, 1, 1)}, "between 1 and", id="zero"),
        pytest.param({"precision": "int4"}, "expected fp32, fp16, int8", id="precision"),
        pytest.param({"optimization_level": 6}, "expected 0 to 5", id="level"),
        pytest.param({"workspace_mib": 0}, "expected 1 or more", id="workspace"),
    ],
)
def test_build_options_that_cannot_work_are_refused(options: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        BuildOptions(**options)  # type: ignore[arg-type]


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that this user may not write, as a package of the system is; file modes do not stop root."""
    folder = tmp_path / "installed"
    folder.mkdir()
    monkeypatch.setattr(plan_cache.os, "access", lambda place, mode: Path(place) != folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return folder


def test_plans_of_a_model_that_lies_where_nothing_can_be_written_go_to_the_user(read_only: Path, tmp_path: Path):
    model = read_only / "yolo.onnx"
    assert cache_for(model).folder == tmp_path / "user" / "framewire" / "plans"
    assert cache_for(model, tmp_path / "asked for").folder == tmp_path / "asked for"
    assert cache_for(tmp_path / "yolo.onnx").folder == tmp_path


def test_a_plan_beside_a_model_is_found_where_nothing_can_be_written(read_only: Path):
    cached = Cached(read_only)
    cached.path.rename(read_only / cached.path.name)
    found, reason = cache_for(cached.model).find(cached.model, JETSON, cached.options)
    assert (found and found.facts) == cached.facts, reason
    assert cache_for(cached.model).find(cached.model, replace(JETSON, library_version="10.13.0"), cached.options) == (
        None,
        f"{cached.path.name} was built with TensorRT 10.3.0, this is TensorRT 10.13.0",
    )


def test_a_folder_that_cannot_be_written_is_an_error_with_the_remedy(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"in the way")
    with (
        pytest.raises(ConfigError, match=r"plans cannot be kept in .*file.plans .*cache_dir"),
        PlanCache(tmp_path / "file" / "plans")._locked(),
    ):
        pass
    with pytest.raises(ConfigError, match=r"m.plan cannot be written"):
        write_plan_file(tmp_path / "file" / "m.plan", PLAN, plan_facts(), {})


def test_a_driver_update_does_not_rebuild_plans_of_tensorrt_rtx():
    """TensorRT-RTX compiles when it loads a plan, so the driver that built it does not matter."""
    rtx = replace(JETSON, library="tensorrt_rtx")
    assert plan_key("m", rtx, BuildOptions()) == plan_key("m", replace(rtx, cuda_version="13.0"), BuildOptions())
