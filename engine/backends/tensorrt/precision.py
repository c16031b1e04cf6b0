"""Writing FP16 and INT8 into the ONNX itself, so that every TensorRT (10.x, 11.x, RTX) builds them the same way.

TensorRT 11 and RTX no longer have precision flags or calibrators: they compute each operator in the type that the model
gives it. So an FP16 plan is built from an FP16 model, and an INT8 plan from one with quantise/dequantise pairs. ONNX
Runtime measures the INT8 ranges; choosing what stays FP32 and converting to FP16 is ours.
"""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.backends.tensorrt.fp16 import half_precision
from engine.errors import ConfigError, ModelError
from engine.optional import require

logger = logging.getLogger(__name__)
Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
HEAVY_OPERATORS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU"})
"""Operators that reduced precision is for; the arithmetic after the last of them decodes boxes and stays FP32."""

QUANTISED_ALREADY = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "QLinearConv"})
ONNX_HINT = "pip install onnx"
FP16_SCALES_OPSET = 19
"""Opset from which QuantizeLinear and DequantizeLinear take FP16."""

QUANTISATION = {
    # TensorRT accepts zero points of 0 only, and no INT32 bias after a dequantisation.
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    # The activation after a convolution reads the exact sum: quantising there too cost YOLOv8n 44 % of its mAP.
    "OpTypesToExcludeOutputQuantization": ["Conv"],
    "CalibMovingAverage": True,  # averaging the images' ranges keeps one outlier from making all steps coarse
}


def with_precision(
    path: Path, precision: Precision, calibration: Iterable[NDArray[np.float32]] = ()
) -> tuple[bytes, Mapping[str, int]]:
    """Return the ONNX model of `path` with its arithmetic in `precision`; inputs and outputs stay FP32.

    Args:
        path: an FP32 ONNX model, with embedded or external weights.
        precision: what to compute in; `fp32` returns the file unchanged.
        calibration: batches as the model takes them, (b, 3, h, w) in its own range; for `int8` only.

    Returns:
        The model, and counts for the report: `fp32_nodes` kept, `quantised_nodes`, `calibration_batches`.

    Raises:
        ModelError: the file is not a readable ONNX model, or is quantised already.
        ConfigError: `int8` without calibration batches.
        MissingDependencyError: `onnx` is not installed.
    """
    if precision == "fp32":
        return path.read_bytes(), {}
    model = _load(path)
    found = sorted({node.op_type for node in model.graph.node} & QUANTISED_ALREADY)
    if found:
        raise ModelError(f"{path}: it is quantised already ({', '.join(found)}): give the FP32 model, or fp32 for Q/DQ")
    _name_nodes(model)
    fold_weight_casts(model)
    if precision == "fp16":
        return _fp16(model)
    return _int8(model, path, calibration)


def _load(path: Path) -> Any:
    onnx = require("onnx", hint=ONNX_HINT)
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf raises its own classes, all of which mean a broken file
        raise ModelError(f"{path}: not a readable ONNX model ({type(error).__name__}: {str(error)[:200]})") from error


def _name_nodes(model: Any) -> None:
    """Give each node a unique name, because the lists below refer to nodes by name."""
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.name or node.op_type}#{index}"


def fold_weight_casts(model: Any) -> None:
    """Replace weights that are stored in one type and cast to another with weights of the second type, in place."""
    numpy_helper = require("onnx.numpy_helper", hint=ONNX_HINT)
    helper = require("onnx.helper", hint=ONNX_HINT)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "Cast" or node.input[0] not in weights:
            kept.append(node)
            continue
        dtype = helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
        values = numpy_helper.to_array(weights[node.input[0]]).astype(dtype)
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    if len(kept) == len(model.graph.node):
        return
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)


def tail_nodes(model: Any) -> list[str]:
    """Return the names of the nodes that no convolution or matrix product follows.

    They turn the head's numbers into boxes. In FP16 a pixel coordinate of 640 is off by up to a quarter of a pixel.
    """
    consumers: dict[str, list[Any]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            consumers[name].append(node)
    leads_to_heavy: dict[str, bool] = {}
    for node in reversed(model.graph.node):  # ONNX nodes are in topological order
        following = [reader for name in node.output for reader in consumers[name]]
        leads_to_heavy[node.name] = any(
            reader.op_type in HEAVY_OPERATORS or leads_to_heavy.get(reader.name, False) for reader in following
        )
    return [
        node.name for node in model.graph.node if not leads_to_heavy[node.name] and node.op_type not in HEAVY_OPERATORS
    ]


def _fp16(model: Any) -> tuple[bytes, Mapping[str, int]]:
    tail = tail_nodes(model)
    return half_precision(model, set(tail)).SerializeToString(), {"fp32_nodes": len(tail)}


def _int8(model: Any, path: Path, calibration: Iterable[NDArray[np.float32]]) -> tuple[bytes, Mapping[str, int]]:
    """Quantise the convolutions' inputs: symmetric INT8, weights per channel, ranges from the calibration batches."""
    quantization = require("onnxruntime.quantization")
    onnx = require("onnx", hint=ONNX_HINT)
    batches = iter(calibration)
    first = next(batches, None)
    if first is None:
        raise ConfigError(f"{path}: INT8 needs calibration images, 100 or more like those it will see")
    reader = _Batches(model.graph.input[0].name, chain([first], batches))
    tail = set(tail_nodes(model))
    last = [node.name for node in model.graph.node if node.op_type == "Conv" and _feeds_only(model, node, tail)]
    with tempfile.TemporaryDirectory(prefix="framewire-int8-") as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(source))
        quantization.quantize_static(
            str(source),
            str(target),
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=last,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options=QUANTISATION,
        )
        content = _rest_in_half(onnx, onnx.load(str(target)))
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    return content, {"quantised_nodes": convolutions - len(last), "calibration_batches": reader.count}


def _rest_in_half(onnx: Any, model: Any) -> bytes:
    """Return a quantised model with everything between its INT8 convolutions in FP16, as far as ONNX allows.

    Otherwise activations, shortcuts and the last convolutions would compute in FP32, slower than in an FP16 plan.
    """
    try:
        if next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) < FP16_SCALES_OPSET:
            converter = require("onnx.version_converter", hint=ONNX_HINT)
            model = converter.convert_version(model, FP16_SCALES_OPSET)
    except Exception as error:  # noqa: BLE001  # the converter raises its own classes for operators that it does not know
        logger.warning(
            "layers other than INT8 stay FP32: the model cannot be converted to opset %d: %s",
            FP16_SCALES_OPSET,
            error,
        )
        return bytes(model.SerializeToString())
    return bytes(half_precision(model, set(tail_nodes(model))).SerializeToString())


def _feeds_only(model: Any, node: Any, names: set[str]) -> bool:
    """Return whether only nodes in `names`, or the model's outputs, read the node's outputs."""
    readers = [other.name for other in model.graph.node if set(other.input) & set(node.output)]
    return all(name in names for name in readers)


class _Batches:
    """Calibration batches in the form that ONNX Runtime expects."""

    def __init__(self, input_name: str, batches: Iterable[NDArray[np.float32]]) -> None:
        self._input_name = input_name
        self._batches: Iterator[NDArray[np.float32]] = iter(batches)
        self.count = 0

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next feed, or None after the last."""
        batch = next(self._batches, None)
        if batch is None:
            return None
        self.count += 1
        return {self._input_name: batch}
