"""Runs an ONNX classifier in torch, so that the released file itself can be attacked through its gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.optional import require

Operator = Callable[[Any, list[Any], dict[str, Any]], Any]


class TorchGraph:
    """The graph of an ONNX file as a function of its input.

    Args:
        path: a model that uses only operators in `OPERATORS`.

    Raises:
        ModelError: it has another operator, or more than one input or output.
    """

    def __init__(self, path: Path) -> None:
        onnx, numpy_helper = require("onnx", extra="classic"), require("onnx.numpy_helper", extra="classic")
        helper, self._torch = require("onnx.helper", extra="classic"), require("torch", extra="train")
        model = onnx.load(str(path))
        graph = model.graph
        unknown = sorted({node.op_type for node in graph.node} - OPERATORS.keys() - {"Constant"})
        if unknown:
            raise ModelError(f"{path}: an attack needs gradients, and cannot follow the operator {unknown[0]}")
        self._weights = {e.name: self._tensor(numpy_helper.to_array(e)) for e in graph.initializer}
        self._steps = []
        for node in graph.node:
            values = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
            if node.op_type == "Constant":
                self._weights[node.output[0]] = self._tensor(numpy_helper.to_array(values["value"]))
            else:
                self._steps.append((OPERATORS[node.op_type], list(node.input), node.output[0], values))
        inputs = [entry.name for entry in graph.input if entry.name not in self._weights]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ModelError(f"{path}: {len(inputs)} inputs and {len(graph.output)} outputs: expected one of each")
        self._input, self._output = inputs[0], graph.output[0].name

    def _tensor(self, array: Any) -> Any:
        return self._torch.from_numpy(array.copy())

    def __call__(self, images: Any) -> Any:
        """Return the output for (b, 3, h, w) images, with gradients."""
        values = {**self._weights, self._input: images}
        for operator, names, output, attributes in self._steps:
            values[output] = operator(self._torch, [values[name] if name else None for name in names], attributes)
        return values[self._output]


def _pads(attributes: dict[str, Any]) -> list[int]:
    """Return the padding of the last two axes in torch's order: left, right, top, bottom."""
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    return [left, right, top, bottom]


def _conv(torch: Any, x: list[Any], a: dict[str, Any]) -> Any:
    padded = torch.nn.functional.pad(x[0], _pads(a))
    bias = x[2] if len(x) > 2 else None
    options = {"stride": a.get("strides", [1, 1]), "dilation": a.get("dilations", [1, 1]), "groups": a.get("group", 1)}
    return torch.nn.functional.conv2d(padded, x[1], bias, **options)


def _average_pool(torch: Any, x: list[Any], a: dict[str, Any]) -> Any:
    padded = torch.nn.functional.pad(x[0], _pads(a))
    return torch.nn.functional.avg_pool2d(padded, a["kernel_shape"], a.get("strides", [1, 1]))


def _max_pool(torch: Any, x: list[Any], a: dict[str, Any]) -> Any:
    padded = torch.nn.functional.pad(x[0], _pads(a), value=float("-inf"))
    return torch.nn.functional.max_pool2d(padded, a["kernel_shape"], a.get("strides", [1, 1]))


def _gemm(torch: Any, x: list[Any], a: dict[str, Any]) -> Any:
    first = x[0].T if a.get("transA") else x[0]
    second = x[1].T if a.get("transB") else x[1]
    product = a.get("alpha", 1.0) * first @ second
    return product if len(x) < 3 else product + a.get("beta", 1.0) * x[2]


def _pad(torch: Any, x: list[Any], a: dict[str, Any]) -> Any:
    pads, dims = x[1].tolist(), len(x[1]) // 2
    if any(pads[axis] or pads[axis + dims] for axis in range(dims - 2)):
        raise ModelError("an attack cannot follow padding of batch or channels")
    sides = [pads[dims - 1], pads[2 * dims - 1], pads[dims - 2], pads[2 * dims - 2]]
    mode = {b"edge": "replicate", b"reflect": "reflect"}.get(a.get("mode", b"constant"), "constant")
    return torch.nn.functional.pad(x[0], sides, mode=mode)


def _axes(x: list[Any], a: dict[str, Any], rank: int) -> Sequence[int]:
    if len(x) > 1 and x[1] is not None:
        return tuple(int(axis) for axis in x[1].tolist())
    return tuple(a.get("axes", range(rank)))


def _reduce(kind: str) -> Operator:
    def reduce(torch: Any, x: list[Any], a: dict[str, Any]) -> Any:
        options = {"dim": _axes(x, a, x[0].ndim), "keepdim": bool(a.get("keepdims", 1))}
        if kind == "l2":
            return (x[0].square().sum(**options) + 1e-12).sqrt()
        return getattr(x[0], kind)(**options)

    return reduce


def _slice(torch: Any, x: list[Any], a: dict[str, Any]) -> Any:
    result = x[0]
    steps = x[4].tolist() if len(x) > 4 else [1] * len(x[1])
    for start, end, axis, step in zip(x[1].tolist(), x[2].tolist(), x[3].tolist(), steps, strict=True):
        size = result.shape[axis]
        start, end = (min(value + size if value < 0 else value, size) for value in (start, end))
        result = result.index_select(axis, torch.arange(start, end, step))
    return result


def _norm(torch: Any, x: list[Any], a: dict[str, Any]) -> Any:
    return torch.nn.functional.batch_norm(x[0], x[3], x[4], x[1], x[2], False, 0.0, a.get("epsilon", 1e-5))


def _clip(torch: Any, x: list[Any], a: dict[str, Any]) -> Any:
    low = x[1] if len(x) > 1 else a.get("min")
    high = x[2] if len(x) > 2 else a.get("max")
    return x[0].clamp(None if low is None else float(low), None if high is None else float(high))


def _reshape(torch: Any, x: list[Any], a: dict[str, Any]) -> Any:
    shape = [x[0].shape[axis] if size == 0 else size for axis, size in enumerate(x[1].tolist())]
    return x[0].reshape(shape)


def _acos(torch: Any, x: list[Any], a: dict[str, Any]) -> Any:
    return x[0].clamp(-1 + 1e-6, 1 - 1e-6).acos()  # the slope is infinite at the ends


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "Gemm": _gemm,
    "Pad": _pad,
    "Slice": _slice,
    "BatchNormalization": _norm,
    "Clip": _clip,
    "Reshape": _reshape,
    "Acos": _acos,
    "ReduceSum": _reduce("sum"),
    "ReduceMean": _reduce("mean"),
    "ReduceL2": _reduce("l2"),
    "GlobalAveragePool": lambda torch, x, a: x[0].mean(dim=(2, 3), keepdim=True),
    "MatMul": lambda torch, x, a: x[0] @ x[1],
    "Add": lambda torch, x, a: x[0] + x[1],
    "Sub": lambda torch, x, a: x[0] - x[1],
    "Mul": lambda torch, x, a: x[0] * x[1],
    "Div": lambda torch, x, a: x[0] / x[1],
    "Sqrt": lambda torch, x, a: x[0].clamp(min=1e-12).sqrt(),
    "Exp": lambda torch, x, a: x[0].exp(),
    "Relu": lambda torch, x, a: x[0].relu(),
    "Sigmoid": lambda torch, x, a: x[0].sigmoid(),
    "HardSwish": lambda torch, x, a: torch.nn.functional.hardswish(x[0]),
    "HardSigmoid": lambda torch, x, a: (x[0] * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0, 1),
    "Softmax": lambda torch, x, a: x[0].softmax(a.get("axis", -1)),
    "Concat": lambda torch, x, a: torch.cat(x, a["axis"]),
    "Flatten": lambda torch, x, a: x[0].flatten(a.get("axis", 1)),
    "Transpose": lambda torch, x, a: x[0].permute(a["perm"]),
    "Gather": lambda torch, x, a: x[0].index_select(a.get("axis", 0), x[1].flatten()),
    "Identity": lambda torch, x, a: x[0],
    "Dropout": lambda torch, x, a: x[0],
}
