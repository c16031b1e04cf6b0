"""The features of a pretrained classifier: its graph up to the last layer, below a new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.detection.classify import ClassifierFacts, inspect_classifier
from engine.errors import ModelError
from engine.optional import require
from pipelines.learning.classic.graph import OPSET, GraphBuilder

LAST = ("Gemm", "MatMul")
LAYERS = ("Conv", "BatchNormalization", "Relu", "LeakyRelu", "PRelu", "Clip", "HardSwish", "Add", "Mul", "Concat")
"""Operators whose outputs are (b, channels, h, w) in a convolutional network in ONNX."""
LEAST_CHANNELS = 4


class Backbone:
    """A classifier in ONNX without its last layer. Its input becomes RGB from 0 to 1.

    Args:
        path: an ONNX classifier with a fully connected last layer, such as ResNet, MobileNet or EfficientNet.

    Raises:
        ModelError: the file is not such a classifier.
    """

    def __init__(self, path: Path) -> None:
        onnx = require("onnx", extra="classic")
        self.facts: ClassifierFacts = inspect_classifier(path)
        if self.facts.file.format != "onnx":
            raise ModelError(f"{path}: expected an ONNX file, whose last layer can be replaced")
        model = onnx.load(str(path))
        compose = require("onnx.compose", extra="classic")
        self._model = compose.add_prefix(_at_least(onnx, model, OPSET), "base/")  # avoids name collisions
        self.batch = self.facts.batch
        self.opset = max(entry.version for entry in self._model.opset_import if entry.domain in ("", "ai.onnx"))
        self._features = _features_of(self._model.graph, path)

    def add_to(self, stages: Sequence[str] = ()) -> tuple[GraphBuilder, str]:
        """Return a graph from `images`, (b, 3, h, w) RGB from 0 to 1, to features (b, D).

        Args:
            stages: of `stages()`; the means of their channels follow the features of the last layer.
        """
        old = self._model.graph
        graph = GraphBuilder()
        graph.opset, graph.batch = self.opset, self.batch or graph.batch
        fed = self._fed(graph)
        names = {entry.name for entry in old.initializer}
        given = next(entry.name for entry in old.input if entry.name not in names)
        graph.nodes.append(graph.helper.make_node("Identity", [fed], [given]))
        kept, weights = _ancestors(old, self._features)
        graph.nodes += kept
        graph.weights += weights
        parts = [graph.node("Flatten", self._features, axis=1)]
        parts += [graph.node("Flatten", graph.node("GlobalAveragePool", name), axis=1) for name in stages]
        return graph, parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=1)

    def stages(self) -> list[str]:
        """Return the last tensor of each resolution before the one of the last layer; empty if there is none.

        Early layers see edges and strokes, which the last one, trained for the classes of its data, discards
        (Head2Toe, Evci et al. 2022).
        """
        onnx, runtime = require("onnx", extra="classic"), require("onnxruntime")
        kept, _ = _ancestors(self._model.graph, self._features)
        names = [node.output[0] for node in kept if node.op_type in LAYERS]
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
        settings = runtime.SessionOptions()
        settings.log_severity_level = 3
        session = runtime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        height, width = self.facts.image.size_hw
        shape = (self.batch or 1, *((3, height, width) if self.facts.image.layout == "nchw" else (height, width, 3)))
        given = {session.get_inputs()[0].name: np.zeros(shape, np.float32)}
        last = {
            value.shape[2:]: name
            for name, value in zip(names, session.run(names, given), strict=True)
            if value.ndim == 4 and value.shape[1] >= LEAST_CHANNELS and 1 < value.shape[2] < height
        }
        return [last[shape] for shape in sorted(last, reverse=True)[:-1]]

    def _fed(self, graph: GraphBuilder) -> str:
        """Convert RGB from 0 to 1 to the input range that the network was trained on."""
        image = self.facts.image
        name = "images"
        if image.color == "bgr":
            name = graph.node("Gather", name, graph.weight([2, 1, 0], np.int64), axis=1)
        mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (image.mean, image.std))
        name = graph.node("Mul", graph.node("Sub", name, graph.weight(mean / 255)), graph.weight(255 / std))
        return name if image.layout == "nchw" else graph.node("Transpose", name, perm=[0, 2, 3, 1])


def _at_least(onnx: Any, model: Any, opset: int) -> Any:
    version = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if version >= 13:  # later opsets do not change the operators added here
        return model
    converter = require("onnx.version_converter", extra="classic")
    return converter.convert_version(model, opset)


def _features_of(graph: Any, path: Path) -> str:
    """Return the name of the tensor that the last fully connected layer takes."""
    weights = {entry.name: entry.dims for entry in graph.initializer}
    for node in reversed(graph.node):
        if node.op_type in LAST and len(weights.get(node.input[1], ())) == 2:
            return str(node.input[0])
    raise ModelError(f"{path}: its graph has no fully connected last layer: choose another classifier as the base")


def _ancestors(graph: Any, output: str) -> tuple[list[Any], list[Any]]:
    """Return the nodes that `output` depends on, in order, and their weights."""
    needed, kept = {output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1], [entry for entry in graph.initializer if entry.name in needed]
