"""Tensors of the Open Inference Protocol (KServe v2) over HTTP: JSON, and bytes after it (binary tensor extension)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.backends.base import TensorSpec
from engine.backends.remote.datatypes import DATATYPE_BY_DTYPE, DTYPE_BY_DATATYPE
from pipelines.serving.answers import InferAnswer, InferRequest, InputTensor, OutputTensor, TensorMetadata
from pipelines.serving.refusals import RefusedError

HEADER_LENGTH = "inference-header-content-length"
OPEN = -1
MAX_VALUES = 4_000_000
MAX_NESTED = 200_000
MAX_TEXTS = 10_000
"""Limits of the JSON of a request: of its values, of its lists and objects, and of its texts. They take up to 50 times
the bytes of their JSON, and while they are read, nothing else in the process runs."""
PIECE_BYTES = 1 << 20
BYTES_PER_VALUE = 40
BYTES_PER_OBJECT = 250
WIDEST_CHARACTER = 4
_read = msgspec.json.Decoder(InferRequest)


@dataclass(frozen=True, slots=True)
class Inference:
    """A request, checked against its model.

    Attributes:
        feeds: the inputs by name.
        outputs: names of the wanted outputs, in order, with whether each is wanted as bytes.
        id: as given by the client.
    """

    feeds: Mapping[str, NDArray[Any]]
    outputs: tuple[tuple[str, bool], ...]
    id: str


def tensor_metadata(spec: TensorSpec) -> TensorMetadata:
    """Return the protocol's description of a tensor."""
    shape = [OPEN if size is None else size for size in spec.shape]
    return TensorMetadata(spec.name, DATATYPE_BY_DTYPE.get(spec.dtype, spec.dtype.upper()), shape)


def plain_body(body: bytes, encoding: str, most: int) -> bytes:
    """Return a body without its compression; never more than `most` bytes. Raises `RefusedError`."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise RefusedError(f"Content-Encoding {encoding[:40]!r}: expected gzip, deflate or none", 415)
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
    try:
        plain = unpack.decompress(body, most)
    except zlib.error as error:
        raise RefusedError(f"the body is not {encoding}: {error}") from error
    if unpack.unconsumed_tail or not unpack.eof:
        raise RefusedError(f"the body has more than {most} bytes, or is cut off", 413)
    return plain


@dataclass(frozen=True, slots=True)
class SplitBody:
    """A body whose JSON is within the limits.

    Attributes:
        json: the request.
        tail: the bytes of tensors after it.
        object_bytes: the most memory that the JSON can take once it is parsed.
    """

    json: memoryview
    tail: memoryview
    object_bytes: int


def split_body(body: bytes, header_length: str | None) -> SplitBody:
    """Return JSON and tensors of a body without parsing any of it yet.

    Args:
        body: JSON, and the bytes of tensors after it.
        header_length: value of `Inference-Header-Content-Length`, the bytes of the JSON; None: all.

    Raises:
        RefusedError: the length is wrong, or the JSON has more values, lists or texts than allowed.
    """
    json, tail = _split(body, header_length)
    values, lists, objects, quotes, escapes = _counts(json, b',[{"\\')
    if values > MAX_VALUES or lists + objects > MAX_NESTED or quotes > 2 * MAX_TEXTS:
        raise RefusedError(
            f"the JSON has about {values} values, {lists + objects} lists and {quotes // 2} texts: expected at most "
            f"{MAX_VALUES}, {MAX_NESTED} and {MAX_TEXTS}; send the tensors as bytes (binary_data_size)",
            413,
        )
    is_wide = escapes > 0 or not _is_ascii(json)  # one wide character makes the whole text wide
    texts = (WIDEST_CHARACTER if is_wide else 1) * len(json)
    return SplitBody(json, tail, BYTES_PER_VALUE * values + BYTES_PER_OBJECT * (lists + objects + quotes) + texts)


def _is_ascii(text: memoryview) -> bool:
    codes = np.frombuffer(text, np.uint8)
    return all(codes[start : start + PIECE_BYTES].max() < 128 for start in range(0, len(codes), PIECE_BYTES))


def _counts(text: memoryview, marks: bytes) -> list[int]:
    """Return how often each of some bytes occurs; other threads run meanwhile."""
    codes, found = np.frombuffer(text, np.uint8), [0] * len(marks)
    for start in range(0, len(codes), PIECE_BYTES):
        piece = codes[start : start + PIECE_BYTES]
        found = [count + int(np.count_nonzero(piece == mark)) for count, mark in zip(found, marks, strict=True)]
    return found


def parse_inference(body: SplitBody, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Inference:
    """Return the inference that a request asks for.

    Args:
        body: of the request.
        inputs: what the model takes.
        outputs: what it returns.

    Raises:
        RefusedError: it is not a valid request, or does not fit the model.
    """
    tail = body.tail
    try:
        request = _read.decode(body.json)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(f"no inference request: {error}") from error
    by_name = {spec.name: spec for spec in inputs}
    if sorted(tensor.name for tensor in request.inputs) != sorted(by_name):
        raise RefusedError(f"expected the inputs {', '.join(map(str, inputs))}, each once")
    feeds: dict[str, NDArray[Any]] = {}
    for tensor in request.inputs:
        array, tail = _array(tensor, by_name[tensor.name], tail)
        feeds[tensor.name] = array
    if len(tail):
        raise RefusedError(f"{len(tail)} bytes belong to no input: set their binary_data_size")
    return Inference(feeds, _wanted(request, [spec.name for spec in outputs]), request.id)


def _split(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    if header_length is None:
        return view, view[len(view) :]
    is_number = header_length.isascii() and header_length.isdigit() and len(header_length) < 12
    if not is_number or int(header_length) > len(view):
        raise RefusedError(f"{HEADER_LENGTH} is {header_length[:40]!r}: expected at most the body's {len(view)} bytes")
    return view[: int(header_length)], view[int(header_length) :]


def _array(tensor: InputTensor, spec: TensorSpec, tail: memoryview) -> tuple[NDArray[Any], memoryview]:
    """Return an input as an array, and what follows its bytes."""
    dtype = DTYPE_BY_DATATYPE.get(tensor.datatype)
    shape = tuple(tensor.shape)
    fits = len(shape) == len(spec.shape) and all(
        want is None or want == got for want, got in zip(spec.shape, shape, strict=True)
    )
    if dtype != spec.dtype or not fits or 0 in shape:
        raise RefusedError(f"input {tensor.name[:80]!r} is {tensor.datatype[:20]} {list(shape)}: expected {spec}")
    count = math.prod(shape)
    if tensor.data is not None:
        return _from_json(tensor, dtype, count).reshape(shape), tail
    size = tensor.parameters.get("binary_data_size")
    expected = count * np.dtype(dtype).itemsize
    if size != expected or len(tail) < expected:
        raise RefusedError(
            f"input {tensor.name[:80]!r} has binary_data_size {str(size)[:40]} and {len(tail)} bytes are left: "
            f"expected {expected}, or `data`"
        )
    return np.frombuffer(tail[:expected], dtype).reshape(shape).copy(), tail[expected:]  # aligned, and writeable


def _from_json(tensor: InputTensor, dtype: str, count: int) -> NDArray[Any]:
    """Return the numbers of a tensor sent as JSON, flat or nested."""
    try:
        with np.errstate(all="raise"):
            values = np.array(tensor.data, dtype=dtype).ravel()
    except (ValueError, TypeError, OverflowError, FloatingPointError) as error:
        raise RefusedError(f"input {tensor.name[:80]!r}: data is not {tensor.datatype}: {error}") from error
    if values.size != count:
        raise RefusedError(f"input {tensor.name[:80]!r} has {values.size} values: expected {count}")
    return values


def _wanted(request: InferRequest, names: Sequence[str]) -> tuple[tuple[str, bool], ...]:
    as_bytes = request.parameters.get("binary_data_output") is True
    if not request.outputs:
        return tuple((name, as_bytes) for name in names)
    unknown = [output.name for output in request.outputs if output.name not in names]
    if unknown:
        raise RefusedError(f"no output is called {unknown[0][:80]!r}: expected some of {', '.join(names)}")
    if any(output.parameters.get("classification") for output in request.outputs):
        raise RefusedError("the classification extension is not supported: use /v1/classify")
    return tuple((output.name, output.parameters.get("binary_data", as_bytes) is True) for output in request.outputs)


def answer(model: str, inference: Inference, outputs: Mapping[str, NDArray[Any]]) -> tuple[list[bytes], int | None]:
    """Return the pieces of an answer's body for (b, ...) outputs, and the bytes of its JSON if tensors follow it."""
    tensors, tail = [], []
    for name, as_bytes in inference.outputs:
        array = outputs[name]
        datatype, shape = DATATYPE_BY_DTYPE[array.dtype.name], list(array.shape)
        if as_bytes:
            data = np.ascontiguousarray(array).tobytes()
            tail.append(data)
            tensors.append(OutputTensor(name, datatype, shape, {"binary_data_size": len(data)}))
        else:
            tensors.append(OutputTensor(name, datatype, shape, data=array.ravel().tolist()))
    json = msgspec.json.encode(InferAnswer(model, "1", inference.id, tensors))
    return [json, *tail], len(json) if tail else None
