#!/usr/bin/env python3
"""Convert a TensorFlow.js graph model (model.json + .bin) to ONNX.

The graph is written with channels first: a transpose of the original only renames the axes of a tensor, and becomes a
node only where a reshape or an output needs the numbers in that order. Padding is folded into the convolution or
pooling that follows, biases into the convolution before. Operators that depend on nothing but constants are computed
here. The batch is left open. Weights may be stored as FP16, as most of these files hold them. The layout
follows TensorFlow.js' sources (io_utils.ts, graph_executor.ts).

usage: onnx_from_tfjs.py MODEL.json --output MODEL.onnx [--outputs NAME,...] [--rename NEW,...] [--meta KEY=VALUE]
"""

from __future__ import annotations

import argparse
import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError

OPSET = 13
IR_VERSION = 8
CHANNELS_FIRST = (0, 3, 1, 2)
LOWEST = -1e30
"""A padding value below this never wins in a maximum."""
Array = NDArray[Any]
Node = Mapping[str, Any]
Padding = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Attributes:
        name: of the ONNX tensor.
        shape: as the original graph sees it.
        order: for each axis of the ONNX tensor, the axis of `shape` that it is.
        padding: before and after, per axis of `shape`, not yet applied.
        pad_value: what it is padded with.
    """

    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    padding: Padding | None = None
    pad_value: float = 0.0


Value = Tensor | Array


@dataclass
class Graph:
    """The ONNX graph under construction."""

    weights_dtype: str = "float16"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    values: dict[str, list[Value]] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)

    def add(self, operator: str, inputs: Sequence[str], count: int = 1, **attributes: Any) -> str:
        """Append a node and return the name of its (first) output."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        outputs = [name] if count == 1 else [f"{name}_{index}" for index in range(count)]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, name=name, **attributes))
        return name

    def constant(self, values: Array) -> str:
        """Add an initializer and return its name."""
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def weights(self, values: Array) -> str:
        """Add weights in the chosen storage type and return the name of their FP32 form."""
        if self.weights_dtype == "float32" or np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
            return self.constant(values.astype(np.float32))
        return self.add("Cast", [self.constant(values.astype(np.float16))], to=TensorProto.FLOAT)

    def of(self, reference: str) -> Value:
        """Return the value that `name` or `name:index` refers to."""
        name, _, index = reference.lstrip("^").partition(":")
        return self.values[name][int(index or 0)]


def read_weights(manifest: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Array]:
    """Return the weights by name. Raises `ModelError` if the files are too short or of an unknown type."""
    weights: dict[str, Array] = {}
    for group in manifest:
        content = b"".join((folder / Path(name).name).read_bytes() for name in group["paths"])
        offset = 0
        for entry in group["weights"]:
            stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
            if stored not in ("float32", "float16", "int32"):
                raise ModelError(f"weights {entry['name']} are stored as {stored}: expected float32, float16 or int32")
            count = math.prod(entry["shape"])
            dtype = np.dtype(stored).newbyteorder("<")
            if offset + count * dtype.itemsize > len(content):
                raise ModelError(f"the weights end before {entry['name']}")
            values = np.frombuffer(content, dtype, count, offset).astype(entry["dtype"])
            weights[entry["name"]] = values.reshape(entry["shape"])
            offset += count * dtype.itemsize
    return weights


def text(attribute: Mapping[str, Any]) -> str:
    """Return a text attribute."""
    return base64.b64decode(attribute["s"]).decode()


def integers(node: Node, key: str) -> list[int]:
    """Return a list attribute."""
    return [int(value) for value in node["attr"][key]["list"]["i"]]


def in_order(graph: Graph, tensor: Tensor, order: tuple[int, ...]) -> str:
    """Return the name of the tensor with its axes in this order, its padding applied."""
    name = tensor.name
    if tensor.padding is not None:
        pads = [tensor.padding[axis] for axis in tensor.order]
        flat = np.array([before for before, _ in pads] + [after for _, after in pads], np.int64)
        name = graph.add("Pad", [name, graph.constant(flat), graph.constant(np.array(tensor.pad_value, np.float32))])
    if tensor.order != order:
        name = graph.add("Transpose", [name], perm=[tensor.order.index(axis) for axis in order])
    return name


def settled(graph: Graph, tensor: Tensor) -> Tensor:
    """Return the tensor with its padding applied."""
    return (
        tensor if tensor.padding is None else replace(tensor, name=in_order(graph, tensor, tensor.order), padding=None)
    )


def window(
    graph: Graph, tensor: Tensor, node: Node, size_hw: tuple[int, int], lowest: bool
) -> tuple[str, list[int], tuple[int, int]]:
    """Return input, padding and output size of a convolution or pooling over (b, h, w, c)."""
    strides = integers(node, "strides")[1:3]
    has_rate = "dilations" in node["attr"] and node["attr"]["dilations"]["list"].get("i")
    reach = [(size - 1) * rate + 1 for size, rate in zip(size_hw, rates(node) if has_rate else (1, 1), strict=True)]
    pads, name_of = ((0, 0), (0, 0)), tensor
    kind = text(node["attr"]["padding"])
    given = tensor.padding
    fits = given is not None and given[0] == given[3] == (0, 0) and tensor.pad_value <= LOWEST * lowest
    if kind == "VALID" and fits and given is not None:
        pads, name_of = (given[1], given[2]), replace(tensor, padding=None)
    elif kind == "SAME":
        pads = tuple(_same(side, r, s) for side, r, s in zip(tensor.shape[1:3], reach, strides, strict=True))  # type: ignore[assignment]
    elif kind != "VALID":
        raise ModelError(f"padding {kind} is not supported")
    kept = name_of.shape if given is None or name_of.padding is not None else _without(tensor.shape, given)
    sides = [(side + sum(pad) - r) // s + 1 for side, pad, r, s in zip(kept[1:3], pads, reach, strides, strict=True)]
    flat = [pads[0][0], pads[1][0], pads[0][1], pads[1][1]]
    return in_order(graph, name_of, CHANNELS_FIRST), flat, (sides[0], sides[1])


def _without(shape: tuple[int, ...], padding: Padding) -> tuple[int, ...]:
    return tuple(side - sum(pad) for side, pad in zip(shape, padding, strict=True))


def rates(node: Node) -> list[int]:
    """Return the dilations over rows and columns."""
    return integers(node, "dilations")[1:3]


def _same(side: int, reach: int, stride: int) -> tuple[int, int]:
    total = max((-(-side // stride) - 1) * stride + reach - side, 0)
    return total // 2, total - total // 2


def convolution(graph: Graph, node: Node) -> list[Value]:
    """Convert `Conv2D`, `DepthwiseConv2dNative` and their fused forms."""
    source, filters, *further = (graph.of(name) for name in node["input"])
    if not isinstance(source, Tensor) or isinstance(filters, Tensor):
        raise ModelError(f"{node['name']}: expected an image and constant filters")
    rows, columns, channels, count = filters.shape
    groups = channels if "Depthwise" in node["op"] else 1
    outputs = channels * count if groups > 1 else count
    stacked = (
        filters.transpose(2, 3, 0, 1).reshape(outputs, 1, rows, columns)
        if groups > 1
        else filters.transpose(3, 2, 0, 1)
    )
    name, pads, sides = window(graph, source, node, (rows, columns), lowest=False)
    fused = [
        base64.b64decode(kind).decode()
        for kind in node.get("attr", {}).get("fused_ops", {}).get("list", {}).get("s", [])
    ]
    inputs = [name, graph.weights(stacked)]
    if "BiasAdd" in fused:
        inputs.append(graph.constant(_constant(further[0]).astype(np.float32)))
    strides = integers(node, "strides")[1:3]
    out = graph.add(
        "Conv", inputs, kernel_shape=[rows, columns], strides=strides, pads=pads, group=groups, dilations=rates(node)
    )
    made = Tensor(out, (source.shape[0], *sides, outputs), CHANNELS_FIRST)
    for kind in fused:
        if kind != "BiasAdd":
            made = replace(made, name=activated(graph, kind, made.name))
    return [made]


def _constant(value: Value) -> Array:
    if isinstance(value, Tensor):
        raise ModelError(f"{value.name} depends on the image: expected a constant")
    return value


def activated(graph: Graph, kind: str, name: str) -> str:
    """Add an activation."""
    if kind == "Relu6":
        return graph.add(
            "Clip", [name, graph.constant(np.array(0, np.float32)), graph.constant(np.array(6, np.float32))]
        )
    if kind not in ("Relu", "Sigmoid", "Elu"):
        raise ModelError(f"activation {kind} is not supported")
    return graph.add(kind, [name])


def activation(graph: Graph, node: Node) -> list[Value]:
    """Convert an activation."""
    source = graph.of(node["input"][0])
    if not isinstance(source, Tensor):
        raise ModelError(f"{node['name']}: an activation of a constant")
    source = settled(graph, source)
    if node["op"] == "LeakyRelu":
        return [replace(source, name=graph.add("LeakyRelu", [source.name], alpha=float(node["attr"]["alpha"]["f"])))]
    return [replace(source, name=activated(graph, node["op"], source.name))]


def pooling(graph: Graph, node: Node) -> list[Value]:
    """Convert `MaxPool`."""
    source, size = graph.of(node["input"][0]), integers(node, "ksize")[1:3]
    if not isinstance(source, Tensor):
        raise ModelError(f"{node['name']}: pooling of a constant")
    name, pads, sides = window(graph, source, node, (size[0], size[1]), lowest=True)
    out = graph.add("MaxPool", [name], kernel_shape=size, strides=integers(node, "strides")[1:3], pads=pads)
    return [Tensor(out, (source.shape[0], *sides, source.shape[3]), CHANNELS_FIRST)]


def padding(graph: Graph, node: Node) -> list[Value]:
    """Keep `Pad` and `PadV2` for the operator that follows."""
    source, pads, *value = (graph.of(name) for name in node["input"])
    if not isinstance(source, Tensor):
        raise ModelError(f"{node['name']}: padding of a constant")
    source = settled(graph, source)
    sides = tuple((int(before), int(after)) for before, after in _constant(pads))
    if not any(map(any, sides)):
        return [source]
    shape = tuple(side + sum(pad) for side, pad in zip(source.shape, sides, strict=True))
    return [replace(source, shape=shape, padding=sides, pad_value=float(_constant(value[0])) if value else 0.0)]


def transpose(graph: Graph, node: Node) -> list[Value]:
    """Rename the axes."""
    source, axes = graph.of(node["input"][0]), [int(axis) for axis in _constant(graph.of(node["input"][1]))]
    if not isinstance(source, Tensor):
        return [source.transpose(axes)]
    pads = None if source.padding is None else tuple(source.padding[axis] for axis in axes)
    shape = tuple(source.shape[axis] for axis in axes)
    return [replace(source, shape=shape, order=tuple(axes.index(axis) for axis in source.order), padding=pads)]


def arithmetic(graph: Graph, node: Node) -> list[Value]:
    """Convert sums and products; the bias of a convolution becomes part of it."""
    first, second = (graph.of(name) for name in node["input"][:2])
    operator = {"Add": "Add", "AddV2": "Add", "BiasAdd": "Add", "Mul": "Mul", "Sub": "Sub"}[node["op"]]
    if not isinstance(first, Tensor) and not isinstance(second, Tensor):
        return [{"Add": np.add, "Mul": np.multiply, "Sub": np.subtract}[operator](first, second)]
    lead = first if isinstance(first, Tensor) else second
    assert isinstance(lead, Tensor)
    lead = settled(graph, lead)
    if operator == "Add" and (bias := _bias_of(graph, lead, node, second)) is not None:
        conv = next(one for one in graph.nodes if one.output[0] == lead.name)
        conv.input.append(graph.constant(bias))
        return [lead]
    names = [_operand(graph, lead, value) for value in (first, second)]
    shape = np.broadcast_shapes(*(np.shape(v) if not isinstance(v, Tensor) else v.shape for v in (first, second)))
    return [replace(lead, name=graph.add(operator, names), shape=tuple(shape))]


def _bias_of(graph: Graph, tensor: Tensor, node: Node, value: Value) -> NDArray[np.float32] | None:
    """Return the bias if a constant per channel is added to what only this node takes from a convolution."""
    if isinstance(value, Tensor) or value.size != tensor.shape[-1] or graph.uses[node["input"][0]] > 1:
        return None
    conv = next((one for one in graph.nodes if one.output[0] == tensor.name), None)
    if conv is None or conv.op_type != "Conv" or len(conv.input) > 2 or tensor.order != CHANNELS_FIRST:
        return None
    return value.reshape(-1).astype(np.float32)


def _operand(graph: Graph, lead: Tensor, value: Value) -> str:
    """Return the name of an operand with the axes in the order of `lead`."""
    if isinstance(value, Tensor):
        return in_order(graph, value, lead.order)
    full = value.reshape((1,) * (len(lead.shape) - value.ndim) + value.shape)
    return graph.constant(full.transpose(lead.order).astype(np.float32))


def joined(graph: Graph, node: Node) -> list[Value]:
    """Convert `ConcatV2`."""
    *parts, axis = (graph.of(name) for name in node["input"])
    tensors = [settled(graph, part) for part in parts if isinstance(part, Tensor)]
    if len(tensors) < len(parts):
        raise ModelError(f"{node['name']}: joining constants is not supported")
    lead, along = tensors[0], int(_constant(axis)) % len(tensors[0].shape)
    names = [in_order(graph, part, lead.order) for part in tensors]
    shape = list(lead.shape)
    shape[along] = sum(part.shape[along] for part in tensors)
    return [replace(lead, name=graph.add("Concat", names, axis=lead.order.index(along)), shape=tuple(shape))]


def split(graph: Graph, node: Node) -> list[Value]:
    """Convert `SplitV`."""
    source, sizes, axis = (graph.of(name) for name in node["input"])
    parts = [int(size) for size in _constant(sizes)]
    if not isinstance(source, Tensor):
        return list(np.split(source, np.cumsum(parts)[:-1], int(_constant(axis))))
    source, along = settled(graph, source), int(_constant(axis)) % len(source.shape)
    lengths = graph.constant(np.array(parts, np.int64))
    name = graph.add("Split", [source.name, lengths], len(parts), axis=source.order.index(along))
    shapes = [tuple(part if at == along else side for at, side in enumerate(source.shape)) for part in parts]
    return [replace(source, name=f"{name}_{at}", shape=shape) for at, shape in enumerate(shapes)]


def reshape(graph: Graph, node: Node) -> list[Value]:
    """Convert `Reshape`; the batch stays open, and so does one further axis."""
    source, wanted = graph.of(node["input"][0]), [int(side) for side in _constant(graph.of(node["input"][1]))]
    if not isinstance(source, Tensor):
        return [source.reshape(wanted)]
    total = math.prod(source.shape)
    shape = [total // -math.prod(wanted) if side == -1 else side for side in wanted]
    if shape[0] != source.shape[0] or math.prod(shape) != total:
        raise ModelError(f"{node['name']}: reshaping {source.shape} to {wanted} mixes the images of a batch")
    target = [0, *shape[1:]]
    largest = max(range(1, len(shape)), key=lambda axis: shape[axis])
    target[largest] = -1
    name = in_order(graph, source, tuple(range(len(source.shape))))
    out = graph.add("Reshape", [name, graph.constant(np.array(target, np.int64))])
    return [Tensor(out, tuple(shape), tuple(range(len(shape))))]


def resize(graph: Graph, node: Node) -> list[Value]:
    """Convert `ResizeBilinear` by a constant factor."""
    source, sides = graph.of(node["input"][0]), [int(side) for side in _constant(graph.of(node["input"][1]))]
    if not isinstance(source, Tensor):
        raise ModelError(f"{node['name']}: resizing of a constant")
    if node["attr"].get("align_corners", {}).get("b"):
        raise ModelError(f"{node['name']}: aligned corners are not supported")
    mode = "half_pixel" if node["attr"].get("half_pixel_centers", {}).get("b") else "asymmetric"
    scales = np.array([1, 1, sides[0] / source.shape[1], sides[1] / source.shape[2]], np.float32)
    name = in_order(graph, source, CHANNELS_FIRST)
    out = graph.add("Resize", [name, "", graph.constant(scales)], mode="linear", coordinate_transformation_mode=mode)
    return [Tensor(out, (source.shape[0], *sides, source.shape[3]), CHANNELS_FIRST)]


def mean(graph: Graph, node: Node) -> list[Value]:
    """Convert `Mean` over rows and columns."""
    source, axes = (
        graph.of(node["input"][0]),
        sorted(int(axis) for axis in _constant(graph.of(node["input"][1])).ravel()),
    )
    if not isinstance(source, Tensor) or axes != [1, 2] or not node["attr"]["keep_dims"]["b"]:
        raise ModelError(f"{node['name']}: expected a mean over rows and columns that keeps them")
    name = in_order(graph, source, CHANNELS_FIRST)
    shape = (source.shape[0], 1, 1, source.shape[3])
    return [Tensor(graph.add("ReduceMean", [name], axes=[2, 3], keepdims=1), shape, CHANNELS_FIRST)]


def dense(graph: Graph, node: Node) -> list[Value]:
    """Compute `SparseToDense`, which converters leave in shapes."""
    index, shape, values, default = (_constant(graph.of(name)) for name in node["input"])
    made = np.full([int(side) for side in shape], default)
    if index.size:
        made[tuple(index.reshape(len(index), -1).T)] = values
    return [made]


def same(graph: Graph, node: Node) -> list[Value]:
    """Pass a value on."""
    return [graph.of(node["input"][0])]


OPERATORS: Mapping[str, Callable[[Graph, Node], list[Value]]] = {
    **dict.fromkeys(
        ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"), convolution
    ),
    **dict.fromkeys(("Relu", "Relu6", "LeakyRelu", "Sigmoid", "Elu"), activation),
    **dict.fromkeys(("Add", "AddV2", "BiasAdd", "Mul", "Sub"), arithmetic),
    **dict.fromkeys(("Pad", "PadV2"), padding),
    "MaxPool": pooling,
    "Transpose": transpose,
    "ConcatV2": joined,
    "SplitV": split,
    "Reshape": reshape,
    "ResizeBilinear": resize,
    "Mean": mean,
    "SparseToDense": dense,
    "Identity": same,
}  # fmt: skip


def onnx_from_tfjs(
    content: Mapping[str, Any],
    weights: Mapping[str, Array],
    outputs: Sequence[str],
    *,
    names: Sequence[str] = (),
    weights_dtype: str = "float16",
    size_hw: tuple[int, int] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Return the checked ONNX model of a TensorFlow.js graph.

    Args:
        content: of model.json.
        weights: as `read_weights` returns them.
        outputs: names of nodes, `name` or `name:index`.
        names: what the outputs are called in the ONNX model; their own names by default.
        weights_dtype: how weights are stored, `float16` or `float32`; computation is FP32.
        size_hw: of the images, if the graph leaves it open.
        metadata: entries such as `license` and `origin`.

    Raises:
        ModelError: an operator is not supported, or an output does not exist.
    """
    nodes = {node["name"]: node for node in content["modelTopology"]["node"]}
    graph = Graph(weights_dtype)
    for node in nodes.values():
        for name in node.get("input", ()):
            graph.uses[name] = graph.uses.get(name, 0) + 1
    images = None
    for name in _needed(nodes, outputs):
        node = nodes[name]
        if node["op"] == "Placeholder":
            images = _images(node, size_hw)
            graph.values[name] = [images]
        elif node["op"] == "Const":
            graph.values[name] = [weights[name]]
        elif node["op"] in OPERATORS:
            graph.values[name] = OPERATORS[node["op"]](graph, node)
        else:
            raise ModelError(f"operator {node['op']} ({name}) is not supported: choose outputs before it")
    if images is None:
        raise ModelError("the outputs do not depend on an image")
    return _model(graph, images, outputs, names or [name.replace(":", "_") for name in outputs], metadata or {})


def _needed(nodes: Mapping[str, Node], outputs: Sequence[str]) -> list[str]:
    """Return the nodes that the outputs depend on, each after its inputs."""
    order: list[str] = []
    waiting = [name.partition(":")[0] for name in reversed(outputs)]
    while waiting:
        name = waiting[-1]
        if name not in nodes:
            raise ModelError(f"no node {name} in the graph")
        before = [part.lstrip("^").partition(":")[0] for part in nodes[name].get("input", ())]
        missing = [part for part in before if part not in order]
        waiting.extend(missing)
        if not missing:
            waiting.pop()
            if name not in order:
                order.append(name)
    return order


def _images(node: Node, size_hw: tuple[int, int] | None) -> Tensor:
    shape = [int(side["size"]) for side in node["attr"]["shape"]["shape"]["dim"]]
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise ModelError(f"the input {node['name']} has the shape {shape}: expected images of three channels")
    channels_first = shape[1] == 3
    sides = size_hw or tuple(shape[2:] if channels_first else shape[1:3])
    if min(sides) < 1:
        raise ModelError("the graph leaves the size of its images open: give it")
    full = (1, 3, *sides) if channels_first else (1, *sides, 3)
    return Tensor("images", full, (0, 1, 2, 3) if channels_first else CHANNELS_FIRST)


def _model(
    graph: Graph, images: Tensor, outputs: Sequence[str], names: Sequence[str], metadata: Mapping[str, str]
) -> onnx.ModelProto:
    infos = []
    for reference, name in zip(outputs, names, strict=True):
        value = graph.of(reference)
        if not isinstance(value, Tensor):
            raise ModelError(f"the output {reference} is a constant")
        made = in_order(graph, value, CHANNELS_FIRST if len(value.shape) == 4 else tuple(range(len(value.shape))))
        order = CHANNELS_FIRST if len(value.shape) == 4 else range(len(value.shape))
        graph.nodes.append(helper.make_node("Identity", [made], [name], name=name))
        shape = ["batch", *(value.shape[axis] for axis in order)][:1] + [value.shape[axis] for axis in order][1:]
        infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    sides = [images.shape[axis] for axis in images.order][1:]
    source = helper.make_tensor_value_info(images.name, TensorProto.FLOAT, ["batch", *sides])
    body = helper.make_graph(graph.nodes, "tfjs", [source], infos, graph.initializers)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(body, producer_name="onnx_from_tfjs", opset_imports=opsets, ir_version=IR_VERSION)
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert the file named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="model.json; its .bin files lie beside it")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--outputs", help="names of nodes, separated by commas; those of the file by default")
    parser.add_argument("--rename", default="", help="what they are called in the ONNX model")
    parser.add_argument("--weights-dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--size", help="HxW, if the file leaves it open")
    parser.add_argument("--meta", action="append", default=[], metavar="KEY=VALUE", help="metadata")
    chosen = parser.parse_args(arguments)
    try:
        content = json.loads(chosen.model.read_text())
        declared = [entry["name"] for entry in content.get("signature", {}).get("outputs", {}).values()]
        model = onnx_from_tfjs(
            content,
            read_weights(content["weightsManifest"], chosen.model.parent),
            chosen.outputs.split(",") if chosen.outputs else declared,
            names=[name for name in chosen.rename.split(",") if name],
            weights_dtype=chosen.weights_dtype,
            size_hw=tuple(int(side) for side in chosen.size.split("x")) if chosen.size else None,  # type: ignore[arg-type]
            metadata=dict(entry.split("=", 1) for entry in chosen.meta),
        )
    except (ModelError, OSError, KeyError) as error:
        parser.exit(1, f"{chosen.model}: {error}\n")
    onnx.save(model, chosen.output)
    print(f"{chosen.output}: {chosen.output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
