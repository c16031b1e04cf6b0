"""Generates the documentation page that lists every field of every message, from `docs/schema/*.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schema"
KINDS = ("frame", "status", "event", "stats", "heartbeat", "eos", "image", "crop", "snapshot")
HEAD = """\
# Messages

Every field of every kind of message, generated from the JSON schemas in `docs/schema/`. [The wire](../wire.md) explains
topics, losses and versions. Fields marked with * are always present; the others are omitted if they have their default.
"""


def messages_page() -> str:
    """Return the page that describes all kinds of messages and the objects in them."""
    shared: dict[str, Any] = {}
    sections = [_kind(name, json.loads(path.read_text(encoding="utf-8")), shared) for name, path in _files()]
    objects = [_table(f"### `{name}`", definition) for name, definition in sorted(shared.items())]
    return HEAD + "".join(sections) + "\n## Objects inside\n" + "".join(objects)


def _files() -> Iterator[tuple[str, Path]]:
    """Yield the kinds with their schemas, the known ones first."""
    found = {path.name.partition(".")[0]: path for path in sorted(SCHEMAS.glob("*.schema.json"))}
    for name in [*(kind for kind in KINDS if kind in found), *(kind for kind in found if kind not in KINDS)]:
        yield name, found[name]


def _kind(name: str, schema: dict[str, Any], shared: dict[str, Any]) -> str:
    root = schema["$ref"].rpartition("/")[2]
    shared.update({key: value for key, value in schema["$defs"].items() if not key.endswith("Message")})
    return _table(f"## `{name}`", schema["$defs"][root])


def _table(heading: str, definition: dict[str, Any]) -> str:
    required = definition.get("required", [])
    rows = [
        f"| `{name}`{' *' if name in required else ''} | {type_of(field)} | {_text(field.get('description', ''))} |"
        for name, field in definition.get("properties", {}).items()
    ]
    table = "| field | type | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n" if rows else ""
    return f"\n{heading}\n\n{definition.get('description', '')}\n\n{table}"


def type_of(field: dict[str, Any]) -> str:
    """Return the type of a field as text for a table, with a link to objects described on the page.

    >>> type_of({"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4})
    'array of 4 number'
    >>> type_of({"anyOf": [{"$ref": "#/$defs/Rle"}, {"type": "null"}]})
    '[Rle](#rle) or null'
    """
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return name if name.endswith("Message") else f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(type_of(option) for option in field["anyOf"])
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        count = f"{field['minItems']} " if field.get("minItems") and field["minItems"] == field.get("maxItems") else ""
        return f"array of {count}{type_of(field.get('items', {}))}"
    inner = field.get("additionalProperties")
    if field.get("type") == "object" and isinstance(inner, dict):
        return f"object: name to {type_of(inner)}"
    return str(field.get("type", "any"))


def _text(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "&#124;")
