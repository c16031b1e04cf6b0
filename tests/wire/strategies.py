"""Hypothesis strategies for every message type, read from the types themselves."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec
from hypothesis import strategies as st

from engine.wire import MESSAGE_TYPES, Message, schema_of

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_INTS = st.integers(-(2**63), 2**63 - 1)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: _TEXT,
    int: _INTS,
    float: _FLOATS,
    bool: st.booleans(),
    type(None): st.none(),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for values of a field's type."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _limited(arguments[0], arguments[1])
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is list:
        return st.lists(values(arguments[0]), max_size=4)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(argument) for argument in arguments])
    return structs(hint)


def structs(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Return a strategy for instances of a struct; the schema is that of its kind, and no JPEG is attached."""
    hints = typing.get_type_hints(struct, include_extras=True)
    fields = {name: values(hint) for name, hint in hints.items() if name not in ("schema", "jpeg")}
    if "schema" in hints:
        kind = next(kind for kind, message_type in MESSAGE_TYPES.items() if message_type is struct)
        fields["schema"] = st.just(schema_of(kind))
    return st.builds(struct, **fields)


def _limited(hint: Any, limit: msgspec.Meta) -> st.SearchStrategy[Any]:
    if limit.min_length is not None:
        return st.lists(values(typing.get_args(hint)[0]), min_size=limit.min_length, max_size=limit.max_length)
    return st.integers(limit.ge, 2**63 - 1)


MESSAGES: st.SearchStrategy[Message] = st.one_of([structs(message_type) for message_type in MESSAGE_TYPES.values()])
