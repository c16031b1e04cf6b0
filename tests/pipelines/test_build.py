"""From keys of the configuration to a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.detection.detector import ModelDetector
from pipelines.build import build_detector
from pipelines.config import Config
from tests.onnx_models import save_constant_model


def configured(model: Path, **detector: Any) -> Config:
    return Config.model_validate({"detector": {"model": str(model), "backend": "onnxruntime", **detector}})


def test_names_help_a_model_whose_own_are_refused(tmp_path: Path) -> None:
    metadata = {"names": "{0: 'a', 1: 'b'}"}  # two names for three classes
    model = save_constant_model(tmp_path / "m.onnx", [np.zeros((7, 84), np.float32)], metadata=metadata)
    detector = build_detector(configured(model, names=["a", "b", "c"]), [])
    assert isinstance(detector, ModelDetector)
    assert detector.class_names == ("a", "b", "c")
    assert detector.max_batch == 1
