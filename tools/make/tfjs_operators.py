"""The operators of TensorFlow.js graphs, written as ONNX with channels first; used by `onnx_from_tfjs.py`.

Each raises `ModelError` for a form of its node that it does not support.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError

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
        order: for each axis of the ONNX tensor, the corresponding axis of `shape`.
        padding: before and after, per axis of `shape`, not yet applied.
        pad_value: value of the padding.
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


def _stacked(filters: Array, groups: int) -> Array:
    """Return filters in ONNX's order: output, input, rows, columns."""
    if groups == 1:
        return filters.transpose(3, 2, 0, 1)
    rows, columns, channels, count = filters.shape
    return filters.transpose(2, 3, 0, 1).reshape(channels * count, 1, rows, columns)


def _fused(node: Node) -> list[str]:
    """Return the operators that a node performs after its own."""
    kinds = node.get("attr", {}).get("fused_ops", {}).get("list", {}).get("s", [])
    return [base64.b64decode(kind).decode() for kind in kinds]


def convolution(graph: Graph, node: Node) -> list[Value]:
    """Convert `Conv2D`, `DepthwiseConv2dNative` and their fused forms."""
    source, filters, *further = (graph.of(name) for name in node["input"])
    if not isinstance(source, Tensor) or isinstance(filters, Tensor):
        raise ModelError(f"{node['name']}: expected an image and constant filters")
    rows, columns, channels, count = filters.shape
    groups = channels if "Depthwise" in node["op"] else 1
    outputs = channels * count if groups > 1 else count
    name, pads, sides = window(graph, source, node, (rows, columns), lowest=False)
    fused = _fused(node)
    inputs = [name, graph.weights(_stacked(filters, groups))]
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
        bounds = [graph.constant(np.array(bound, np.float32)) for bound in (0, 6)]
        return graph.add("Clip", [name, *bounds])
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
    """Return the bias if a constant per channel is added to the output of a convolution that only this node uses."""
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
    """Convert `Reshape`; the batch stays dynamic, and so does one further axis."""
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
