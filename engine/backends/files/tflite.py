"""Reader of TensorFlow Lite files: tensors, straight from the FlatBuffer, and the exporter's metadata.

Exporters append a ZIP archive to the model: `metadata.json` (Ultralytics 8.3 and 8.4) or one file that holds a Python
literal (YOLOv5 7.0, Ultralytics 8.0 to 8.2). It is read within limits, and nothing in it is executed.
"""

from __future__ import annotations

import mmap
import zipfile
import zlib
from pathlib import Path
from typing import Any

from engine.backends.base import TensorSpec
from engine.backends.files.base import ModelFile
from engine.backends.files.flatbuffer import Table, root
from engine.backends.files.openvino_ir import parse_metadata_yaml, read_metadata_yaml
from engine.errors import ModelError

MAX_METADATA_BYTES = 1 << 18
MAX_ARCHIVE_FILES = 64
IDENTIFIER = b"TFL3"
DTYPE_BY_TYPE = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "float64",
    12: "uint64", 15: "uint32", 16: "uint16",
}  # fmt: skip
"""`TensorType` of schema.fbs."""
MAX_TENSORS = 256
MAX_RANK = 16
WHOLE_NUMBERS = ("int8", "int16", "uint16")
"""Bytes (uint8) are fed as the pixels that they are, and outputs of bytes are read before their rounding."""


def read_tflite(path: Path) -> ModelFile:
    """Read what a TensorFlow Lite file says about itself. Raises `ModelError`."""
    with path.open("rb") as file:
        if file.read(8)[4:] != IDENTIFIER:
            raise ModelError(f"{path}: not a TensorFlow Lite model: export or copy it again")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # unmapped when its last view is freed
    try:
        inputs, outputs = _specs(root(memoryview(mapped)))
    except (ValueError, IndexError) as error:
        raise ModelError(
            f"{path}: not a TensorFlow Lite model, or cut short ({error}): export or copy it again"
        ) from error
    whole = [spec for spec in (*inputs, *outputs[:1]) if spec.dtype in WHOLE_NUMBERS]
    if whole:
        raise ModelError(
            f"{path}: {whole[0]} is quantised: only float or byte inputs and outputs are supported; export it with "
            "float input and output (weights and inner layers may be int8)"
        )
    metadata = read_metadata_yaml(path.parent / "metadata.yaml") | _archived(path)
    return ModelFile(path, "tflite", inputs, outputs, metadata, "unknown", path.stat().st_size)


def _specs(model: Table) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs of the first subgraph. Raises `ValueError`; field numbers are of schema.fbs."""
    graph = model.tables(2)[0]
    tensors = graph.tables(0)
    inputs, outputs = (tuple(_spec(tensors[i]) for i in graph.numbers(field, MAX_TENSORS)) for field in (1, 2))
    if not inputs or not outputs:
        raise ValueError(f"the graph has {len(inputs)} inputs and {len(outputs)} outputs")
    return inputs, outputs


def _spec(tensor: Table) -> TensorSpec:
    kind = tensor.byte(1)
    if kind not in DTYPE_BY_TYPE:
        raise ValueError(f"a tensor of unknown type {kind}")
    shape, signature = tensor.numbers(0, MAX_RANK), tensor.numbers(7, MAX_RANK)
    if min(shape, default=0) < 0:
        raise ValueError("a tensor of negative size")
    sizes = [None if size < 0 else size for size in signature] if len(signature) == len(shape) else shape
    return TensorSpec(tensor.text(3), tuple(sizes), DTYPE_BY_TYPE[kind])


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
