"""The image size of a plan: a model of fixed size can be built for others, one plan each."""

from __future__ import annotations

import tempfile
from pathlib import Path

from engine.backends.files.base import ModelFile
from engine.backends.onnx_resize import resized_onnx
from engine.backends.resize import SizeChange


def fixed_size(model: ModelFile) -> tuple[int, int] | None:
    """Return rows and columns of the images that an ONNX model takes; None if it leaves them open, or takes no images.

    Args:
        model: whose first input takes the images, (b, channels, rows, columns) or (b, rows, columns, 3).
    """
    shape = model.inputs[0].shape
    if len(shape) != 4:
        return None
    rows, columns = shape[1:3] if shape[3] == 3 else shape[2:4]
    return None if rows is None or columns is None else (rows, columns)


def at_size(content: bytes, model: ModelFile, size_hw: tuple[int, int] | None) -> bytes:
    """Return an ONNX model, in memory, at another image size; unchanged if it has that size or leaves it open.

    Args:
        content: the model, with the external weights of `model` if it has any.
        model: the file that it was made from.
        size_hw: rows and columns; None: its own.

    Raises:
        FixedSizeError: its graph cannot take that size.
        MissingDependencyError: the package onnx is not installed.
    """
    own_hw = fixed_size(model)
    if size_hw is None or own_hw is None or own_hw == size_hw:
        return content
    change = SizeChange(own_hw, size_hw)
    if model.weight_files and content == model.path.read_bytes():
        return resized_onnx(model.path, change)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / model.path.name
        path.write_bytes(content)
        return resized_onnx(path, change)
