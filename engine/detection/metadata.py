"""Parses the values in a model's metadata: text that holds Python literals, validated before use.

Exporters write metadata values as text (`"{0: 'person'}"`, `"[640, 640]"`). They are parsed as literals, within
limits, and never evaluated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from engine.errors import ModelError

MAX_TEXT = 1 << 18
MAX_DEPTH = 8
MAX_CLASSES = 20_000
MAX_NAME = 200
MAX_BITS = 63
_STRING = re.compile(
    r"'(?:[^'\\\n]|\\.)*'?|\"(?:[^\"\\\n]|\\.)*\"?"
)  # also without its closing quote, so that no text is read twice
_OPERATOR_RUN = re.compile(r"[-+~]\s*[-+~]\s*[-+~]|[*/%@<>=!|^&]|\b(?:not|lambda|if|for|await|yield)\b")


def literal(text: str, key: str) -> Any:
    """Return the Python literal that `text` holds, or the text itself if it holds none.

    Raises:
        ModelError: the text is longer or nested deeper than any exporter writes.

    >>> literal("{0: 'person', 1: 'car'}", "names")
    {0: 'person', 1: 'car'}
    >>> literal("__import__('os').getcwd()", "names")
    "__import__('os').getcwd()"
    """
    if len(text) > MAX_TEXT:
        raise ModelError(f'metadata "{key}" has {len(text)} characters: expected at most {MAX_TEXT}')
    bare = _STRING.sub("''", text)
    if _depth(bare) > MAX_DEPTH:
        raise ModelError(f'metadata "{key}" is nested deeper than {MAX_DEPTH} levels')
    if _OPERATOR_RUN.search(bare):
        return text
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
    return value if _has_sound_numbers(value) else text


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


def parse_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return `metadata` with each text turned into the value it holds. Raises `ModelError`."""
    return {key: _parsed(value, key) for key, value in metadata.items()}


def _parsed(value: Any, key: str) -> Any:
    if isinstance(value, str):
        return literal(value, key)
    if not _has_sound_numbers(value):
        raise ModelError(f'metadata "{key}" holds a whole number of more than {MAX_BITS} bits: no exporter writes that')
    return value


def _has_sound_numbers(value: Any) -> bool:
    """Return whether each integer fits into an array; Python may even refuse to print longer ones."""
    if isinstance(value, int):
        return value.bit_length() <= MAX_BITS
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    return not isinstance(value, (list, tuple, set)) or all(_has_sound_numbers(entry) for entry in value)


def class_names(metadata: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names in parsed metadata, by class id, or None if there are none.

    Raises:
        ModelError: the names are not a list or numbered table of short texts.
    """
    value = metadata.get("names")
    if value is None or value == "":
        value = _listed_names(metadata)
    if value is None:
        return None
    if isinstance(value, Mapping):
        value = _by_number(value)
    if not isinstance(value, (list, tuple)) or not value:
        raise ModelError(f'metadata "names" is {_short(value)}: expected a list of class names, or a table by number')
    if len(value) > MAX_CLASSES:
        raise ModelError(f'metadata "names" has {len(value)} entries: expected at most {MAX_CLASSES}')
    return tuple(_name(entry) for entry in value)


def _listed_names(metadata: Mapping[str, Any]) -> list[str] | None:
    """Return the names in one text: OpenVINO's `labels`, or the `character` of RapidAI's copies of Paddle's models."""
    labels, lines = metadata.get("labels"), metadata.get("character")
    if isinstance(labels, str) and labels:
        return [label.replace("_", " ") for label in labels.split()]  # spaces inside a name are written as _
    return lines.splitlines() if isinstance(lines, str) and lines else None


def _by_number(table: Mapping[Any, Any]) -> list[Any]:
    """Return the values of `{0: ..., 1: ...}` in order; keys may be texts, as in JSON."""
    try:
        numbered = {int(key): entry for key, entry in table.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f'metadata "names" has keys that are not numbers: {_short(list(table))}') from error
    if sorted(numbered) != list(range(len(table))):
        raise ModelError(f'metadata "names" does not count its {len(table)} classes from 0: {_short(sorted(numbered))}')
    return [numbered[index] for index in range(len(numbered))]


def _name(entry: Any) -> str:
    if not isinstance(entry, (str, int)) or isinstance(entry, bool):
        raise ModelError(f'metadata "names" holds {_short(entry)}: expected text')
    name = str(entry)
    if len(name) > MAX_NAME:
        raise ModelError(f'metadata "names" holds a name of {len(name)} characters: expected at most {MAX_NAME}')
    return "".join(character if character.isprintable() else "?" for character in name)


def image_size(metadata: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return rows and columns from `imgsz`, or None if it is not given. Raises `ModelError`."""
    value = metadata.get("imgsz")
    if value is None or value == "":
        return None
    sizes = [value, value] if _is_count(value, 16384) else value
    if not isinstance(sizes, (list, tuple)) or len(sizes) != 2 or not all(_is_count(size, 16384) for size in sizes):
        raise ModelError(f'metadata "imgsz" is {_short(value)}: expected one or two sizes between 1 and 16384')
    return int(sizes[0]), int(sizes[1])


def stride(metadata: Mapping[str, Any]) -> int | None:
    """Return the largest stride, or None if it is not given. Raises `ModelError`."""
    value = metadata.get("stride")
    if value is None or value == "":
        return None
    if isinstance(value, (list, tuple)) and value and all(_is_count(step, 1024) for step in value):
        return int(max(value))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not _is_count(value, 1024):
        raise ModelError(f'metadata "stride" is {_short(value)}: expected a whole number between 1 and 1024')
    return int(value)


def text_value(metadata: Mapping[str, Any], key: str) -> str:
    """Return a short text from the metadata in lower case, or an empty one if it is not given."""
    value = metadata.get(key)
    return value.strip().lower()[:100] if isinstance(value, str) else ""


def _is_count(value: Any, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, (list, tuple, dict)) else f"{type(value).__name__} of {len(value)}"
    return text if len(text) <= 80 else f"{text[:77]}..."
