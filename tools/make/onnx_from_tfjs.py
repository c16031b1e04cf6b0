#!/usr/bin/env python3
"""Convert a TensorFlow.js graph model (model.json + .bin) to ONNX.

The graph is written with channels first: a transpose of the original only renames the axes of a tensor, and becomes a
node only where a reshape or an output needs the numbers in that order. Padding is folded into the convolution or
pooling that follows, biases into the convolution before. Operators that depend on nothing but constants are computed
here. The batch is dynamic. Weights may be stored as FP16, as in most of these files. The layout
follows TensorFlow.js' sources (io_utils.ts, graph_executor.ts).

usage: onnx_from_tfjs.py MODEL.json --output MODEL.onnx [--outputs NAME,...] [--rename NEW,...] [--meta KEY=VALUE]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.errors import ModelError
from tools.make.tfjs_operators import CHANNELS_FIRST, OPERATORS, Array, Graph, Node, Tensor, Value, in_order

OPSET = 13
IR_VERSION = 8


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
        names: names of the outputs in the ONNX model; their own names by default.
        weights_dtype: how weights are stored, `float16` or `float32`; computation is FP32.
        size_hw: of the images, if it is dynamic in the graph.
        metadata: entries such as `license` and `origin`.

    Raises:
        ModelError: an operator is not supported, or an output does not exist.
    """
    nodes = {node["name"]: node for node in content["modelTopology"]["node"]}
    graph = Graph(weights_dtype)
    graph.uses.update(Counter(name for node in nodes.values() for name in node.get("input", ())))
    images = None
    for name in _needed(nodes, outputs):
        node = nodes[name]
        if node["op"] == "Placeholder":
            images = _images(node, size_hw)
            graph.values[name] = [images]
        elif node["op"] == "Const":
            graph.values[name] = [weights[name]]
        else:
            graph.values[name] = _operation(graph, node)
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


def _operation(graph: Graph, node: Node) -> list[Value]:
    if node["op"] not in OPERATORS:
        raise ModelError(f"operator {node['op']} ({node['name']}) is not supported: choose outputs before it")
    return OPERATORS[node["op"]](graph, node)


def _model(
    graph: Graph, images: Tensor, outputs: Sequence[str], names: Sequence[str], metadata: Mapping[str, str]
) -> onnx.ModelProto:
    infos = []
    for reference, name in zip(outputs, names, strict=True):
        value = graph.of(reference)
        if not isinstance(value, Tensor):
            raise ModelError(f"the output {reference} is a constant")
        order = CHANNELS_FIRST if len(value.shape) == 4 else tuple(range(len(value.shape)))
        graph.nodes.append(helper.make_node("Identity", [in_order(graph, value, order)], [name], name=name))
        shape = ["batch", *(value.shape[axis] for axis in order[1:])]
        infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    sides = [images.shape[axis] for axis in images.order][1:]
    source = helper.make_tensor_value_info(images.name, TensorProto.FLOAT, ["batch", *sides])
    body = helper.make_graph(graph.nodes, "tfjs", [source], infos, graph.initializers)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(body, producer_name="onnx_from_tfjs", opset_imports=opsets, ir_version=IR_VERSION)
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="model.json; its .bin files are next to it")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--outputs", help="names of nodes, separated by commas; those of the file by default")
    parser.add_argument("--rename", default="", help="their names in the ONNX model")
    parser.add_argument("--weights-dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--size", help="HxW, if the file leaves it open")
    parser.add_argument("--meta", action="append", default=[], metavar="KEY=VALUE", help="metadata")
    return parser


def _converted(chosen: argparse.Namespace) -> onnx.ModelProto:
    content = json.loads(chosen.model.read_text())
    declared = [entry["name"] for entry in content.get("signature", {}).get("outputs", {}).values()]
    return onnx_from_tfjs(
        content,
        read_weights(content["weightsManifest"], chosen.model.parent),
        chosen.outputs.split(",") if chosen.outputs else declared,
        names=[name for name in chosen.rename.split(",") if name],
        weights_dtype=chosen.weights_dtype,
        size_hw=tuple(int(side) for side in chosen.size.split("x")) if chosen.size else None,  # type: ignore[arg-type]
        metadata=dict(entry.split("=", 1) for entry in chosen.meta),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert the file named on the command line."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        model = _converted(chosen)
    except (ModelError, OSError, KeyError) as error:
        parser.exit(1, f"{chosen.model}: {error}\n")
    onnx.save(model, chosen.output)
    print(f"{chosen.output}: {chosen.output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
