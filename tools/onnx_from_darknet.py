#!/usr/bin/env python3
"""Convert a Darknet network (cfg + weights) to ONNX.

The graph takes `images` (batch, 3, height, width) float32 RGB in 0..1 and returns, for each `[yolo]` section, the raw
map of the convolution before it: (batch, anchors * (5 + classes), h, w). Decoding is left to the reader of the file,
which finds anchors, class names and stride in the metadata. Batch normalisation is folded into the convolutions.
Weights may be stored as FP16 (half the size) with a Cast to FP32 before each use, which every runtime folds at load
time. The layout of both files follows Darknet's own sources (parser.c, convolutional_layer.c, maxpool_layer.c).

usage: onnx_from_darknet.py CFG WEIGHTS --names NAMES --output MODEL.onnx
"""

from __future__ import annotations

import argparse
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError

OPSET = 13
IR_VERSION = 8
LEAKY_SLOPE = 0.1  # activations.h: leaky_activate
OPERATOR_BY_ACTIVATION = {"relu": "Relu", "logistic": "Sigmoid"}
BATCHNORM_EPSILON = 1e-6  # blas.c: normalize_cpu adds it to the square root of the variance


@dataclass(frozen=True)
class Section:
    """One `[kind]` of a cfg file with its `key=value` lines."""

    kind: str
    options: Mapping[str, str]

    def integer(self, key: str, default: int) -> int:
        """Return an integer, or `default` if the key is absent."""
        return int(self.options.get(key, default))

    def integers(self, key: str) -> list[int]:
        """Return a comma-separated list of integers. Raises `ModelError`."""
        if key not in self.options:
            raise ModelError(f"section [{self.kind}] has no {key}=")
        return [int(value) for value in self.options[key].split(",")]


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph: its name and its shape without the batch."""

    name: str
    channels: int
    height: int
    width: int


@dataclass
class Graph:
    """The ONNX graph under construction; `layers` holds each cfg section's output, for routes and shortcuts."""

    source: Tensor
    take: Callable[[int], NDArray[np.float32]]
    weights_dtype: str = "float16"
    layers: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    anchors: list[list[list[int]]] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    @property
    def before(self) -> Tensor:
        """The output that the current section reads: the previous section's, or the network's input for the first."""
        return self.layers[-1] if self.layers else self.source

    def add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        name = f"{len(self.layers)}_{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, suffix: str, values: NDArray[Any]) -> str:
        """Add an initializer, an array of any shape and type, and return its name."""
        name = f"{len(self.layers)}_{suffix}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def stored_weights(self, values: NDArray[np.float32]) -> str:
        """Add weights of any shape in the chosen storage type and return the name of their FP32 form.

        Raises:
            ModelError: they do not fit FP16.
        """
        if self.weights_dtype == "float32":
            return self.constant("weight", values)
        if np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
            raise ModelError("weights do not fit FP16: convert with --weights-dtype float32")
        return self.add("Cast", [self.constant("weight", values.astype(np.float16))], to=TensorProto.FLOAT)

    def layer(self, reference: int) -> Tensor:
        """Return the output of a section, counted from the start, or back if negative. Raises `ModelError`."""
        index = len(self.layers) + reference if reference < 0 else reference
        if not 0 <= index < len(self.layers):
            raise ModelError(f"section {len(self.layers)} refers to section {index}, which is not before it")
        return self.layers[index]


def sections_from_cfg(text: str) -> list[Section]:
    """Return the sections of a Darknet cfg in order, without comments and blank lines. Raises `ModelError`.

    >>> [section.kind for section in sections_from_cfg("[net]\\nwidth=8\\n# note\\n[yolo]\\nmask = 0,1")]
    ['net', 'yolo']
    """
    found: list[tuple[str, dict[str, str]]] = []
    for line in (raw.split("#")[0].split(";")[0].strip() for raw in text.splitlines()):
        if not line:
            continue
        if line.startswith("["):
            found.append((line.strip("[]").strip(), {}))
            continue
        key, separator, value = line.partition("=")
        if not separator or not found:
            raise ModelError(f"cfg line {line!r} is neither [section] nor key=value")
        found[-1][1][key.strip()] = value.strip()
    if not found or found[0][0] not in ("net", "network"):
        raise ModelError("cfg does not begin with [net]: this is not a Darknet network")
    return [Section(kind, options) for kind, options in found]


def read_weights(path: Path) -> NDArray[np.float32]:
    """Return (N,) float32, all numbers of a Darknet weights file after its header (version and images seen).

    Raises:
        ModelError: the file is too short, or is not a Darknet file.
    """
    content = path.read_bytes()
    if len(content) < 20:
        raise ModelError(f"{path} has {len(content)} bytes: too short for Darknet weights")
    major, minor, _revision = struct.unpack_from("<3i", content)
    if not (0 <= major < 1000 and 0 <= minor < 1000):
        raise ModelError(f"{path} claims version {major}.{minor}: this is not a Darknet weights file")
    header = 20 if major * 10 + minor >= 2 else 16
    return np.frombuffer(content, np.dtype("<f4"), offset=header, count=(len(content) - header) // 4)


class WeightReader:
    """Returns the numbers of a weights file in order; `left` counts those that remain."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self._values = values
        self.left = len(values)

    def take(self, count: int) -> NDArray[np.float32]:
        """Return the next (count,) float32 numbers. Raises `ModelError` if fewer are left."""
        if self.left < count:
            raise ModelError(f"weights end after {len(self._values)} numbers: the cfg needs {count - self.left} more")
        start = len(self._values) - self.left
        self.left -= count
        return self._values[start : start + count]


def _activation(graph: Graph, name: str, kind: str) -> str:
    if kind == "linear":
        return name
    if kind == "leaky":
        return graph.add("LeakyRelu", [name], alpha=LEAKY_SLOPE)
    if kind in OPERATOR_BY_ACTIVATION:
        return graph.add(OPERATOR_BY_ACTIVATION[kind], [name])
    raise ModelError(
        f"activation {kind!r} is not supported: expected linear, leaky, {', '.join(OPERATOR_BY_ACTIVATION)}"
    )


def _folded_convolution(
    graph: Graph, filters: int, shape: tuple[int, int, int, int], has_batchnorm: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (O, I, k, k) weights and (O,) bias of the next convolution, with its normalisation folded in."""
    bias = graph.take(filters).astype(np.float64)
    scale = np.ones(filters)
    if has_batchnorm:
        gamma, mean, variance = (graph.take(filters).astype(np.float64) for _ in range(3))
        scale = gamma / (np.sqrt(variance) + BATCHNORM_EPSILON)
        bias = bias - mean * scale
    weights = graph.take(math.prod(shape)).astype(np.float64).reshape(shape) * scale[:, None, None, None]
    return weights.astype(np.float32), bias.astype(np.float32)


def add_convolutional(graph: Graph, section: Section) -> Tensor:
    """Add `[convolutional]`: convolution, folded batch normalisation, activation."""
    before = graph.before
    filters, size, stride = (section.integer(key, 1) for key in ("filters", "size", "stride"))
    groups = section.integer("groups", 1)
    padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
    shape = (filters, before.channels // groups, size, size)
    weights, bias = _folded_convolution(graph, filters, shape, section.integer("batch_normalize", 0) == 1)
    name = graph.add(
        "Conv",
        [before.name, graph.stored_weights(weights), graph.constant("bias", bias)],
        kernel_shape=[size, size],
        strides=[stride, stride],
        pads=[padding] * 4,
        group=groups,
    )
    name = _activation(graph, name, section.options.get("activation", "logistic"))
    height, width = ((side + 2 * padding - size) // stride + 1 for side in (before.height, before.width))
    return Tensor(name, filters, height, width)


def add_maxpool(graph: Graph, section: Section) -> Tensor:
    """Add `[maxpool]`; Darknet pads by `size - 1` in total, half of it (rounded down) at the left and top."""
    before = graph.before
    stride = section.integer("stride", 1)
    size = section.integer("size", stride)
    padding = section.integer("padding", size - 1)
    begin = padding // 2
    sides = before.height, before.width
    outputs = [(side + padding - size) // stride + 1 for side in sides]
    ends = [max((outputs[i] - 1) * stride + size - begin - sides[i], 0) for i in range(2)]
    name = graph.add(
        "MaxPool", [before.name], kernel_shape=[size, size], strides=[stride, stride], pads=[begin, begin, *ends]
    )
    return Tensor(name, before.channels, outputs[0], outputs[1])


def add_route(graph: Graph, section: Section) -> Tensor:
    """Add `[route]`: earlier outputs joined along the channels, or a part of each. Raises `ModelError`."""
    sources = [graph.layer(reference) for reference in section.integers("layers")]
    first = sources[0]
    groups, group_id = section.integer("groups", 1), section.integer("group_id", 0)
    for source in sources:
        if (source.height, source.width) != (first.height, first.width):
            raise ModelError(f"route joins {source} and {first}, which differ in size")
    names = [_group(graph, source, groups, group_id) for source in sources]
    name = names[0] if len(names) == 1 else graph.add("Concat", names, axis=1)
    return Tensor(name, sum(source.channels // groups for source in sources), first.height, first.width)


def _group(graph: Graph, source: Tensor, groups: int, group_id: int) -> str:
    """Return the name of one of `groups` equal parts of a tensor's channels."""
    if groups == 1:
        return source.name
    part = source.channels // groups
    values = {"start": part * group_id, "end": part * (group_id + 1), "axis": 1}
    names = [graph.constant(f"{key}_of_{source.name}", np.array([value], np.int64)) for key, value in values.items()]
    return graph.add("Slice", [source.name, *names])


def add_shortcut(graph: Graph, section: Section) -> Tensor:
    """Add `[shortcut]`: the sum with an earlier output of the same shape. Raises `ModelError` for others."""
    before = graph.before
    other = graph.layer(section.integer("from", -2))
    if (other.channels, other.height, other.width) != (before.channels, before.height, before.width):
        raise ModelError(f"shortcut adds {other} to {before}: only equal shapes are supported")
    name = _activation(graph, graph.add("Add", [before.name, other.name]), section.options.get("activation", "linear"))
    return Tensor(name, before.channels, before.height, before.width)


def add_upsample(graph: Graph, section: Section) -> Tensor:
    """Add `[upsample]`: every pixel repeated `stride` times in both directions."""
    before = graph.before
    stride = section.integer("stride", 2)
    scales = graph.constant("scales", np.array([1, 1, stride, stride], np.float32))
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    name = graph.add("Resize", [before.name, "", scales], **how)
    return Tensor(name, before.channels, before.height * stride, before.width * stride)


def add_yolo(graph: Graph, section: Section) -> Tensor:
    """Make the tensor before `[yolo]` an output and keep its anchors (w, h in input pixels). Raises `ModelError`."""
    before = graph.before
    if section.options.get("new_coords", "0") != "0" or float(section.options.get("scale_x_y", 1)) != 1.0:
        raise ModelError("[yolo] with new_coords or scale_x_y (Scaled-YOLOv4) is not supported")
    flat = section.integers("anchors")
    pairs = [flat[i : i + 2] for i in range(0, len(flat), 2)]
    anchors = [pairs[i] for i in section.integers("mask")]
    expected = len(anchors) * (5 + section.integer("classes", 20))
    if before.channels != expected:
        raise ModelError(f"[yolo] needs {expected} channels before it, the cfg gives {before.channels}")
    graph.anchors.append(anchors)
    graph.outputs.append(before)
    return before


LAYERS: Mapping[str, Callable[[Graph, Section], Tensor]] = {
    "convolutional": add_convolutional,
    "maxpool": add_maxpool,
    "route": add_route,
    "shortcut": add_shortcut,
    "upsample": add_upsample,
    "yolo": add_yolo,
}


def _layer(graph: Graph, section: Section) -> Any:
    if section.kind not in LAYERS:
        raise ModelError(f"section [{section.kind}] is not supported: expected {', '.join(LAYERS)}")
    return LAYERS[section.kind](graph, section)


def onnx_from_darknet(
    cfg: str,
    weights: NDArray[np.float32],
    class_names: Sequence[str],
    *,
    weights_dtype: str = "float16",
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Return the checked ONNX model of a Darknet network.

    Args:
        cfg: text of the cfg file.
        weights: all numbers of the weights file, as `read_weights` returns them.
        class_names: one name per class of the `[yolo]` sections.
        weights_dtype: how convolution weights are stored, `float16` or `float32`; computation is FP32.
        metadata: further entries, such as `license` and `origin`.

    Raises:
        ModelError: cfg, weights and names do not match, or the cfg uses something that is not supported.
    """
    net, *layers = sections_from_cfg(cfg)
    height, width = net.integer("height", 416), net.integer("width", 416)
    reader = WeightReader(weights)
    graph = Graph(Tensor("images", net.integer("channels", 3), height, width), reader.take, weights_dtype)
    for section in layers:
        graph.layers.append(_layer(graph, section))
    _check(graph, reader, layers, class_names)
    size = {"imgsz": repr([height, width]), "stride": repr(max(height // output.height for output in graph.outputs))}
    head = {"task": "detect", "head": "darknet_yolov3", "anchors": repr(graph.anchors)}
    return _model(graph, {"names": repr(dict(enumerate(class_names))), **size, **head, **(metadata or {})})


def _check(graph: Graph, reader: WeightReader, layers: Sequence[Section], class_names: Sequence[str]) -> None:
    if not graph.outputs:
        raise ModelError("cfg has no [yolo] section: only YOLOv3 detectors are supported")
    if reader.left:
        raise ModelError(f"{reader.left} numbers of the weights are left over: cfg and weights do not match")
    classes = {section.integer("classes", 20) for section in layers if section.kind == "yolo"}
    if classes != {len(class_names)}:
        raise ModelError(f"{len(class_names)} class names for a network of {sorted(classes)} classes")


def _model(graph: Graph, metadata: Mapping[str, str]) -> onnx.ModelProto:
    def info(name: str, tensor: Tensor) -> onnx.ValueInfoProto:
        shape = ["batch", tensor.channels, tensor.height, tensor.width]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    outputs = []
    for index, output in enumerate(graph.outputs):
        graph.nodes.append(helper.make_node("Identity", [output.name], [f"yolo_{index}"], name=f"yolo_{index}"))
        outputs.append(info(f"yolo_{index}", output))
    body = helper.make_graph(
        graph.nodes, "darknet", [info(graph.source.name, graph.source)], outputs, graph.initializers
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(body, producer_name="onnx_from_darknet", opset_imports=opsets, ir_version=IR_VERSION)
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cfg", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--names", type=Path, required=True, help="text file, one class name per line")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--weights-dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--meta", action="append", default=[], metavar="KEY=VALUE", help="further metadata")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert the files named on the command line."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        model = onnx_from_darknet(
            chosen.cfg.read_text(),
            read_weights(chosen.weights),
            [line.strip() for line in chosen.names.read_text().splitlines() if line.strip()],
            weights_dtype=chosen.weights_dtype,
            metadata=dict(entry.split("=", 1) for entry in chosen.meta),
        )
    except (ModelError, OSError) as error:
        parser.exit(1, f"{error}\n")
    onnx.save(model, chosen.output)
    print(f"{chosen.output}: {chosen.output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
