"""Small ONNX files for tests, built here so that none need to be shipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Size = int | str


def save_model(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[Size]],
    outputs: Mapping[str, Sequence[Size]],
    weights: Mapping[str, NDArray[np.generic]] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a float32 model and return its path."""
    infos = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in table.items()]
        for table in (inputs, outputs)
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "test", *infos, initializer=initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tests")
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, str(path))
    return path


def save_pixel_model(
    path: Path, batch: Size = "batch", side: Size = 8, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a model that returns its images times two, and the mean of each channel."""
    nodes = [
        helper.make_node("Mul", ["images", "two"], ["doubled"]),
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
    ]
    return save_model(
        path,
        nodes,
        {"images": (batch, 3, side, side)},
        {"doubled": (batch, 3, side, side), "means": (batch, 3)},
        {"two": np.float32(2.0)},
        metadata,
    )


def save_byte_model(path: Path, side: int = 8) -> Path:
    """Write a model that takes its images as bytes and returns the mean of each channel."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[2, 3], keepdims=0),
    ]
    model = onnx.load(save_model(path, nodes, {"images": ("batch", 3, side, side)}, {"means": ("batch", 3)}))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, str(path))
    return path


def save_constant_model(
    path: Path,
    outputs: Sequence[NDArray[np.float32]],
    side: int = 64,
    metadata: Mapping[str, str] | None = None,
    batch: Size = "batch",
) -> Path:
    """Write a model whose every image gives the same outputs, plus what the image's mean pixel adds times zero.

    Args:
        path: the file.
        outputs: one image's outputs, without the batch axis.
        side: rows and columns of the input.
        metadata: of the file.
        batch: size or name of the batch axis.
    """
    nodes, shapes, weights = [helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1)], {}, {}
    weights["zero"] = np.float32(0)
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    for index, output in enumerate(outputs):
        name = f"output{index}"
        weights[f"value{index}"] = output[None]
        weights[f"shape{index}"] = np.array([-1, *[1] * output.ndim], np.int64)
        nodes.append(helper.make_node("Reshape", ["nothing", f"shape{index}"], [f"nothing{index}"]))
        nodes.append(helper.make_node("Add", [f"value{index}", f"nothing{index}"], [name]))
        shapes[name] = (batch, *output.shape)
    return save_model(path, nodes, {"images": (batch, 3, side, side)}, shapes, weights, metadata)
