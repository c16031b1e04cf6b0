"""`backend: auto` continues with the next backend if the first does not open, and reports it once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.assets import demo_model
from engine.backends import select
from engine.backends.base import BackendOptions
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.data import Frame
from engine.detection.load import load_detector
from engine.errors import ModelError


class LostGpu:
    """A backend that is installed but cannot be opened: only the device knows why."""

    name = "tensorrt"
    depth = 1
    inputs = outputs = ()
    precision = "unknown"

    def __init__(self, path: Path, options: BackendOptions) -> None:
        self.path = path

    def open(self) -> None:
        raise ModelError("cuInit failed: CUDA_ERROR_NOT_SUPPORTED (801)")

    def close(self) -> None:
        """Nothing was opened."""


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the backends that `auto` finds usable, in order; the first does not open."""
    usable = ["tensorrt", "onnxruntime"]
    made = {"tensorrt": LostGpu, "onnxruntime": OnnxRuntimeBackend}
    monkeypatch.setattr(select, "why_not", lambda name, path=None: None if name in usable else "not installed")
    monkeypatch.setattr(
        select, "require_attribute", lambda target: made[next(name for name in made if f".{name}" in target)]
    )
    return usable


def test_auto_goes_on_with_the_next_backend(backends: list[str], caplog: pytest.LogCaptureFixture) -> None:
    detector = load_detector(demo_model())
    assert detector.backend == "tensorrt"
    detector.open()
    assert detector.backend == "onnxruntime"
    assert "tensorrt did not open" in detector.backend_reason
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "801" in record.getMessage()
    assert "continuing with onnxruntime" in record.getMessage()
    assert len(detector.detect([Frame(np.zeros((48, 64, 3), np.uint8))])) == 1
    detector.close()


def test_a_backend_that_was_asked_for_is_not_replaced(backends: list[str]) -> None:
    with pytest.raises(ModelError, match="801"):
        load_detector(demo_model(), backend="tensorrt").open()


def test_where_no_backend_opens_the_first_error_is_raised(backends: list[str]) -> None:
    backends.remove("onnxruntime")
    with pytest.raises(ModelError, match="801"):
        load_detector(demo_model()).open()


def test_a_closed_detector_falls_back_once_per_backend(backends: list[str]) -> None:
    detector = load_detector(demo_model())
    assert detector.fall_back()
    assert detector.backend == "onnxruntime"
    assert "tensorrt failed" in detector.backend_reason
    assert not detector.fall_back()
