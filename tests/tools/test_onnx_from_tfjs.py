"""The TensorFlow.js converter against a plain numpy forward pass of the same graph."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from engine.errors import ModelError
from tools.make.onnx_from_tfjs import main, onnx_from_tfjs, read_weights

RNG = np.random.default_rng(3)


def text(value: str) -> dict[str, str]:
    return {"s": base64.b64encode(value.encode()).decode()}


def numbers(*values: int) -> dict[str, Any]:
    return {"list": {"i": [str(value) for value in values]}}


def conv(name: str, inputs: list[str], op: str, stride: int, padding: str, *fused: str) -> dict[str, Any]:
    attributes = {"strides": numbers(1, stride, stride, 1), "dilations": numbers(1, 1, 1, 1), "padding": text(padding)}
    if fused:
        attributes["fused_ops"] = {"list": {"s": [base64.b64encode(kind.encode()).decode() for kind in fused]}}
    return {"name": name, "op": op, "input": inputs, "attr": attributes}


WEIGHTS: dict[str, np.ndarray] = {
    "k1": RNG.standard_normal((3, 3, 3, 4)).astype(np.float32),
    "b1": RNG.standard_normal(4).astype(np.float32),
    "k2": RNG.standard_normal((3, 3, 4, 1)).astype(np.float32),
    "add": RNG.standard_normal((1, 1, 1, 4)).astype(np.float32),
    "to_first": np.int32([0, 3, 1, 2]),
    "to_last": np.int32([0, 2, 3, 1]),
    "pads": np.int32([[0, 0], [0, 0], [1, 1], [1, 1]]),
    "low": np.float32(-np.inf),
    "size": np.int32([8, 8]),
    "axis": np.int32(-1),
    "halves": np.int32([5, 3]),
    "flat": np.int32([1, -1, 3]),
}
NODES: list[dict[str, Any]] = [
    {"name": "x", "op": "Placeholder", "attr": {"shape": {"shape": {"dim": [{"size": str(s)} for s in (1, 8, 8, 3)]}}}},
    *({"name": name, "op": "Const"} for name in WEIGHTS),
    conv("c1", ["x", "k1", "b1"], "_FusedConv2D", 2, "SAME", "BiasAdd", "Relu6"),
    {"name": "first", "op": "Transpose", "input": ["c1", "to_first"]},
    {"name": "padded", "op": "PadV2", "input": ["first", "pads", "low"]},
    {"name": "last", "op": "Transpose", "input": ["padded", "to_last"]},
    {
        "name": "pool", "op": "MaxPool", "input": ["last"],
        "attr": {"ksize": numbers(1, 3, 3, 1), "strides": numbers(1, 1, 1, 1), "padding": text("VALID")},
    },
    conv("c2", ["pool", "k2"], "DepthwiseConv2dNative", 1, "SAME"),
    {"name": "sum", "op": "AddV2", "input": ["c2", "add"]},
    {
        "name": "up", "op": "ResizeBilinear", "input": ["sum", "size"],
        "attr": {"half_pixel_centers": {"b": True}, "align_corners": {"b": False}},
    },
    {"name": "both", "op": "ConcatV2", "input": ["up", "up", "axis"]},
    {"name": "parts", "op": "SplitV", "input": ["both", "halves", "axis"]},
    {"name": "score", "op": "Sigmoid", "input": ["parts:1"]},
    {"name": "rows", "op": "Reshape", "input": ["score", "flat"]},
]  # fmt: skip
GRAPH = {"modelTopology": {"node": NODES}}


def windows(image: np.ndarray, size: int, stride: int) -> np.ndarray:
    view = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))
    return view[::stride, ::stride]


def expected(image: np.ndarray) -> np.ndarray:
    x = np.pad(image, ((0, 1), (0, 1), (0, 0)))  # SAME, stride 2: the one row goes to the end
    x = np.einsum("yxcij,ijco->yxo", windows(x, 3, 2), WEIGHTS["k1"]) + WEIGHTS["b1"]
    x = np.pad(x.clip(0, 6), ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    x = windows(x, 3, 1).max(axis=(3, 4))
    x = np.einsum("yxcij,ijc->yxc", windows(np.pad(x, ((1, 1), (1, 1), (0, 0))), 3, 1), WEIGHTS["k2"][..., 0])
    x = x + WEIGHTS["add"][0]
    at = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    low, share = np.floor(at).astype(int), at - np.floor(at)
    for axis in (0, 1):
        weight = share.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        x = np.take(x, low, axis) * (1 - weight) + np.take(x, np.minimum(low + 1, 3), axis) * weight
    return (1 / (1 + np.exp(-np.concatenate((x, x), axis=2)[..., 5:]))).reshape(-1, 3)


def run(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})


@pytest.mark.parametrize(("weights_dtype", "atol"), [("float32", 1e-5), ("float16", 2e-2)])
def test_the_graph_computes_the_same(weights_dtype: str, atol: float) -> None:
    images = RNG.standard_normal((2, 8, 8, 3)).astype(np.float32)
    model = onnx_from_tfjs(GRAPH, WEIGHTS, ["rows"], weights_dtype=weights_dtype)
    (found,) = run(model, np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    assert found.shape == (2, 64, 3)  # a batch of two, although the graph was made for one image
    for image, rows in zip(images, found, strict=True):
        np.testing.assert_allclose(rows, expected(image), atol=atol)


def test_transposes_cost_no_node_and_biases_and_padding_are_folded_in() -> None:
    model = onnx_from_tfjs(GRAPH, WEIGHTS, ["rows"])
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Transpose") == 1  # before the reshape, which needs the original order
    assert "Pad" not in kinds
    assert "Add" not in kinds
    assert all(len(node.input) == 3 for node in model.graph.node if node.op_type == "Conv")


def test_files_are_read_and_names_and_metadata_written(tmp_path: Path) -> None:
    stored, entries = b"", []
    for name, values in WEIGHTS.items():
        half = values.dtype == np.float32 and name != "low"
        stored += values.astype("<f2" if half else values.dtype.newbyteorder("<")).tobytes()
        entry: dict[str, Any] = {"name": name, "shape": list(values.shape), "dtype": str(values.dtype)}
        entries.append(entry | ({"quantization": {"dtype": "float16", "original_dtype": "float32"}} if half else {}))
    (tmp_path / "model.bin").write_bytes(stored)
    content = GRAPH | {"weightsManifest": [{"paths": ["model.bin"], "weights": entries}]}
    (tmp_path / "model.json").write_text(json.dumps(content))
    output = tmp_path / "out.onnx"
    words = [str(tmp_path / "model.json"), "--outputs", "rows", "--rename", "scores", "--meta", "license=ours"]
    assert main([*words, "--output", str(output)]) == 0
    model = onnx.load(output)
    assert [out.name for out in model.graph.output] == ["scores"]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"license": "ours"}
    (tmp_path / "model.bin").write_bytes(stored[:-4])
    with pytest.raises(ModelError, match="the weights end before"):
        read_weights(content["weightsManifest"], tmp_path)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        pytest.param("nothing", "no node nothing", id="unknown output"),
        pytest.param("k1", "do not depend on an image", id="a constant"),
    ],
)
def test_outputs_that_cannot_be_are_refused(output: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        onnx_from_tfjs(GRAPH, WEIGHTS, [output])


def test_an_unknown_operator_is_named() -> None:
    graph = {"modelTopology": {"node": [*NODES, {"name": "top", "op": "TopKV2", "input": ["rows"]}]}}
    with pytest.raises(ModelError, match=r"TopKV2 \(top\) is not supported: choose outputs before it"):
        onnx_from_tfjs(graph, WEIGHTS, ["top"])
