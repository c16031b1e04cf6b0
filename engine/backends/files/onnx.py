"""Reader of ONNX files: tensors, metadata and weights, straight from the protocol buffer.

It maps the file and walks it field by field; weights are skipped, never loaded. Field numbers are those of
`onnx.proto3` (ONNX 1.x). It needs no protobuf package, and a hostile file costs no more than its own size.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.backends.base import Shape, TensorSpec
from engine.backends.files.base import ModelFile
from engine.errors import ModelError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
DTYPE_BY_CODE: dict[int, str] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip
"""`TensorProto.DataType`."""
BYTES_PER_CODE = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
MAX_METADATA_BYTES = 1 << 20
MAX_TENSORS = 256
MAX_RANK = 16

Message = memoryview


@dataclass
class _Found:
    """What the walk gathers."""

    inputs: list[TensorSpec] = field(default_factory=list)
    outputs: list[TensorSpec] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    operators: Counter[str] = field(default_factory=Counter)
    weights: set[str] = field(default_factory=set)
    bytes_by_dtype: Counter[str] = field(default_factory=Counter)
    external: set[str] = field(default_factory=set)
    producer: str = ""
    has_graph: bool = False


def read_onnx(path: Path) -> ModelFile:
    """Read what an ONNX file says about itself. Raises `ModelError`."""
    found = _Found()
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # unmapped when its last view is freed
    try:
        _read_model(memoryview(mapped), found)
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path}: not an ONNX model, or cut short ({error}): export or copy it again") from error
    if not found.has_graph:
        raise ModelError(f"{path}: not an ONNX model: it holds no graph")
    inputs = tuple(spec for spec in found.inputs if spec.name not in found.weights)
    if not inputs or not found.outputs:
        raise ModelError(f"{path}: the graph has {len(inputs)} inputs and {len(found.outputs)} outputs: not a model")
    weight_files = tuple(_weight_file(path, name) for name in sorted(found.external))
    size = sum(file.stat().st_size for file in (path, *weight_files))
    precision = _precision(found)
    metadata = {**found.metadata, **({"producer": found.producer} if found.producer else {})}
    outputs, operators = tuple(found.outputs), dict(found.operators)
    return ModelFile(path, "onnx", inputs, outputs, metadata, precision, size, operators, weight_files)


def _precision(found: _Found) -> str:
    if any(name in found.operators for name in ("ConvInteger", "QLinearConv", "MatMulInteger")):
        return "int8"
    if not found.bytes_by_dtype:
        return "unknown"
    return found.bytes_by_dtype.most_common(1)[0][0].replace("uint8", "int8")


def _weight_file(path: Path, name: str) -> Path:
    """Return the path of an external weights file, which must lie in the model's folder or below."""
    place = path.parent / name
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ModelError(f"{path}: it refers to weights at {name[:100]!r}, outside the model's folder")
    if not place.is_file():
        raise ModelError(f"{path}: its weights file {name[:100]!r} is missing beside it: copy both")
    return place


def _fields(message: Message) -> Iterator[tuple[int, int | Message]]:
    """Yield the number and value of each field: numbers as int, everything else as views."""
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == BYTES:
            length, position = _varint(message, position)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"field of unknown kind {kind}")
        if number == 0 or length > end - position:
            raise ValueError("a field reaches beyond its message")
        yield number, message[position : position + length]
        position += length


def _varint(message: Message, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 64 bits")


def _text(value: int | Message, limit: int = 4096) -> str:
    if isinstance(value, int) or len(value) > limit:
        raise ValueError("a name that is not text, or is too long")
    return bytes(value).decode("utf-8", errors="replace")


def _message(value: int | Message) -> Message:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value


def _read_model(model: Message, found: _Found) -> None:
    for number, value in _fields(model):
        if number == 2:
            found.producer = _text(value)
        elif number == 7:
            found.has_graph = True
            _read_graph(_message(value), found)
        elif number == 14:
            key, text = _read_pair(_message(value))
            found.metadata[key] = text
            if sum(map(len, found.metadata.values())) > MAX_METADATA_BYTES:
                raise ValueError("more than 1 MiB of metadata")


def _read_pair(message: Message) -> tuple[str, str]:
    """Return a `StringStringEntryProto`."""
    texts = {number: _text(value, MAX_METADATA_BYTES) for number, value in _fields(message) if number in (1, 2)}
    return texts.get(1, ""), texts.get(2, "")


def _read_graph(graph: Message, found: _Found) -> None:
    for number, value in _fields(graph):
        if number == 1:
            _read_node(_message(value), found)
        elif number == 5:
            _read_weight(_message(value), found)
        elif number in (11, 12):
            specs = found.inputs if number == 11 else found.outputs
            specs.append(_read_tensor(_message(value)))
            if len(specs) > 100_000:
                raise ValueError("more than 100,000 inputs or outputs")
    if len(found.outputs) > MAX_TENSORS:
        raise ValueError(f"{len(found.outputs)} outputs")


def _read_node(node: Message, found: _Found) -> None:
    for number, value in _fields(node):
        if number == 4:
            found.operators[_text(value)] += 1
        elif number == 5:
            _read_constant(_message(value), found)


def _read_constant(attribute: Message, found: _Found) -> None:
    """Count a tensor attribute (`AttributeProto.t`): some exporters keep weights in Constant nodes."""
    for number, value in _fields(attribute):
        if number == 5:
            _read_weight(_message(value), found)


def _read_weight(tensor: Message, found: _Found) -> None:
    """Count a `TensorProto` by its type and note where its data lie."""
    code, elements, name = 0, 1, ""
    for number, value in _fields(tensor):
        if number == 1:
            elements *= _product(value)
        elif number == 2 and isinstance(value, int):
            code = value
        elif number == 8:
            name = _text(value)
        elif number == 13:
            key, text = _read_pair(_message(value))
            if key == "location":
                found.external.add(text)
    found.weights.add(name)
    if code in DTYPE_BY_CODE:
        found.bytes_by_dtype[DTYPE_BY_CODE[code]] += elements * BYTES_PER_CODE[code]


def _product(value: int | Message) -> int:
    """Return the product of a repeated numeric field, packed or not."""
    if isinstance(value, int):
        return value
    product, position = 1, 0
    while position < len(value):
        size, position = _varint(value, position)
        product = min(product * size, 1 << 62)
    return product


def _read_tensor(info: Message) -> TensorSpec:
    """Return a `ValueInfoProto`."""
    name, dtype, shape = "", "unknown", ()  # type: str, str, Shape
    for number, value in _fields(info):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for kind, tensor in _fields(_message(value)):
                if kind == 1:
                    dtype, shape = _read_tensor_type(_message(tensor))
    return TensorSpec(name, shape, dtype)


def _read_tensor_type(tensor: Message) -> tuple[str, Shape]:
    dtype, sizes = "unknown", []  # type: str, list[int | None]
    for number, value in _fields(tensor):
        if number == 1 and isinstance(value, int):
            dtype = DTYPE_BY_CODE.get(value, f"type {value}")
        elif number == 2:
            sizes = [_read_size(_message(size)) for kind, size in _fields(_message(value)) if kind == 1]
    if len(sizes) > MAX_RANK:
        raise ValueError(f"a tensor of {len(sizes)} dimensions")
    return dtype, tuple(sizes)


def _read_size(dimension: Message) -> int | None:
    """Return a size, or None if it is dynamic."""
    for number, value in _fields(dimension):
        if number == 1 and isinstance(value, int) and 0 < value < 1 << 31:
            return value
    return None
