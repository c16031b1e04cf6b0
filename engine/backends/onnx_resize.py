"""Changes an ONNX graph of a fixed image size to take another size, for runtimes that read the file themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Shape
from engine.backends.linked import real_files
from engine.backends.resize import FixedSizeError, SizeChange, grid_constant, may_be_grid, regrouped
from engine.optional import require

INSTALL_HINT = "pip install onnx, to run a model of fixed size at another one"
LARGEST_INT = 1 << 31
MAX_ROUNDS = 40
"""Maximum number of consecutive reshapes; each round of shape inference fixes those whose input is already right."""

Shapes = dict[str, Shape]


def resized_onnx(path: Path, change: SizeChange) -> bytes:
    """Return the model file at another image size.

    Args:
        path: an ONNX model of fixed image size whose first input takes the images.
        change: the old and the new size.

    Raises:
        FixedSizeError: something in it depends on the size in a way that we cannot adapt.
        MissingDependencyError: the package onnx is not installed.
    """
    onnx = require("onnx", hint=INSTALL_HINT)
    with real_files(path, copy=True) as file:
        model = onnx.load(str(file))
    constants = _constants(onnx, model)
    before = _shapes(onnx, model)
    if any(None in before.get(node.output[0], (None,)) for node in _sized(model)):
        _compute_targets(onnx, model, constants)
        before = _shapes(onnx, model)
    del model.graph.value_info[:]
    _change_input(model, change)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    for name, values in constants.items():
        if may_be_grid(values.shape, change):
            _put(onnx, model, constants, name, grid_constant(values, change))
    _Targets(onnx, model, constants, before, change).settle()
    content: bytes = model.SerializeToString()
    return content


def _change_input(model: Any, change: SizeChange) -> None:
    weights = {weight.name for weight in model.graph.initializer}
    first = next(spec for spec in model.graph.input if spec.name not in weights)
    sizes = first.type.tensor_type.shape.dim
    for at in (1, 2):
        if (sizes[at].dim_value, sizes[at + 1].dim_value) == change.old_hw:
            sizes[at].dim_value, sizes[at + 1].dim_value = change.new_hw
            return
    raise FixedSizeError(f"its images have shape {[size.dim_value for size in sizes]}, not {change.old_hw}")


def _sized(model: Any) -> list[Any]:
    """Return the nodes that take the size of their result as an input."""
    return [node for node in model.graph.node if node.op_type == "Resize" and len(node.input) > 3 and node.input[3]]


def _compute_targets(onnx: Any, model: Any, constants: dict[str, NDArray[Any]]) -> None:
    """Turn the sizes that the graph computes into constants, so that the shapes after them can be inferred."""
    names = sorted({node.input[3] for node in _sized(model)} - set(constants))
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in names)
    runtime = require("onnxruntime")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    session = runtime.InferenceSession(probe.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    [first, *others] = session.get_inputs()
    if others or first.type != "tensor(float)" or not all(isinstance(size, int) for size in first.shape[1:]):
        raise FixedSizeError("it computes sizes from other inputs than its images")
    shape = [size if isinstance(size, int) else 1 for size in first.shape]
    values = session.run(None, {first.name: np.zeros(shape, np.float32)})
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        constant = f"framewire_size_{index}"
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, constant))
        for node in _sized(model):
            node.input[3] = constant if node.input[3] == name else node.input[3]


class _Targets:
    """The nodes that state the shape of their result, and the shape each must state at the new size."""

    def __init__(
        self, onnx: Any, model: Any, constants: dict[str, NDArray[Any]], before: Shapes, change: SizeChange
    ) -> None:
        self._onnx, self._model, self._constants = onnx, model, constants
        self._before, self._change = before, change
        self._nodes = [node for node in model.graph.node if node.op_type in ("Reshape", "Resize", "Slice")]
        self._named: dict[int, list[int]] = {}

    def settle(self) -> None:
        """Change the targets until all are consistent. Raises `FixedSizeError`."""
        for _ in range(MAX_ROUNDS):
            after = _shapes(self._onnx, self._model)
            failures: list[FixedSizeError] = []
            changed = False
            for index, node in enumerate(self._nodes):
                try:
                    changed |= self._adapt(index, node, after)
                except FixedSizeError as error:
                    failures.append(error)
            if not changed:
                if failures:
                    raise failures[0]
                return
        raise FixedSizeError(f"it has more than {MAX_ROUNDS} consecutive reshapes")

    def _adapt(self, index: int, node: Any, after: Shapes) -> bool:
        """Give one node the target that it needs; return whether the target changed."""
        source = node.input[0]
        old_in, old_out, now = self._before.get(source), self._before.get(node.output[0]), after.get(source)
        if old_in is None or old_out is None or now is None:
            if old_in == now:  # the shape was unknown from the start: scales and the like
                return False
            raise FixedSizeError(f"{node.name}: its shapes cannot be inferred")
        if old_in == now:
            return False
        if node.op_type == "Slice":
            self._check_slice(node, old_in, old_out, now)
            return False
        return self._name(index, node, self._target(node, old_in, old_out, now))

    def _target(self, node: Any, old_in: Shape, old_out: Shape, now: Shape) -> list[int] | None:
        if node.op_type == "Reshape":
            return regrouped(old_in, now, old_out, self._change)
        if len(node.input) < 4 or not node.input[3]:
            return None  # scaled by factors
        tail = self._change.grids.get((old_out[-2] or 0, old_out[-1] or 0))
        if tail is None or None in now[:-2]:
            raise FixedSizeError(f"{node.name} resizes to {old_out}, which is not a known grid")
        return [*(size or 1 for size in now[:-2]), *tail]

    def _name(self, index: int, node: Any, target: list[int] | None) -> bool:
        if target is None or self._named.get(index) == target:
            return False
        at = 1 if node.op_type == "Reshape" else 3
        name = f"framewire_target_{index}"
        if index in self._named:
            _put(self._onnx, self._model, self._constants, name, np.array(target, np.int64))
        else:
            values = np.array(target, np.int64)
            self._model.graph.initializer.append(self._onnx.numpy_helper.from_array(values, name))
            node.input[at] = name
            if node.op_type == "Reshape":
                del node.attribute[:]
        self._named[index] = target
        return True

    def _check_slice(self, node: Any, old_in: Shape, old_out: Shape, now: Shape) -> None:
        """Raise `FixedSizeError` if a slice selects part of the rows or columns by index."""
        values = [self._constants.get(name) for name in node.input[1:]] + [None] * 4
        starts, ends, axes, steps = values[:4]
        for axis, (size, kept, new) in enumerate(zip(old_in, old_out, now, strict=False)):
            if size is None or kept is None or size in (new, kept):
                continue
            at = _place(axes, axis, len(old_in))
            if at is None or starts is None or ends is None or steps is None:
                raise FixedSizeError(f"{node.name} selects {kept} of {size} by index")
            step, end, start = int(steps.ravel()[at]), int(ends.ravel()[at]), int(starts.ravel()[at])
            if step < 2 or end < size or kept != -(-(size - start) // step):
                raise FixedSizeError(f"{node.name} selects {kept} of {size} by index")


def _place(axes: NDArray[Any] | None, axis: int, rank: int) -> int | None:
    """Return the entry of a slice that applies to an axis."""
    listed = list(range(rank)) if axes is None else axes.ravel().tolist()
    return next((at for at, of in enumerate(listed) if of in (axis, axis - rank)), None)


def _shapes(onnx: Any, model: Any) -> Shapes:
    """Return the shape of each tensor, as far as it can be inferred."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # the package raises a dozen classes of its own, all meaning inconsistent shapes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FixedSizeError(f"its shapes are inconsistent: {reason[:200]}") from error
    specs = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    shapes: Shapes = {
        spec.name: tuple(size.dim_value or None for size in spec.type.tensor_type.shape.dim)
        for spec in specs
        if spec.type.tensor_type.HasField("shape")
    }
    return shapes


def _constants(onnx: Any, model: Any) -> dict[str, NDArray[Any]]:
    """Return the constants of the graph by name, except large weights."""
    found = {
        weight.name: onnx.numpy_helper.to_array(weight)
        for weight in model.graph.initializer
        if weight.data_location != onnx.TensorProto.EXTERNAL
    }
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    return found


def _put(onnx: Any, model: Any, constants: dict[str, NDArray[Any]], name: str, values: NDArray[Any] | None) -> None:
    """Replace the values of a constant; None leaves it unchanged."""
    if values is None:
        return
    tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
    for weight in model.graph.initializer:
        if weight.name == name:
            weight.CopyFrom(tensor)
            return
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            node.attribute[0].t.CopyFrom(tensor)
            return
