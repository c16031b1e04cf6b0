"""Reader of OpenVINO IR: `.xml` graph, `.bin` weights, and the `metadata.yaml` that Ultralytics writes beside them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

from engine.backends.base import Shape, TensorSpec
from engine.backends.files.base import ModelFile
from engine.errors import ConfigError, ModelError
from engine.plain_yaml.reading import parsed_yaml

MAX_XML_BYTES = 64 << 20
MAX_YAML_BYTES = 1 << 18
MAX_RANK = 16
DTYPE_BY_TYPE: dict[str, str] = {
    "f32": "float32", "f16": "float16", "f64": "float64", "bf16": "bfloat16", "u8": "uint8", "i8": "int8",
    "i32": "int32", "i64": "int64", "boolean": "bool", "u1": "bool", "i4": "int4", "u4": "int4",
    "FP32": "float32", "FP16": "float16", "FP64": "float64", "I32": "int32", "I64": "int64", "U8": "uint8",
}  # fmt: skip


def read_ir(path: Path) -> ModelFile:
    """Read what an IR file says about itself. Raises `ModelError`."""
    size = path.stat().st_size
    if size > MAX_XML_BYTES:
        raise ModelError(f"{path}: {size >> 20} MiB of XML: expected an OpenVINO graph below {MAX_XML_BYTES >> 20} MiB")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ModelError(f"{path}: its weights {weights.name} are missing beside it: copy both")
    net = _root(path)
    layers = net.findall("./layers/layer")
    inputs = tuple(_input(layer, i) for i, layer in enumerate(_of_type(layers, "Parameter")))
    ports = {(layer.get("id"), port.get("id")): port for layer in layers for port in layer.findall("./output/port")}
    sources = {edge.get("to-layer"): (edge.get("from-layer"), edge.get("from-port")) for edge in net.iter("edge")}
    results = _of_type(layers, "Result")
    outputs = tuple(_output(ports.get(sources.get(r.get("id"), ("", ""))), i) for i, r in enumerate(results))
    if not inputs or not outputs:
        raise ModelError(f"{path}: the graph has {len(inputs)} inputs and {len(outputs)} outputs: not a model")
    metadata = {**_runtime_info(net), **read_metadata_yaml(path.parent / "metadata.yaml")}
    operators = Counter(layer.get("type", "") for layer in layers)
    precision = _precision(layers)
    total = size + weights.stat().st_size
    return ModelFile(path, "openvino", inputs, outputs, metadata, precision, total, dict(operators))


def _root(path: Path) -> ElementTree.Element:
    data = path.read_bytes()
    if b"\0" in data or b"<!DOCTYPE" in data or b"<!ENTITY" in data:  # UTF-16 spells them differently
        raise ModelError(f"{path}: the XML declares entities: not written by OpenVINO, refused")
    try:
        net = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise ModelError(f"{path}: not readable as XML ({error}): export or copy it again") from error
    if net.tag != "net":
        raise ModelError(f"{path}: the XML is a <{net.tag[:50]}>: expected an OpenVINO <net>")
    return net


def _of_type(layers: list[ElementTree.Element], kind: str) -> list[ElementTree.Element]:
    return [layer for layer in layers if layer.get("type") == kind]


def _input(layer: ElementTree.Element, index: int) -> TensorSpec:
    port = layer.find("./output/port")
    data = layer.find("data")
    dtype = data.get("element_type", "unknown") if data is not None else "unknown"
    return TensorSpec(_name(port, "input", index), _shape(port), DTYPE_BY_TYPE.get(dtype, dtype))


def _output(port: ElementTree.Element | None, index: int) -> TensorSpec:
    precision = port.get("precision", "") if port is not None else ""
    return TensorSpec(_name(port, "output", index), _shape(port), DTYPE_BY_TYPE.get(precision, precision or "unknown"))


def _name(port: ElementTree.Element | None, kind: str, index: int) -> str:
    """Return the tensor's name as the OpenVINO backend chooses it: the first in order, or kind and position."""
    names = sorted(name for name in (port.get("names", "") if port is not None else "").split(",") if name)
    return names[0] if names else f"{kind}{index}"


def _shape(port: ElementTree.Element | None) -> Shape:
    sizes = [dim.text or "" for dim in port.findall("dim")] if port is not None else []
    return tuple(int(size) if size.isdigit() and 0 < int(size) < 1 << 31 else None for size in sizes[:MAX_RANK])


def _precision(layers: list[ElementTree.Element]) -> str:
    """Return the element type that most bytes of the weights have."""
    sizes: Counter[str] = Counter()
    for layer in _of_type(layers, "Const"):
        data = layer.find("data")
        if data is not None and (data.get("size") or "").isdigit():
            sizes[data.get("element_type", "unknown")] += int(data.get("size", "0"))
    if not sizes:
        return "unknown"
    kind = sizes.most_common(1)[0][0]
    return DTYPE_BY_TYPE.get(kind, kind).replace("uint8", "int8")


def _runtime_info(net: ElementTree.Element) -> dict[str, Any]:
    """Return `rt_info/model_info`, where newer exporters repeat their metadata as text."""
    info = net.find("./rt_info/model_info")
    values = {child.tag: child.get("value", "") for child in info} if info is not None else {}
    return {key: value for key, value in values.items() if value}


def read_metadata_yaml(path: Path) -> dict[str, Any]:
    """Return the keys and values of an exporter's `metadata.yaml`, empty if there is none. Raises `ModelError`."""
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_YAML_BYTES:
        raise ModelError(f"{path}: more than 256 KiB: expected the exporter's short list of facts")
    return parse_metadata_yaml(path.read_text(encoding="utf-8", errors="replace"), path)


def parse_metadata_yaml(text: str, path: Path) -> dict[str, Any]:
    """Return the keys and values of YAML, JSON or a Python literal of plain values. Raises `ModelError`."""
    try:
        values = parsed_yaml(text, str(path), MAX_YAML_BYTES, expected="the exporter's list of facts")
    except ConfigError as error:
        raise ModelError(str(error)) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ModelError(f"{path}: holds a {type(values).__name__}: expected keys and values")
    return {str(key): _plain(value, as_text=key == "names") for key, value in values.items()}


def _plain(value: Any, *, as_text: bool) -> Any:
    """Return a value of built-in types; numbers among the names of classes become the text that was written."""
    if isinstance(value, dict):
        return {_plain(key, as_text=False): _plain(inner, as_text=as_text) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, as_text=as_text) for inner in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if as_text:
        return str(value)
    return int(value) if isinstance(value, int) else float(value)
