from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.detection import metadata
from engine.detection.model import inspect_model
from engine.errors import ModelError
from tests.onnx_models import save_constant_model


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("{0: 'person', 1: \"it's\"}", {0: "person", 1: "it's"}, id="names"),
        pytest.param("[640, 640]", [640, 640], id="size"),
        pytest.param("32", 32, id="number"),
        pytest.param("-1.5", -1.5, id="negative"),
        pytest.param("detect", "detect", id="bare word"),
        pytest.param("", "", id="empty"),
        pytest.param("{0: 'a - b', 1: 'x*y'}", {0: "a - b", 1: "x*y"}, id="signs inside a name"),
        pytest.param("__import__('os').system('true')", "__import__('os').system('true')", id="a call stays text"),
        pytest.param("9**9**9", "9**9**9", id="a power stays text"),
        pytest.param("'a' * 10**9", "'a' * 10**9", id="a product stays text"),
        pytest.param("-" * 5000 + "1", "-" * 5000 + "1", id="many signs stay text"),
        pytest.param("[640, 0x" + "f" * 5000 + "]", "[640, 0x" + "f" * 5000 + "]", id="a huge number stays text"),
        pytest.param("{1e9: 9223372036854775807}", {1e9: 2**63 - 1}, id="64 bits"),
        pytest.param("(" * 8 + "1" + ")" * 8, 1, id="nested within the limit"),
    ],
)
def test_texts_become_the_values_that_they_hold(text: str, value: Any) -> None:
    assert metadata.literal(text, "key") == value


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 5000 + "]" * 5000, id="deep"),
        pytest.param("(" * 9 + "1" + ")" * 9, id="one level too deep"),
        pytest.param("'" + "a" * (1 << 19) + "'", id="long"),
    ],
)
def test_texts_beyond_the_limits_are_refused(text: str) -> None:
    with pytest.raises(ModelError, match='metadata "names"'):
        metadata.literal(text, "names")


@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: [1, (n,)], lambda n: {n: 1}, lambda n: {"a": {"b": -n}}])
def test_huge_numbers_in_a_table_are_refused(wrap: Callable[[int], Any]) -> None:
    with pytest.raises(ModelError, match='"imgsz" holds a whole number'):
        metadata.parse_metadata({"imgsz": wrap(1 << 20_000)})


@pytest.mark.parametrize("key", ["imgsz", "head", "description", "names", "anchors", "kpt_shape", "stride", "task"])
@pytest.mark.parametrize("text", ["{}", "[{}, 1, 2]", "[[[1, 2], [3, 4], [{}, 6]]]"])
def test_huge_numbers_in_a_file_are_no_more_than_a_model_error(tmp_path: Path, key: str, text: str) -> None:
    values = {"task": "pose"} if key == "kpt_shape" else {}
    outputs = [np.zeros((21, 2, 2) if key == "anchors" else (7, 84), np.float32)]
    values[key] = text.format("0x" + "f" * 5000)
    path = save_constant_model(tmp_path / "m.onnx", outputs, metadata=values)
    with contextlib.suppress(ModelError):
        inspect_model(path).head()


@pytest.mark.parametrize(
    ("value", "names"),
    [
        pytest.param({0: "a", 1: "b"}, ("a", "b"), id="by number"),
        pytest.param({"1": "b", "0": "a"}, ("a", "b"), id="by number as text, out of order"),
        pytest.param(["a", 7], ("a", "7"), id="list"),
        pytest.param(["a\x1b[31m\n"], ("a?[31m?",), id="control characters"),
        pytest.param(None, None, id="none"),
        pytest.param("", None, id="empty"),
    ],
)
def test_class_names_are_read(value: Any, names: tuple[str, ...] | None) -> None:
    assert metadata.class_names({"names": value}) == names


def test_openvinos_own_labels_are_class_names() -> None:
    assert metadata.class_names({"labels": "person traffic_light"}) == ("person", "traffic light")


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        pytest.param("text\nfigure caption\n", ("text", "figure caption"), id="a name per line"),
        pytest.param("", None, id="empty"),
        pytest.param(7, None, id="no text"),
    ],
)
def test_lines_of_characters_are_class_names(lines: Any, names: tuple[str, ...] | None) -> None:
    assert metadata.class_names({"character": lines}) == names


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("not a list", id="text"),
        pytest.param({0: "a", 2: "c"}, id="a gap"),
        pytest.param({"x": "a"}, id="key that is no number"),
        pytest.param({float("nan"): "a"}, id="NaN key"),
        pytest.param({float("inf"): "a"}, id="infinite key"),
        pytest.param([["a"]], id="list in list"),
        pytest.param([True], id="truth value"),
        pytest.param(["x" * 201], id="huge name"),
        pytest.param(["x"] * 20_001, id="too many"),
        pytest.param([], id="empty list"),
        pytest.param(5, id="number"),
    ],
)
def test_names_that_are_none_are_refused(value: Any) -> None:
    with pytest.raises(ModelError, match='metadata "names"'):
        metadata.class_names({"names": value})


@pytest.mark.parametrize("value", [0, -1, 16385, [1, 2, 3], [640, "640"], "nan", float("nan"), True, [True, True]])
def test_sizes_that_are_none_are_refused(value: Any) -> None:
    with pytest.raises(ModelError, match='metadata "imgsz"'):
        metadata.image_size({"imgsz": value})


@pytest.mark.parametrize("value", [0, -32, float("nan"), float("inf"), 1e300, "x", [8, "16"], [], 2048, True])
def test_strides_that_are_none_are_refused(value: Any) -> None:
    with pytest.raises(ModelError, match='metadata "stride"'):
        metadata.stride({"stride": value})


def test_sound_values_are_read() -> None:
    assert metadata.image_size({"imgsz": [480, 640]}) == (480, 640)
    assert metadata.image_size({"imgsz": 320}) == (320, 320)
    assert metadata.image_size({}) is None
    assert metadata.stride({"stride": 32}) == 32
    assert metadata.stride({"stride": 32.0}) == 32
    assert metadata.stride({"stride": [8, 16, 32]}) == 32


ATOMS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ATOMS, inner, max_size=4))


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["names", "imgsz", "stride", "task", "labels", "character"]), VALUES | VALUES.map(repr)
    )
)
def test_no_metadata_raise_anything_but_a_model_error(values: dict[str, Any]) -> None:
    try:
        parsed = metadata.parse_metadata(values)
    except ModelError:
        return
    for read in (metadata.class_names, metadata.image_size, metadata.stride):
        with contextlib.suppress(ModelError):
            read(parsed)
    metadata.text_value(parsed, "task")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="()[]{}'\"\\,:-+*j0123abc\n# ", max_size=60))
def test_no_text_raises_anything_but_a_model_error(text: str) -> None:
    with contextlib.suppress(ModelError):
        metadata.literal(text, "names")
