"""What an ONNX file shows before a build: operators that TensorRT cannot run, and those reported to run wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.backends.base import TensorSpec
from engine.backends.files.base import ModelFile
from engine.backends.tensorrt.network import doubts


def _model(*operators: str) -> ModelFile:
    images = TensorSpec("images", (1, 3, 640, 640), "float32")
    return ModelFile(Path("m.onnx"), "onnx", (images,), (images,), {}, "float32", 1, dict.fromkeys(operators, 1))


@pytest.mark.parametrize(
    ("operators", "version", "doubtful"),
    [
        pytest.param(("Conv", "GridSample"), "11.4.0", True, id="GridSample, TensorRT 11"),
        pytest.param(("Conv", "GridSample"), "10.13.3", True, id="GridSample, TensorRT 10.13"),
        pytest.param(("Conv", "GridSample"), "10.3.0", False, id="GridSample, before the reports"),
        pytest.param(("Conv",), "11.4.0", False, id="a plain convolutional model"),
    ],
)
def test_models_with_reported_wrong_results_are_named(operators: tuple[str, ...], version: str, doubtful: bool) -> None:
    found = doubts(_model(*operators), version)
    assert bool(found) == doubtful
    assert all("GridSample" in line and "--backend onnxruntime" in line for line in found)
