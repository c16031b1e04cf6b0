"""What a model file says about itself, read without any runtime: tensors, metadata, weights.

A model file is untrusted input. These readers only look at the structure, are bounded in time and memory, execute
nothing from the file, and raise `ModelError` for anything malformed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from engine.backends.base import TensorSpec
from engine.catalogue import find_named, why_missing
from engine.errors import ModelError
from engine.optional import require_attribute
from engine.paths import is_remote_model, path_from_text

REMOTE_READER = "engine.backends.remote.describe:read_remote"
WHERE_FROM = 'make one with "yolo export model=yolo11n.pt format=onnx" (pip install ultralytics), or use --model demo'
"""Where a model comes from."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The facts of one model file.

    Attributes:
        path: the file that a backend loads (for a folder, the file in it).
        format: `onnx`, `openvino`, `tflite`, `plan`, `kserve`.
        inputs: tensors that the model takes.
        outputs: tensors that it returns, in order.
        metadata: what the exporter stored with the graph; values are text or plain Python values.
        precision: of the weights, for example `float32`, `float16`, `int8`.
        size_bytes: of the file and its weights.
        operators: number of uses of each operator, if the format stores them.
        weight_files: further files that hold weights.
    """

    path: Path
    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, Any]
    precision: str
    size_bytes: int
    operators: Mapping[str, int] = field(default_factory=dict)
    weight_files: tuple[Path, ...] = ()


READERS: Mapping[str, str] = MappingProxyType(
    {
        ".onnx": "engine.backends.files.onnx:read_onnx",
        ".xml": "engine.backends.files.openvino_ir:read_ir",
        ".tflite": "engine.backends.files.tflite:read_tflite",
        ".plan": "engine.backends.tensorrt.read_plan:read_plan",
        ".engine": "engine.backends.tensorrt.read_plan:read_plan",
    }
)


def find_model(path: str | Path) -> Path:
    """Return the file to load for `path`: a file, an exported folder, or the name of a model that was downloaded.

    The address of a model on a server is returned as a path.

    A file or folder of that name takes precedence.

    Raises:
        ModelError: nothing is there, the file is empty, or its name is not that of a model.
    """
    if is_remote_model(path):
        return Path(path)
    place = path_from_text(os.fspath(path))
    try:
        is_there = place.exists()
    except OSError as error:  # a name that is too long, or a folder that may not be searched
        raise ModelError(f"{str(place)[:200]}: cannot be opened: {error.strerror}") from error
    if not is_there:
        place = _named(os.fspath(path), place)
    if place.is_dir():
        place = _in_folder(place)
    if place.suffix.lower() not in READERS:
        hint = "; export it first: yolo export model=... format=onnx" if place.suffix.lower() in (".pt", ".pth") else ""
        raise ModelError(f"{place}: not a model file: expected {', '.join(READERS)} or an OpenVINO folder{hint}")
    if place.stat().st_size == 0:
        raise ModelError(f"{place}: the file is empty: copy or export it again")
    return place


def _named(text: str, place: Path) -> Path:
    found = find_named(text)
    if found is None:
        raise ModelError(f"{place}: {why_missing(text) or f'no such model file or folder: {WHERE_FROM}'}")
    return found


def _in_folder(folder: Path) -> Path:
    models = [found for suffix in READERS for found in sorted(folder.glob(f"*{suffix}"))]
    if len(models) == 1:
        return models[0]
    names = ", ".join(found.name for found in models[:5])
    found = f"{len(models)} models ({names})" if models else "no model"
    raise ModelError(f"{folder}: the folder holds {found}: name one file")


def read_model_file(path: str | Path) -> ModelFile:
    """Read what `path`, a model file, a folder, or a model on a server, says about itself. Raises `ModelError`."""
    place = find_model(path)
    target = REMOTE_READER if is_remote_model(place) else READERS[place.suffix.lower()]
    reader = cast(Callable[[Path], ModelFile], require_attribute(target))
    try:
        return reader(place)
    except OSError as error:
        raise ModelError(f"{place}: cannot be read: {error.strerror or error}") from error
