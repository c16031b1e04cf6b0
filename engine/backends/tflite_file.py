"""Reader of TensorFlow Lite files, by OpenVINO, which is what runs them here."""

from __future__ import annotations

from pathlib import Path

from engine.backends.files import ModelFile
from engine.backends.ir_file import read_metadata_yaml
from engine.backends.openvino import read_specs


def read_tflite(path: Path) -> ModelFile:
    """Return what a TensorFlow Lite file says of itself. Raises `ModelError`."""
    inputs, outputs = read_specs(path)
    metadata = read_metadata_yaml(path.parent / "metadata.yaml")
    return ModelFile(path, "tflite", inputs, outputs, metadata, "unknown", path.stat().st_size)
