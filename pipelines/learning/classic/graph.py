"""Builds small ONNX graphs of standard operators, which every backend of the engine runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.optional import require

OPSET = 17
IR_VERSION = 8


class GraphBuilder:
    """Collects nodes and weights; each method returns the name of its output."""

    def __init__(self) -> None:
        self.helper = require("onnx.helper", extra="classic")
        self._numpy = require("onnx.numpy_helper", extra="classic")
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.opset = OPSET
        self.batch: int | str = "batch"
        self._count = 0

    def weight(self, value: Any, dtype: Any = np.float32) -> str:
        """Store an array."""
        name = self._name("w")
        self.weights.append(self._numpy.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output."""
        name = self._name(operator.lower())
        self.nodes.append(self.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"fw_{kind}_{self._count}"

    def save(
        self, path: Path, size_hw: tuple[int, int], output: str, columns: int | str, metadata: Mapping[str, str]
    ) -> None:
        """Write the model: `images` (b, 3, h, w) of RGB from 0 to 1 in, (b, columns) out.

        Raises:
            OSError: the file cannot be written.
        """
        onnx, helper = require("onnx", extra="classic"), self.helper
        kind = onnx.TensorProto.FLOAT
        given = helper.make_tensor_value_info("images", kind, [self.batch, 3, *size_hw])
        nodes = [*self.nodes, helper.make_node("Identity", [output], ["probabilities"])]
        result = helper.make_tensor_value_info("probabilities", kind, [self.batch, columns])
        graph = helper.make_graph(nodes, "framewire", [given], [result], initializer=self.weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=IR_VERSION, producer_name="framewire"
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        onnx.save(model, str(path))


def support_vectors(graph: GraphBuilder, features: str, machine: Mapping[str, NDArray[np.float32]]) -> str:
    """Add support vector machines with a Gaussian kernel and return their (b, classes) probabilities.

    Args:
        graph: to extend.
        features: (b, D).
        machine: `support` (S, D), `weights` (S, classes), `bias` (classes,), `gamma` and `scale`.
    """
    support = machine["support"]
    one = graph.weight([1], np.int64)
    squared = graph.node("ReduceSum", graph.node("Mul", features, features), one, keepdims=1)
    cross = graph.node("MatMul", features, graph.weight(-2 * support.T))
    distance = graph.node("Add", graph.node("Add", cross, squared), graph.weight((support**2).sum(1)[None]))
    kernel = graph.node("Exp", graph.node("Mul", graph.node("Relu", distance), graph.weight(-machine["gamma"])))
    scores = graph.node("Gemm", kernel, graph.weight(machine["weights"]), graph.weight(machine["bias"]))
    return graph.node("Softmax", graph.node("Mul", scores, graph.weight(machine["scale"])), axis=1)


def linear(graph: GraphBuilder, features: str, weights: NDArray[Any], bias: NDArray[Any]) -> str:
    """Add a linear classifier, (D, classes) and (classes,), and return its (b, classes) probabilities."""
    return graph.node("Softmax", graph.node("Gemm", features, graph.weight(weights), graph.weight(bias)), axis=1)
