"""Changes an OpenVINO graph of a fixed image size to take another size."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Shape
from engine.backends.resize import FixedSizeError, SizeChange, grid_constant, may_be_grid, regrouped

SLICES = ("Slice", "StridedSlice")


def resize(openvino: Any, model: Any, change: SizeChange) -> None:
    """Make `model` take images of another size, in place.

    Operators are visited in topological order, so that the shapes of their inputs have already been adapted.

    Args:
        openvino: the package.
        model: a model of fixed image size whose first parameter takes the images.
        change: the old and the new size.

    Raises:
        FixedSizeError: something in it depends on the size in a way that we cannot adapt.
    """
    operators = model.get_ordered_ops()
    before = [[_shape(port) for port in (*operator.inputs(), *operator.outputs())] for operator in operators]
    images = model.inputs[0]
    images.node.set_partial_shape(openvino.PartialShape(_image_shape(images, change)))
    for operator, shapes in zip(operators, before, strict=True):
        _adapt(openvino, operator, shapes, change)
        try:
            operator.validate_and_infer_types()
        except RuntimeError as error:
            name = f"{operator.get_friendly_name()} ({operator.get_type_name()})"
            raise FixedSizeError(f"{name} works at one size only") from error
    try:
        model.validate_nodes_and_infer_types()
    except RuntimeError as error:
        raise FixedSizeError(f"its operators do not fit together at {change.new_hw}") from error


def _image_shape(port: Any, change: SizeChange) -> list[Any]:
    """Return the shape of the images with the new size in place of the old one."""
    shape = list(port.partial_shape)
    at = next((at for at in (1, 2) if _shape(port)[at : at + 2] == change.old_hw), None)
    if at is None:
        raise FixedSizeError(f"its images have shape {port.partial_shape}, not {change.old_hw}")
    shape[at : at + 2] = change.new_hw
    return shape


def _adapt(openvino: Any, operator: Any, before: list[Shape], change: SizeChange) -> None:
    kind = operator.get_type_name()
    if kind == "Constant":
        if may_be_grid(before[0], change):  # type: ignore[arg-type]
            _replace(openvino, operator.output(0), grid_constant(operator.data, change))
    elif kind == "Reshape" and _shape(operator.input(0)) != before[0]:
        target = regrouped(before[0], _shape(operator.input(0)), before[2], change)
        _feed(openvino, operator, 1, target)
    elif kind == "Interpolate":
        _scale(openvino, operator, before, change)
    elif kind in SLICES:
        _check_slice(operator, before)


def _scale(openvino: Any, operator: Any, before: list[Shape], change: SizeChange) -> None:
    """Give an Interpolate with an explicit target the target at the new size."""
    if operator.get_attributes().get("shape_calculation_mode") != "sizes" or _shape(operator.input(0)) == before[0]:
        return
    count, result = before[1][0] if before[1] else None, before[-1]
    if count is None or result[-2:] not in change.grids or None in result:
        raise FixedSizeError(f"{operator.get_friendly_name()} resizes to {result}, which is not a known grid")
    sizes = [*_shape(operator.input(0))[:-2], *change.grids[result[-2], result[-1]]]  # type: ignore[index]
    _feed(openvino, operator, 1, [size or 1 for size in sizes[-count:]])


def _check_slice(operator: Any, before: list[Shape]) -> None:
    """Raise `FixedSizeError` if a slice selects part of the rows or columns by index."""
    old_in, old_out, new_in = before[0], before[-1], _shape(operator.input(0))
    for axis, (size, kept, now) in enumerate(zip(old_in, old_out, new_in, strict=False)):
        if size is None or kept is None or size == now or kept == size:
            continue
        if not _is_stepping(operator, axis, size, kept):
            raise FixedSizeError(f"{operator.get_friendly_name()} selects {kept} of {size} by index")


def _is_stepping(operator: Any, axis: int, size: int, kept: int) -> bool:
    """Whether a slice takes every n-th element of the whole axis, as a focus layer does."""
    begins, ends, steps = (_values(operator, at) for at in (1, 2, 3))
    if begins is None or ends is None or steps is None:
        return False
    at = axis if operator.get_type_name() == "StridedSlice" or operator.get_input_size() < 5 else None
    if at is None:
        axes = (_values(operator, 4) if operator.get_input_size() > 4 else None) or []
        places = [place for place, of in enumerate(axes) if of in (axis, axis - len(_shape(operator.input(0))))]
        at = places[0] if places else None
    if at is None or at >= len(steps):
        return False
    return steps[at] > 1 and ends[at] >= size and kept == -(-(size - begins[at]) // steps[at])


def _values(operator: Any, at: int) -> list[int] | None:
    if at >= operator.get_input_size() or not _is_constant(operator, at):
        return None
    return [int(value) for value in operator.input_value(at).get_node().data.ravel()]


def operator_set() -> Any:
    """Return OpenVINO's module of graph operators, which moved in release 2025."""
    try:
        return import_module("openvino.opset13")
    except ModuleNotFoundError:
        return import_module("openvino.runtime.opset13")


def _is_constant(operator: Any, at: int) -> bool:
    return bool(operator.input_value(at).get_node().get_type_name() == "Constant")


def _feed(openvino: Any, operator: Any, at: int, values: list[int]) -> None:
    operator.input(at).replace_source_output(operator_set().constant(np.array(values, np.int64)).output(0))


def _replace(openvino: Any, port: Any, values: NDArray[Any] | None) -> None:
    if values is not None:
        port.replace(operator_set().constant(np.ascontiguousarray(values), port.get_element_type()).output(0))


def _shape(port: Any) -> Shape:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return ()
    return tuple(None if size.is_dynamic else int(size.get_length()) for size in shape)
