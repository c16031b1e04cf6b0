"""Restores the weights of a public ONNX export into LibreYOLO's model of that architecture, so that it can be trained.

The model is filled with random numbers and exported; both graphs are folded in the same way and aligned. A weight of
the public file belongs to the parameter whose random numbers are in its place. Folded batch norms are restored as
identities.
"""

from __future__ import annotations

import copy
import difflib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.optional import require

OPERATORS = frozenset(("Conv", "MatMul", "Add", "Mul", "Sub", "Div", "LayerNormalization", "BatchNormalization", "Pow"))
LEAST_SHARE = 0.98
"""Share of the parameters, by number of values, that must be found."""
TOLERANCE = 0.02
OPSET = 16
Array = NDArray[np.float32]
Step = tuple[str, list[Array]]


@dataclass(frozen=True, slots=True)
class Restored:
    """The differences between architectures.

    Attributes:
        wrap: makes the module to export from a model.
        away: largest difference between the outputs of the restored model and of the file, on an image (1, 3, s, s).
        outputs: names of the outputs of that module.
        pixels: largest value of a pixel that the model takes.
    """

    wrap: Callable[[Any], Any]
    away: Callable[[Any, Any, Sequence[Any]], float]
    outputs: Sequence[str]
    pixels: float = 1.0


def restore(torch: Any, model: Any, kind: Restored, path: Path, size: int) -> dict[str, Any]:
    """Return the state of `model`, a fresh one with the file's classes, filled with the weights of an ONNX file.

    Args:
        torch: the module.
        model: the architecture; its parameters are overwritten.
        kind: of the architecture.
        path: the public file.
        size: rows and columns of its input.

    Raises:
        ModelError: the file is of another architecture.
    """
    _mark(torch, model)
    marked = copy.deepcopy(model.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder) / "marked.onnx"
        export(torch, kind.wrap(copy.deepcopy(model)).eval(), mine, size, kind.outputs, open_batch=True)
        pairs = _pairs(_steps(_folded(mine)), _steps(require("onnx", extra="train").load(str(path)).graph))
    state, missing = _filled(torch, marked, pairs)
    total = sum(value.numel() for value in marked.values() if value.is_floating_point())
    if missing > (1 - LEAST_SHARE) * total:
        raise ModelError(f"{path}: {missing} of {total} weights do not fit this architecture: name a matching base")
    model.load_state_dict(state)
    model.eval()
    _check(model, kind, path, size)
    return state


def export(torch: Any, module: Any, path: Path, size: int, outputs: Sequence[str], *, open_batch: bool = False) -> None:
    """Write an ONNX file of a module that takes (1, 3, size, size)."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch prefers a different exporter, which needs two more packages
        torch.onnx.export(
            module,
            (torch.rand(1, 3, size, size),),
            str(path),
            opset_version=OPSET,
            dynamo=False,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in ("images", *outputs)} if open_batch else None,
        )


def _mark(torch: Any, model: Any) -> None:
    """Fill the parameters with random numbers; batch norms become identities, second branches zero."""
    torch.manual_seed(0)
    for name, value in model.named_parameters():
        if not name.endswith(("reg_scale", ".up", ".norm.weight", ".bn.weight")):
            value.data = torch.randn_like(value) * 0.1
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.fill_(1)
            module.running_mean.zero_()
            module.running_var.fill_(1 - module.eps)
            module.bias.data.normal_()
    for module in model.modules():
        if hasattr(module, "conv1") and hasattr(module, "convert_to_deploy") and hasattr(module, "conv2"):
            module.conv2.conv.weight.data.zero_()
            module.conv2.norm.bias.data.zero_()
    model.eval()


def _folded(path: Path) -> Any:
    """Return the graph with its constants folded, as public files are."""
    onnx, simplifier = require("onnx", extra="train"), require("onnxsim", extra="train")
    simple, _ = simplifier.simplify(onnx.load(str(path)))
    return simple.graph


def _steps(graph: Any) -> list[Step]:
    """Return the operators with weights, in order; a Gemm counts as a product and a sum."""
    to_array = require("onnx.numpy_helper", extra="train").to_array
    known = {entry.name: to_array(entry) for entry in graph.initializer}
    known |= {n.output[0]: to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    steps: list[Step] = []
    for node in graph.node:
        held = [known[name] for name in node.input if name in known]
        held = [array for array in held if array.dtype == np.float32 and array.size]
        if not held or (node.op_type in ("Sub", "Div") and all(array.size == 1 for array in held)):
            continue
        if node.op_type == "Gemm":
            steps.append(("MatMul", [held[0]]))
            steps += [("Add", [held[1]])] if len(held) > 1 else []
        elif node.op_type in OPERATORS:
            steps.append((node.op_type, held))
    return steps


def _pairs(mine: list[Step], theirs: list[Step]) -> list[tuple[Array, Array]]:
    """Return the arrays at the same position, by the longest common run of operators and shapes."""
    keys = [[(kind, tuple(array.shape for array in held)) for kind, held in steps] for steps in (mine, theirs)]
    pairs: list[tuple[Array, Array]] = []
    for start, other, count in difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks():
        for step in range(count):
            pairs += zip(mine[start + step][1], theirs[other + step][1], strict=True)
    return pairs


def _filled(torch: Any, marked: dict[str, Any], pairs: list[tuple[Array, Array]]) -> tuple[dict[str, Any], int]:
    """Return the state with the weights found, and the number of values not found."""
    state, lost = dict(marked), {}
    fixed = (
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "reg_scale",
        ".up",
        "bn.weight",
        "norm.weight",
        "anchors",
    )
    for name, value in marked.items():
        if not value.is_floating_point() or not value.numel() or name.endswith(fixed) or not bool(value.any()):
            continue
        parts = value.chunk(3, 0) if "in_proj_" in name else [value]
        found = [_find(part.numpy(), pairs) for part in parts]
        if any(part is None for part in found):
            lost[name] = value.numel()
        else:
            state[name] = torch.from_numpy(np.concatenate([part for part in found if part is not None]).copy())
    for name in list(lost):  # weights of auxiliary layers, which an export leaves out
        last = _same_of_last(name, state)
        if last is not None and last not in lost:
            state[name] = state[last].clone()
            del lost[name]
    return state, sum(lost.values())


def _same_of_last(name: str, state: dict[str, Any]) -> str | None:
    parts = name.split(".")
    for place in ("dec_score_head", "lqe_layers", "dec_bbox_head"):
        if place in parts:
            at = parts.index(place) + 1
            layers = {int(key.split(".")[at]) for key in state if key.split(".")[:at] == parts[:at]}
            return ".".join((*parts[:at], str(max(layers)), *parts[at + 1 :]))
    return None


def _find(value: Array, pairs: list[tuple[Array, Array]]) -> Array | None:
    """Return the public array that corresponds to `value`, in its shape."""
    for mine, theirs in pairs:
        if mine.size != value.size or theirs.size != value.size:
            continue
        for turned in (False, True):
            shown = mine.T if turned and mine.ndim == 2 else mine
            if shown.squeeze().shape == value.squeeze().shape and np.allclose(
                shown.squeeze(), value.squeeze(), atol=1e-5
            ):
                return (theirs.T if turned and theirs.ndim == 2 else theirs).reshape(value.shape)
    return None


def _check(model: Any, kind: Restored, path: Path, size: int) -> None:
    """Raise `ModelError` unless the restored model gives the same results as the file."""
    runtime = require("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 3, size, size), np.float32) * np.float32(kind.pixels)
    given = {session.get_inputs()[0].name: image}
    if len(session.get_inputs()) > 1:
        given[session.get_inputs()[1].name] = np.array([[size, size]], np.int64)
    away = kind.away(model, image, session.run(None, given))
    if away > TOLERANCE:
        raise ModelError(f"{path}: restored weights give scores that differ by {away:.3f}: it has another architecture")
