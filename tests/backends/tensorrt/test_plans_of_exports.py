"""Plans of models as Ultralytics exports them (random weights, nothing is downloaded), built with TensorRT-RTX."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backends.files.base import read_model_file
from engine.backends.tensorrt.api import installed_libraries
from engine.backends.tensorrt.build_plan import BuildOptions, Prepared, build_plan
from engine.backends.tensorrt.precision import with_precision
from engine.detection.model import inspect_model

RTX = "tensorrt_rtx"
MISSING = [name for name in ("torch", "ultralytics", "onnxslim") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(RTX not in installed_libraries(), reason="not installed: pip install tensorrt-rtx"),
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"{', '.join(MISSING)} not installed: pip install 'framewire[export]' torchvision onnxslim",
    ),
]
FAMILIES = {"yolov8n": "yolo", "yolo11n": "yolo", "yolo26n": "end_to_end", "rtdetr-l": "rtdetr"}
SIZES = {"yolov8n": 640}
SIDE = 320
IS_DYNAMIC = {"yolov8n": True, "yolo11n": False, "yolo26n": True, "rtdetr-l": True}
"""Whether the batch is open in the short form: each family once, with each precision; the rest takes minutes."""
PLANS = [
    pytest.param(
        name,
        precision,
        is_dynamic,
        marks=[] if is_dynamic == IS_DYNAMIC[name] else [pytest.mark.soak],
        id=f"{name}-{precision}-{'dynamic' if is_dynamic else 'static'}",
    )
    for name in FAMILIES
    for precision in ("fp32", "fp16", "int8")
    for is_dynamic in (False, True)
]
Export = Callable[[str, bool], Path]


EXPORT = """
import sys
from ultralytics import RTDETR, YOLO
name, size, is_dynamic, is_free_of_nms = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True", sys.argv[4] == "True"
model = (RTDETR if name.startswith("rtdetr") else YOLO)(f"{name}.yaml")
options = {"nms": False} if is_free_of_nms else {}
model.export(format="onnx", imgsz=size, dynamic=is_dynamic, simplify=True, verbose=False, **options)
"""


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A function that exports an architecture once: (name, whether its batch is open) to the ONNX file."""

    @cache
    def exported(name: str, is_dynamic: bool) -> Path:
        folder = tmp_path_factory.mktemp(name)
        options = (name, SIZES.get(name, SIDE), is_dynamic, FAMILIES[name] == "end_to_end")
        command = [sys.executable, "-c", EXPORT, *map(str, options)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return folder / f"{name}.onnx"

    return exported


def calibration(size: int) -> Iterator[NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    for _ in range(2):
        yield rng.random((1, 3, size, size)).astype(np.float32)


@pytest.mark.parametrize(("name", "precision", "is_dynamic"), PLANS)
def test_an_export_becomes_a_plan_that_describes_itself(
    name: str, precision: str, is_dynamic: bool, export: Export, tmp_path: Path
) -> None:
    model, size = export(name, is_dynamic), SIZES.get(name, SIDE)
    before = inspect_model(model, size=size)
    batch = (1, 2, 4) if is_dynamic else (1, 1, 1)
    content, _ = with_precision(model, precision, calibration(size))  # type: ignore[arg-type]
    options = BuildOptions(precision, batch, size_hw=(size, size) if is_dynamic else None)  # type: ignore[arg-type]
    output = tmp_path / f"{name}.plan"
    built = build_plan(model, output, options, library=RTX, prepare=lambda: Prepared(content, {}))
    assert built.facts is not None
    assert (built.facts.precision, built.facts.batch) == (precision, batch)
    found, after = read_model_file(output), inspect_model(output)
    assert [spec.name for spec in found.inputs + found.outputs] == [
        spec.name for spec in before.file.inputs + before.file.outputs
    ]
    assert found.inputs[0].shape == (None if is_dynamic else 1, 3, size, size)
    assert after.family.name == before.family.name == FAMILIES[name]
    assert after.class_names == before.class_names
    assert found.outputs[0].shape[1:] == ((300, 6) if FAMILIES[name] != "yolo" else (84, size * size * 21 // 1024))
