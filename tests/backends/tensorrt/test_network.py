"""What an ONNX file shows before a build: operators that TensorRT cannot run, and those reported to run wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.backends.base import TensorSpec
from engine.backends.files.base import ModelFile
from engine.backends.tensorrt.api import Library
from engine.backends.tensorrt.network import doubts
from engine.backends.tensorrt.precision import Precision


def _model(*operators: str, description: str = "") -> ModelFile:
    images = TensorSpec("images", (1, 3, 640, 640), "float32")
    metadata = {"description": description}
    return ModelFile(Path("m.onnx"), "onnx", (images,), (images,), metadata, "float32", 1, dict.fromkeys(operators, 1))


YOLOV10 = "Ultralytics YOLOv10n model trained on coco.yaml"


@pytest.mark.parametrize(
    ("operators", "library", "version", "built", "word"),
    [
        pytest.param(("Conv", "GridSample"), "tensorrt", "11.4.0", {}, "GridSample", id="GridSample, TensorRT 11"),
        pytest.param(("Conv", "GridSample"), "tensorrt", "10.13.3", {}, "GridSample", id="GridSample, TensorRT 10.13"),
        pytest.param(("Conv", "GridSample"), "tensorrt_rtx", "1.7.1", {}, "GridSample", id="GridSample, TensorRT-RTX"),
        pytest.param(("Conv", "GridSample"), "tensorrt", "10.3.0", {}, "", id="GridSample, before the reports"),
        pytest.param(("MatMul", "Softmax"), "tensorrt", "10.3.0", {"is_dynamic": True}, "attention", id="attention"),
        pytest.param(("MatMul", "Softmax"), "tensorrt", "10.3.0", {}, "", id="attention, one batch size"),
        pytest.param(("MatMul", "Softmax"), "tensorrt", "10.5.0", {"is_dynamic": True}, "", id="attention, corrected"),
        pytest.param(("Conv",), "tensorrt", "11.4.0", {}, "", id="a plain convolutional model"),
    ],
)
def test_models_with_reported_wrong_results_are_named(
    operators: tuple[str, ...], library: Library, version: str, built: dict[str, Any], word: str
) -> None:
    found = doubts(_model(*operators), library, version, **built)
    assert bool(found) == bool(word)
    assert all(word in line and "--backend onnxruntime" in line and version in line for line in found)


@pytest.mark.parametrize(
    ("precision", "version", "is_named"),
    [("fp16", "10.13.0", True), ("fp32", "10.13.0", False), ("fp16", "10.3.0", False)],
)
def test_a_yolov10_in_fp16_is_named(precision: Precision, version: str, is_named: bool) -> None:
    found = doubts(_model("Conv", description=YOLOV10), "tensorrt", version, precision=precision)
    assert ["YOLOv10" in line for line in found] == [True] * is_named
