"""Converting an FP32 ONNX graph to FP16, except for its inputs, outputs and chosen nodes.

Each tensor keeps the type of the node that produces it, and is cast once if another node needs the other type. Weights
are stored in the type in which they are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.errors import ModelError
from engine.optional import require

ONNX_HINT = "pip install onnx"
FLOAT, FLOAT16 = 1, 10  # onnx.TensorProto
HALF_OPERATORS = frozenset(
    {
        *("Conv", "ConvTranspose", "MatMul", "Gemm", "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Max", "Min"),
        *("Sigmoid", "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Clip", "Tanh", "Erf", "Gelu", "HardSigmoid"),
        *("HardSwish", "Mish", "Softplus", "Softmax", "BatchNormalization", "InstanceNormalization", "GridSample"),
        *("Concat", "Split", "Slice", "Gather", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand"),
        *("Tile", "Pad", "Identity", "Dropout", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
        *("Resize", "DepthToSpace", "SpaceToDepth"),
        *("QuantizeLinear", "DequantizeLinear"),  # their scales set the type, from opset 19 on
    }
)
"""Operators that FP16 makes faster and that do not sum so many values that they overflow; all others stay FP32."""

SMALLEST_HALF = 6.1e-5
"""Constants below this lose their precision in FP16 or become 0 (smallest normal number: 2**-14)."""

SMALLEST_SUBNORMAL = 2.0**-24
"""What is smaller may be 0 in FP16."""

SCALED = frozenset({"QuantizeLinear", "DequantizeLinear"})
UNDER_A_GUARD = frozenset({"Sqrt", "Reciprocal", "Pow", "Log", "Div", "Mul"})
"""What follows `x + eps` or `clip(x, eps)` until numbers are of ordinary size again."""

FIXED_TYPE_INPUTS = {"Resize": (1, 2)}
"""Inputs that ONNX requires to be FP32 in any case: the region and scales of Resize."""


def half_precision(model: Any, fp32_nodes: set[str]) -> Any:
    """Return `model` with its arithmetic in FP16, except for the nodes named in `fp32_nodes`; changed in place.

    Args:
        model: an `onnx.ModelProto` whose nodes have unique names and are in topological order.
        fp32_nodes: names of nodes that must stay FP32.

    Raises:
        ModelError: the graph has branches or loops.
    """
    return _Converter(model, fp32_nodes).convert()


class _Converter:
    def __init__(self, model: Any, fp32_nodes: set[str]) -> None:
        self._onnx = require("onnx", hint=ONNX_HINT)
        self._model = model
        self._graph = model.graph
        self._fp32_nodes = fp32_nodes
        self._weights: dict[str, Any] = {}
        self._stored: dict[str, int] = {}
        self._as_type: dict[tuple[str, int], str] = {}
        self._nodes: list[Any] = []

    def convert(self) -> Any:
        """Rewrite the graph."""
        self._constants_to_weights()
        self._weights = {tensor.name: tensor for tensor in self._graph.initializer}
        self._fp32_nodes |= self._guarded_by_small_constants()
        self._stored = self._types()
        results = {output.name for output in self._graph.output}
        for node in list(self._graph.node):
            self._convert_node(node, results)
        self._replace_graph()
        return self._model

    def _constants_to_weights(self) -> None:
        kept = []
        for node in self._graph.node:
            if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
                raise ModelError(f"{node.op_type} {node.name}: graphs with branches or loops stay FP32: use fp32")
            value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
            if node.op_type != "Constant" or value is None:
                kept.append(node)
                continue
            tensor = self._graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
        del self._graph.node[:]
        self._graph.node.extend(kept)

    def _types(self) -> dict[str, int]:
        """Return the element type of every tensor whose type is known."""
        inferred = self._onnx.shape_inference.infer_shapes(self._model).graph
        infos = [*inferred.value_info, *inferred.input, *inferred.output]
        types = {info.name: int(info.type.tensor_type.elem_type) for info in infos}
        types.update({name: int(tensor.data_type) for name, tensor in self._weights.items()})
        return types

    def _is_half(self, node: Any) -> bool:
        if node.op_type not in HALF_OPERATORS or node.name in self._fp32_nodes:
            return False
        if node.op_type in SCALED and any(self._is_fine(name) for name in node.input[1:2]):
            return False
        if any(each.name == "epsilon" and 0 < abs(each.f) < SMALLEST_SUBNORMAL for each in node.attribute):
            return False
        values = [self._weights[name] for name in node.input if name in self._weights]
        return not any(_beyond_half(self._onnx, tensor) for tensor in values)

    def _guarded_by_small_constants(self) -> set[str]:
        """Return the nodes that a tiny constant, which is 0 in FP16, keeps from dividing by zero.

        For example a layer norm, `x / sqrt(var + 1e-12)`, or an inverse sigmoid, `log(clip(x, 1e-5) / ...)`.
        """
        readers: dict[str, list[Any]] = {}
        for node in self._graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        found: set[str] = set()
        waiting = [node for node in self._graph.node if any(self._is_tiny(name) for name in node.input)]
        while waiting:
            node = waiting.pop()
            if node.name in found:
                continue
            found.add(node.name)
            if node.op_type != "Mul":  # its result has an ordinary magnitude again
                following = [reader for name in node.output for reader in readers.get(name, [])]
                waiting += [reader for reader in following if reader.op_type in UNDER_A_GUARD]
        return found

    def _is_fine(self, name: str) -> bool:
        """Return whether a scale is not constant, or has values too small for FP16."""
        tensor = self._weights.get(name)
        if tensor is None:
            return True
        return bool((self._onnx.numpy_helper.to_array(tensor) < SMALLEST_HALF).any())

    def _is_tiny(self, name: str) -> bool:
        tensor = self._weights.get(name)
        if tensor is None or tensor.data_type != FLOAT:
            return False
        values = self._onnx.numpy_helper.to_array(tensor)
        return values.size == 1 and 0 < abs(float(values.reshape(-1)[0])) < SMALLEST_HALF

    def _convert_node(self, node: Any, results: set[str]) -> None:
        half = self._is_half(node)
        fixed = FIXED_TYPE_INPUTS.get(node.op_type, ())
        floats = {name for name in node.input if self._stored.get(name) in (FLOAT, FLOAT16)}
        for index, name in enumerate(node.input):
            if name in floats:
                node.input[index] = self._typed(name, FLOAT16 if half and index not in fixed else FLOAT)
        self._nodes.append(node)
        if not half:
            if floats and node.op_type != "Cast":  # Cast names its result type itself
                self._widen(node)
            return
        for index, name in enumerate(node.output):
            if self._stored.get(name, FLOAT if floats else 0) != FLOAT:
                continue
            self._stored[name] = FLOAT16
            if name in results:
                node.output[index] = f"{name}_half"
                self._stored[name] = FLOAT
                self._nodes.append(self._cast(node.output[index], name, FLOAT))

    def _widen(self, node: Any) -> None:
        """Record that results which the exporter had in FP16 are FP32 now, like the node's inputs."""
        widened = {name for name in node.output if self._stored.get(name) == FLOAT16}
        self._stored.update(dict.fromkeys(widened, FLOAT))
        for output in self._graph.output:
            if output.name in widened:
                output.type.tensor_type.elem_type = FLOAT

    def _typed(self, name: str, wanted: int) -> str:
        """Return the name of tensor `name` in type `wanted`, adding a cast if needed."""
        if self._stored[name] == wanted:
            return name
        if (name, wanted) not in self._as_type:
            target = f"{name}_{'half' if wanted == FLOAT16 else 'float'}_in"
            self._as_type[name, wanted] = target
            if name in self._weights:
                values = self._onnx.numpy_helper.to_array(self._weights[name])
                dtype = np.float16 if wanted == FLOAT16 else np.float32
                self._graph.initializer.append(self._onnx.numpy_helper.from_array(values.astype(dtype), target))
            else:
                self._nodes.append(self._cast(name, target, wanted))
        return self._as_type[name, wanted]

    def _cast(self, source: str, target: str, wanted: int) -> Any:
        return self._onnx.helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=wanted)

    def _replace_graph(self) -> None:
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        del self._graph.value_info[:]  # of the old types
        used = {name for node in self._nodes for name in node.input} | {out.name for out in self._graph.output}
        for tensor in [tensor for tensor in self._graph.initializer if tensor.name not in used]:
            self._graph.initializer.remove(tensor)


def _beyond_half(onnx: Any, tensor: Any) -> bool:
    if tensor.data_type != FLOAT:
        return False
    values = onnx.numpy_helper.to_array(tensor)
    return bool(values.size) and float(np.abs(values[np.isfinite(values)]).max(initial=0)) > float(
        np.finfo(np.float16).max
    )
