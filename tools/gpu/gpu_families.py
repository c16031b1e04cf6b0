"""Section of `gpu_check` on small made-up models of each kind: raw head, end-to-end head, GridSample, FP16 inputs.

NVIDIA/TensorRT issues 4813, 4646 and 4820 report plans that give wrong numbers without an error, some only at some
batch sizes. So each model runs on ONNX Runtime and as a plan, with one image, and with four equal ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.backends.base import BackendOptions, ImageInput, TensorSpec
from engine.backends.tensorrt.precision import Precision
from tools.gpu.device import Device, Facts

SIDE, CHANNELS, BATCH = 64, 16, 4
LIMITS: Mapping[Precision, float] = {"fp32": 0.02, "fp16": 0.06}
"""Largest difference, as a share of the largest value. TensorRT multiplies FP32 with 10 bits (TF32) by default."""

Nodes = list[onnx.NodeProto]
Weights = dict[str, NDArray[Any]]


def families(device: Device, folder: Path) -> Facts:
    """Compare plans of small models with ONNX Runtime."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Facts] = []
    for name, (nodes, weights, outputs, opset) in {
        "raw head": _raw(),
        "end-to-end head": _end_to_end(),
        "GridSample, opset 16": _grid_sample(16),
        "GridSample, opset 20": _grid_sample(20),
    }.items():
        model = _save(folder / f"{name.replace(' ', '_').replace(',', '')}.onnx", nodes, weights, outputs, opset)
        rows += [{"model": name, "plan": kind, **_compare(device, model, kind, folder)} for kind in LIMITS]
    return {"table": rows, "failed": any(row["verdict"] != "ok" for row in rows)}


def _compare(device: Device, model: Path, precision: Precision, folder: Path) -> Facts:
    images = np.random.default_rng(5).random((1, 3, SIDE, SIDE), np.float32)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    expected = [np.asarray(output) for output in session.run(None, {"images": images})]
    options = BackendOptions(max_batch=BATCH, precision=precision, cache_dir=folder)
    try:
        backend = device.backend(model, options)
        backend.open()
        try:
            alone, together = (_run(backend, images.repeat(count, axis=0)) for count in (1, BATCH))
        finally:
            backend.close()
    except Exception as error:  # noqa: BLE001  # the finding; the other models still have to run
        return {"largest difference": "", "equal images differ": "", "verdict": f"{type(error).__name__}: {error}"}
    difference = max(
        max(_difference(first, wanted), _difference(second[:1], wanted))
        for first, second, wanted in zip(alone, together, expected, strict=True)
    )
    uneven = max(_difference(output, output[:1]) for output in together)
    is_right = difference <= LIMITS[precision] and uneven <= 1e-3
    return {
        "largest difference": round(difference, 5),
        "equal images differ": round(uneven, 5),
        "verdict": "ok" if is_right else "wrong",
    }


def _run(backend: Any, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    pending = backend.submit({"images": images})
    outputs = [np.array(output, np.float32) for output in pending.result()]
    pending.release()
    return outputs


def _difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference as a share of the largest expected value; infinite where a number is missing."""
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-6))


def halves(device: Device, folder: Path) -> Facts:
    """Run a plan with FP16 inputs and outputs, as Ultralytics exports it with `half=True`."""
    from tests.onnx_models import save_pixel_model

    folder.mkdir(parents=True, exist_ok=True)
    path = save_pixel_model(folder / "halves.onnx", batch=1, side=SIDE)
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    two = next(tensor for tensor in model.graph.initializer if tensor.name == "two")
    two.CopyFrom(numpy_helper.from_array(np.float16(2), "two"))
    onnx.save(model, str(path))
    backend = device.backend(
        device.build_halves(path, folder / "halves.plan"), BackendOptions(ImageInput((SIDE, SIDE)))
    )
    backend.open()
    pending = backend.submit({"images": np.full((1, SIDE, SIDE, 3), 100, np.uint8)})
    outputs = [np.array(output) for output in pending.result()]
    pending.release()
    backend.close()
    mean = float(outputs[1].astype(np.float32).mean()) * 255
    failed = abs(mean - 100) > 0.5 or outputs[1].dtype != np.float16
    return {"100 comes back as": round(mean, 3), "results": str(outputs[1].dtype), "failed": failed}


def _head(rows: int) -> tuple[Nodes, Weights]:
    """Return a convolution with stride 8 and an activation: (batch, rows, 8, 8) `head`."""
    rng = np.random.default_rng(rows)
    nodes = [
        helper.make_node("Conv", ["images", "w0"], ["c0"], strides=[8, 8], kernel_shape=[8, 8]),
        helper.make_node("Sigmoid", ["c0"], ["s0"]),
        helper.make_node("Mul", ["c0", "s0"], ["a0"]),
        helper.make_node("Conv", ["a0", "w1"], ["head"]),
    ]
    weights = {
        "w0": rng.normal(0, 0.1, (CHANNELS, 3, 8, 8)).astype(np.float32),
        "w1": rng.normal(0, 0.5, (rows, CHANNELS, 1, 1)).astype(np.float32),
    }
    return nodes, weights


def _raw() -> tuple[Nodes, Weights, dict[str, list[int | str]], int]:
    nodes, weights = _head(12)
    nodes.append(helper.make_node("Reshape", ["head", "shape"], ["output0"]))
    return nodes, weights | {"shape": np.array([0, 12, 64], np.int64)}, {"output0": ["batch", 12, 64]}, 17


def _end_to_end() -> tuple[Nodes, Weights, dict[str, list[int | str]], int]:
    """The best scores, in order, and the sum of what belongs to them; near ties may change places."""
    nodes, weights = _head(6)
    nodes += [
        helper.make_node("Reshape", ["head", "shape"], ["flat"]),
        helper.make_node("Split", ["flat", "parts"], ["boxes", "scores"], axis=1),
        helper.make_node("ReduceMax", ["scores"], ["best"], axes=[1], keepdims=0),
        helper.make_node("TopK", ["best", "k"], ["top", "places"], axis=1),
        helper.make_node("Unsqueeze", ["places", "axis"], ["columns"]),
        helper.make_node("Expand", ["columns", "like"], ["wide"]),
        helper.make_node("GatherElements", ["boxes", "wide"], ["taken"], axis=2),
        helper.make_node("ReduceSum", ["taken", "last"], ["sums"], keepdims=0),
    ]
    weights |= {
        "shape": np.array([0, 6, 64], np.int64),
        "parts": np.array([4, 2], np.int64),
        "k": np.array([8], np.int64),
        "axis": np.array([1], np.int64),
        "like": np.array([1, 4, 1], np.int64),
        "last": np.array([2], np.int64),
    }
    return nodes, weights, {"top": ["batch", 8], "sums": ["batch", 4]}, 17


def _grid_sample(opset: int) -> tuple[Nodes, Weights, dict[str, list[int | str]], int]:
    nodes, weights = _head(10)
    mode = "bilinear" if opset < 20 else "linear"
    nodes += [
        helper.make_node("Split", ["head", "parts"], ["features", "offsets"], axis=1),
        helper.make_node("Tanh", ["offsets"], ["bounded"]),
        helper.make_node("Transpose", ["bounded"], ["grid"], perm=[0, 2, 3, 1]),
        helper.make_node("GridSample", ["features", "grid"], ["output0"], mode=mode, padding_mode="zeros"),
    ]
    return nodes, weights | {"parts": np.array([8, 2], np.int64)}, {"output0": ["batch", 8, 8, 8]}, opset


def _save(path: Path, nodes: Nodes, weights: Weights, outputs: Mapping[str, list[int | str]], opset: int) -> Path:
    spec = TensorSpec("images", (None, 3, SIDE, SIDE), "float32")
    graph = helper.make_graph(
        nodes,
        "family",
        [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, ["batch", *spec.shape[1:]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        initializer=[numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path
