from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.backends.base import TensorSpec
from engine.backends.remote.datatypes import DTYPE_BY_DATATYPE
from pipelines.serving.refusals import RefusedError
from pipelines.serving.tensors import (
    MAX_NESTED,
    MAX_TEXTS,
    MAX_VALUES,
    answer,
    parse_inference,
    plain_body,
    split_body,
    tensor_metadata,
)

INPUTS = (TensorSpec("images", (None, 2, 3), "float32"),)
OUTPUTS = (TensorSpec("a", (None, 2), "float32"), TensorSpec("b", (None,), "int64"))
ANY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
VALUES = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


def _request(tensor: dict[str, Any] | None = None, **more: Any) -> bytes:
    plain = {"name": "images", "shape": [1, 2, 3], "datatype": "FP32", "data": VALUES.ravel().tolist()}
    return json.dumps({"inputs": [{**plain, **(tensor or {})}], **more}).encode()


def _parse(body: bytes, header_length: str | None = None) -> Any:
    return parse_inference(split_body(body, header_length), INPUTS, OUTPUTS)


@pytest.mark.parametrize("data", [VALUES.ravel().tolist(), VALUES.tolist()])
def test_json_is_flat_or_nested(data: Any) -> None:
    asked = _parse(_request({"data": data}, id="7"))
    assert np.array_equal(asked.feeds["images"], VALUES)
    assert (asked.id, asked.outputs) == ("7", (("a", False), ("b", False)))


def test_bytes_follow_the_json_at_any_offset() -> None:
    for padding in ("", " ", "  "):
        head = _request({"data": None, "parameters": {"binary_data_size": 24}}) + padding.encode()
        asked = _parse(head + VALUES.tobytes(), str(len(head)))
        found = asked.feeds["images"]
        assert np.array_equal(found, VALUES)
        assert found.flags.aligned
        assert found.flags.writeable


def test_outputs_are_chosen_and_come_as_bytes_or_json() -> None:
    outputs = [{"name": "b"}, {"name": "a", "parameters": {"binary_data": True}}]
    asked = _parse(_request(outputs=outputs, id="x"))
    made = {"a": np.ones((1, 2), np.float32), "b": np.array([5], np.int64)}
    [head, tail], length = answer("m", asked, made)
    assert length == len(head)
    said = json.loads(head)
    assert (said["model_name"], said["model_version"], said["id"]) == ("m", "1", "x")
    assert said["outputs"][0] == {"name": "b", "datatype": "INT64", "shape": [1], "data": [5]}
    assert said["outputs"][1]["parameters"] == {"binary_data_size": 8}
    assert tail == made["a"].tobytes()
    every = _parse(_request(parameters={"binary_data_output": True}))
    assert every.outputs == (("a", True), ("b", True))


def test_open_sizes_are_minus_one() -> None:
    assert tensor_metadata(INPUTS[0]).shape == [-1, 2, 3]


@pytest.mark.parametrize(
    ("tensor", "more"),
    [
        ({"name": "other"}, {}),
        ({"datatype": "FP16"}, {}),
        ({"datatype": "BYTES"}, {}),
        ({"shape": [1, 3, 2]}, {}),
        ({"shape": [0, 2, 3]}, {}),
        ({"shape": [-1, 2, 3]}, {}),
        ({"shape": [2, 2, 3]}, {}),
        ({"data": [1, 2]}, {}),
        ({"data": ["a"] * 6}, {}),
        ({"data": [[1, 2], [3]]}, {}),
        ({"data": None}, {}),
        ({"data": None, "parameters": {"binary_data_size": 24}}, {}),
        ({"data": None, "parameters": {"shared_memory_region": "a", "shared_memory_byte_size": 24}}, {}),
        ({}, {"outputs": [{"name": "c"}]}),
        ({}, {"outputs": [{"name": "a", "parameters": {"classification": 3}}]}),
        ({}, {"inputs": []}),
        ({}, {"inputs": "none"}),
    ],
)
def test_what_does_not_fit_the_model_is_refused(tensor: dict[str, Any], more: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        _parse(_request(tensor, **more))


@pytest.mark.parametrize("length", ["-1", "x", "999999", "1e3", "٣"])
def test_a_wrong_header_length_is_refused(length: str) -> None:
    with pytest.raises(RefusedError, match="expected at most"):
        _parse(_request(), length)


def test_bytes_of_no_input_are_refused() -> None:
    body = _request()
    with pytest.raises(RefusedError, match="belong to no input"):
        _parse(body + b"1234", str(len(body)))


def test_a_body_is_unpacked_and_a_bomb_is_not() -> None:
    plain = _request()
    assert plain_body(gzip.compress(plain), "gzip", 10_000) == plain
    assert plain_body(zlib.compress(plain), "deflate", 10_000) == plain
    for bomb, encoding in ((gzip.compress(bytes(10**7)), "gzip"), (zlib.compress(bytes(10**7)), "deflate")):
        with pytest.raises(RefusedError, match="more than 1000 bytes") as refused:
            plain_body(bomb, encoding, 1000)
        assert refused.value.status == 413
    with pytest.raises(RefusedError, match="not gzip"):
        plain_body(b"hello", "gzip", 1000)
    with pytest.raises(RefusedError, match="cut off"):
        plain_body(gzip.compress(plain)[:-9], "gzip", 10_000)
    with pytest.raises(RefusedError, match="expected gzip"):
        plain_body(plain, "br", 1000)


@ANY
@given(
    body=st.binary(max_size=100)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "id"]), inner
            )
        ),
        max_leaves=20,
    ).map(lambda value: json.dumps(value).encode()),
    length=st.none() | st.integers(0, 120).map(str),
)
def test_anything_is_refused_or_fits(body: bytes, length: str | None) -> None:
    try:
        _parse(body, length)
    except RefusedError:
        return


@ANY
@given(data=st.lists(st.integers() | st.floats() | st.booleans() | st.text(max_size=3) | st.none(), max_size=8))
def test_any_data_are_refused_or_fit(data: list[Any]) -> None:
    for datatype in DTYPE_BY_DATATYPE:
        spec = (TensorSpec("images", (None,), DTYPE_BY_DATATYPE[datatype]),)
        tensor = {"name": "images", "shape": [len(data)], "datatype": datatype, "data": data}
        try:
            body = json.dumps({"inputs": [tensor]}).encode()
            found = parse_inference(split_body(body, None), spec, OUTPUTS).feeds["images"]
        except RefusedError:
            continue
        assert found.shape == (len(data),)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[" + b"1," * MAX_VALUES + b"1,1]", id="values"),
        pytest.param(b"[" + b"[]," * MAX_NESTED + b"[]]", id="lists"),
        pytest.param(b"[" + b"{}," * MAX_NESTED + b"{}]", id="objects"),
        pytest.param(b"[" + b'"a",' * MAX_TEXTS + b'"a"]', id="texts"),
    ],
)
def test_json_whose_objects_would_take_too_much_is_refused_before_it_is_read(data: bytes) -> None:
    body = _request().replace(b'"inputs"', b'"parameters": {"a": ' + data + b'}, "inputs"')
    with pytest.raises(RefusedError, match="binary_data_size") as refusal:
        split_body(body, None)
    assert refusal.value.status == 413


def test_the_memory_of_json_is_estimated_at_least_as_large_as_it_is() -> None:
    wide = ("a" * 1_000_000 + "\N{GRINNING FACE}").encode()
    texts = b'"' + b"a" * 1_000_000 + b'",', b'"' + wide + b'",', b'"' + b"a" * 1_000_000 + b'\\ud83d\\ude00",'
    for data in (b"0.123456," * 100_000, b"[]," * 100_000, b"{}," * 100_000, b'"abcdef",' * 9_000, *texts):
        body = b'{"inputs": [], "parameters": {"a": [' + data[:-1] + b"]}}"
        split = split_body(body, None)
        tracemalloc.start()
        found = msgspec.json.decode(split.json)
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found
        assert taken < split.object_bytes
