"""Reader of TensorFlow Lite files: tensors through OpenVINO, which also runs them, and the exporter's metadata.

Exporters append a ZIP archive to the model: `metadata.json` (Ultralytics 8.3 and 8.4) or one file that holds a Python
literal (YOLOv5 7.0, Ultralytics 8.0 to 8.2). It is read within limits, and nothing in it is executed.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

from engine.backends.files.base import ModelFile
from engine.backends.files.openvino_ir import parse_metadata_yaml, read_metadata_yaml
from engine.backends.openvino import read_specs
from engine.errors import ModelError

MAX_METADATA_BYTES = 1 << 18
MAX_ARCHIVE_FILES = 64
IDENTIFIER = b"TFL3"
WHOLE_NUMBERS = ("int8", "int16", "uint16")
"""Bytes (uint8) are fed as the pixels that they are, and outputs of bytes are read before their rounding."""


def read_tflite(path: Path) -> ModelFile:
    """Read what a TensorFlow Lite file says about itself. Raises `ModelError`."""
    with path.open("rb") as file:
        if file.read(8)[4:] != IDENTIFIER:
            raise ModelError(f"{path}: not a TensorFlow Lite model: export or copy it again")
    inputs, outputs = read_specs(path)
    whole = [spec for spec in (*inputs, *outputs[:1]) if spec.dtype in WHOLE_NUMBERS]
    if whole:
        raise ModelError(
            f"{path}: {whole[0]} is quantised: floats or bytes at both ends can be fed; export it with "
            "float input and output (weights and inner layers may be int8)"
        )
    metadata = read_metadata_yaml(path.parent / "metadata.yaml") | _archived(path)
    return ModelFile(path, "tflite", inputs, outputs, metadata, "unknown", path.stat().st_size)


def _archived(path: Path) -> dict[str, Any]:
    """Return the metadata in the archive after the model, empty if there is none. Raises `ModelError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = {info.filename: info for info in archive.infolist()[:MAX_ARCHIVE_FILES]}
            chosen = files.get("metadata.json") or next((f for n, f in files.items() if n.endswith(".txt")), None)
            if chosen is None:
                return {}
            with archive.open(chosen) as file:
                text = file.read(MAX_METADATA_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, EOFError):
        return {}
    if len(text) > MAX_METADATA_BYTES:
        raise ModelError(f"{path}: its metadata are longer than {MAX_METADATA_BYTES} bytes: expected a few facts")
    plain = text.decode("utf-8", errors="replace").strip()
    return parse_metadata_yaml(plain, path) if plain.startswith("{") else {}  # any other text is a list of labels
