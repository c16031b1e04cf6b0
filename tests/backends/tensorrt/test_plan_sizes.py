"""Plans of several image sizes: a model of fixed size is built for rectangles, and those that exist are used."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from engine.backends import select
from engine.backends.base import BackendOptions
from engine.backends.files.base import read_model_file
from engine.backends.files.plan import PlanFile, read_plan_file, write_plan_file
from engine.backends.onnx_resize import resized_onnx
from engine.backends.resize import FixedSizeError, SizeChange
from engine.backends.tensorrt import backend as tensorrt
from engine.backends.tensorrt import build_plan as plan_build
from engine.backends.tensorrt.api import Messages, TensorRt
from engine.backends.tensorrt.backend import Parts, TensorRtBackend
from engine.backends.tensorrt.build_plan import BuildOptions, build_plan
from engine.backends.tensorrt.find_plan import MissingPlan
from engine.backends.tensorrt.plan_size import at_size
from engine.detection.load import load_detector
from engine.errors import ConfigError
from engine.testing.cuda import FakeCuda
from engine.testing.tensorrt import FakePlan
from pipelines.models.build_plan import BuildRequest, _options, parse_size
from tests.backends.cuda.processor_kernels import PROCESSOR_KERNELS
from tests.backends.tensorrt.fake_gpu import PLAN, plan_facts
from tests.detection.test_shapes import frame, save_cells

OWN, WIDE, TALL = (64, 64), (32, 64), (64, 32)
PATIENCE_S = 60.0
Size = tuple[int, int]


def input_size(content: bytes) -> Size:
    shape = onnx.load_from_string(content).graph.input[0].type.tensor_type.shape
    return shape.dim[2].dim_value, shape.dim[3].dim_value


class Plans:
    """Plans of a model on a fake GPU, each run by ONNX Runtime; those of some sizes have been built."""

    def __init__(self, folder: Path, built: set[Size]) -> None:
        self.model = save_cells(folder / "cells.onnx")
        self.built = built
        self.loaded: list[Size] = []
        self._folder = folder

    def find(self, path: Path, options: BackendOptions) -> PlanFile | MissingPlan:
        assert options.image is not None
        size_hw = options.image.size_hw
        if size_hw not in self.built:
            return MissingPlan(path, BuildOptions("fp32", size_hw=size_hw), self._folder, "none was built")
        return self._written(size_hw)

    def build(self, path: Path, options: BackendOptions) -> PlanFile:
        assert options.image is not None
        self.built.add(options.image.size_hw)
        return self._written(options.image.size_hw)

    def _written(self, size_hw: Size) -> PlanFile:
        file = self._folder / f"cells-{size_hw[0]}.{size_hw[1]}.plan"
        content = at_size(self.model.read_bytes(), read_model_file(self.model), size_hw)
        resized = file.with_suffix(".onnx")
        onnx.save(onnx.shape_inference.infer_shapes(onnx.load_from_string(content)), resized)
        model = read_model_file(resized)
        facts = plan_facts(precision="fp32", inputs=model.inputs, outputs=model.outputs, model=self.model.name)
        write_plan_file(file, PLAN, replace(facts, plan_sha256=sha256(PLAN).hexdigest()), model.metadata)
        return read_plan_file(file)

    def load(self, cuda: Any, file: PlanFile) -> Any:
        model = read_model_file(file.path.with_suffix(".onnx"))
        session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
        size_hw = model.inputs[0].shape[2:]
        self.loaded.append(size_hw)  # type: ignore[arg-type]
        return FakePlan(cuda, model.inputs, model.outputs, lambda feeds: session.run(None, dict(feeds)), 1)


@pytest.fixture
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plans]:
    """A function that makes `load_detector` run the plans of those sizes that have been built."""

    def made(*built: Size) -> Plans:
        found = Plans(tmp_path, set(built))
        cuda = partial(FakeCuda, kernels=PROCESSOR_KERNELS)
        parts = Parts(cuda, found.load, lambda capability: b"cubin", lambda: None)
        backend, load_part = partial(TensorRtBackend, parts=parts), select.require_attribute
        monkeypatch.setattr(select, "why_not", lambda name, path=None: None)
        monkeypatch.setattr(
            select, "require_attribute", lambda name: backend if "tensorrt" in name else load_part(name)
        )
        monkeypatch.setattr(tensorrt, "find_plan", found.find)
        monkeypatch.setattr(tensorrt, "plan_to_run", found.build)
        return found

    return made


def detector_of(plans: Plans, *expected_wh: Size) -> Any:
    given: dict[str, Any] = {"backend": "tensorrt", "score_threshold": 0.6, "letterbox": "top_left", "size": "auto"}
    return load_detector(plans.model, **given, expected_wh=expected_wh, waits=lambda source_id: False)


def test_a_run_on_files_builds_the_rectangle_that_they_need(plans: Callable[..., Plans]) -> None:
    machine = plans()
    with detector_of(machine, (128, 64)) as detector:
        [found] = detector.detect([frame(64, 30)])
    assert machine.loaded == [WIDE]
    assert len(found) > 0
    with load_detector(machine.model, backend="onnxruntime", score_threshold=0.6, letterbox="top_left") as square:
        [expected] = square.detect([frame(64, 30)])
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-3)


@pytest.mark.parametrize(
    ("built", "expected_wh", "first"),
    [
        pytest.param([], [], [OWN], id="cameras: nothing is built for an aspect that is only guessed"),
        pytest.param([OWN], [(128, 64)], [OWN], id="what has been built goes before what would have to be"),
        pytest.param([OWN, WIDE], [(128, 64)], [WIDE], id="the rectangle has been built"),
        pytest.param([OWN, WIDE], [(128, 64), (64, 128)], [WIDE, OWN], id="one of two has"),
        pytest.param([], [(128, 64), (64, 128)], [WIDE, TALL], id="neither: both are built"),
    ],
)
def test_what_is_loaded_first(
    plans: Callable[..., Plans], built: list[Size], expected_wh: list[Size], first: list[Size]
) -> None:
    machine = plans(*built)
    with detector_of(machine, *expected_wh):
        assert machine.loaded == first


def test_nothing_is_built_while_cameras_are_served(
    plans: Callable[..., Plans], caplog: pytest.LogCaptureFixture
) -> None:
    machine = plans(OWN)
    with caplog.at_level(logging.INFO), detector_of(machine) as detector:
        deadline = time.monotonic() + PATIENCE_S  # plans are looked for in the background
        while "framewire build" not in caplog.text and time.monotonic() < deadline:
            assert len(detector.detect([frame(128, 60)])[0]) > 0
    assert (machine.loaded, machine.built) == ([OWN], {OWN})
    assert f"framewire build {machine.model} --precision fp32 --imgsz 32x64" in caplog.text


def test_a_plan_that_was_built_beforehand_is_used_by_the_cameras_of_its_aspect(plans: Callable[..., Plans]) -> None:
    machine = plans(OWN, TALL)
    with detector_of(machine) as detector:
        deadline = time.monotonic() + PATIENCE_S  # it is loaded in the background
        while TALL not in machine.loaded and time.monotonic() < deadline:
            detector.detect([frame(60, 128)])
        assert machine.loaded[-1] == TALL
        sized = detector._sizes.of(frame(60, 128))
        assert sized.facts.size_hw in (OWN, TALL)
        assert detector._sizes.of(frame(128, 60)).facts.size_hw == OWN


def test_there_are_no_windows_on_a_gpu(plans: Callable[..., Plans]) -> None:
    with detector_of(plans(OWN)) as detector:
        assert detector.window_grid(frame(128, 60), wait=True) is None


def test_each_plan_is_compared_with_its_model_at_its_size(plans: Callable[..., Plans]) -> None:
    machine = plans(WIDE)
    with detector_of(machine, (128, 64)):
        pass
    assert [path.name for path in machine.model.parent.glob("*.check.json")] == ["cells-32.64.plan.check.json"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_model_of_fixed_size_is_built_for_a_rectangle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    built: list[bytes] = []

    def serialized(trt: TensorRt, content: bytes, facts: Any, limited: BuildOptions, **_: Any) -> tuple[Any, ...]:
        built.append(content)
        return PLAN, facts.inputs, facts.outputs

    library = TensorRt(SimpleNamespace(), "tensorrt_rtx", "1.7", None, Messages())  # type: ignore[arg-type]
    monkeypatch.setattr(plan_build, "library_for_building", lambda wanted, probe: library)
    monkeypatch.setattr(plan_build, "build_serialized", serialized)
    model = save_cells(tmp_path / "cells.onnx")
    for size_hw in (WIDE, OWN, None):
        build_plan(model, tmp_path / "cells.plan", BuildOptions(precision, size_hw=size_hw))
    assert [input_size(content) for content in built] == [WIDE, OWN, OWN]


def test_a_graph_that_depends_on_its_size_is_not_built_for_another(tmp_path: Path) -> None:
    model = save_cells(tmp_path / "cells.onnx", extra=np.zeros((1, 3, 64, 64), np.float32))
    content = model.read_bytes()
    with pytest.raises(FixedSizeError):
        resized_onnx(model, SizeChange(OWN, WIDE))
    with pytest.raises(FixedSizeError):
        at_size(content, read_model_file(model), WIDE)
    assert at_size(content, read_model_file(model), OWN) is content


def test_weights_in_another_file_come_along(tmp_path: Path) -> None:
    model = onnx.load(save_cells(tmp_path / "inside.onnx"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.weights", size_threshold=0)
    file = read_model_file(tmp_path / "m.onnx")
    assert file.weight_files
    content = at_size((tmp_path / "m.onnx").read_bytes(), file, WIDE)
    onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert input_size(content) == WIDE


@pytest.mark.parametrize("size", [(40, 64), (96, 64), (0, 64)], ids=str)
def test_a_size_that_the_model_cannot_have_is_refused(tmp_path: Path, size: Size) -> None:
    model = save_cells(tmp_path / "cells.onnx")
    with pytest.raises(ConfigError, match="multiples of 32, at most 64x64"):
        _options(BuildRequest(str(model), size=size), read_model_file(model))


def test_the_command_takes_rows_and_columns(tmp_path: Path) -> None:
    model = save_cells(tmp_path / "cells.onnx")
    assert _options(BuildRequest(str(model), size=parse_size("32x64")), read_model_file(model)).size_hw == WIDE
    assert _options(BuildRequest(str(model)), read_model_file(model)).size_hw == OWN
    for wrong in ("", "wide", "1x2x3", "-32x64", "0"):
        with pytest.raises(ConfigError, match="expected SIDE"):
            parse_size(wrong)
