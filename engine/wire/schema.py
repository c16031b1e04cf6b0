"""Machine-readable files of the wire: a JSON Schema per kind and one AsyncAPI document, generated from the types."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec

from engine.wire.messages import MESSAGE_TYPES, TOPIC_KINDS
from engine.wire.version import MAJOR, MINOR, TOPIC_ROOT

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ASYNCAPI = "3.0.0"
_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n {8,}\S.*)*)", re.MULTILINE)


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return a JSON Schema by kind; unknown fields are allowed, because readers must ignore them."""
    return {kind: _json_schema(kind, message_type) for kind, message_type in MESSAGE_TYPES.items()}


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI document: one channel per kind, its topic, and the schema of its body."""
    schemas = {kind: schema for kind, schema in json_schemas().items() if kind in TOPIC_KINDS}
    components: dict[str, Any] = {}
    for schema in schemas.values():
        components.update(schema["$defs"])
    document: dict[str, Any] = _moved(
        {
            "asyncapi": ASYNCAPI,
            "info": {
                "title": "Framewire detection stream",
                "version": f"{MAJOR}.{MINOR}",
                "description": "ZeroMQ PUB; each message is two parts, topic and body. See docs/wire.md.",
            },
            "defaultContentType": "application/json",
            "servers": {"engine": {"host": "127.0.0.1:5555", "protocol": "zmq", "description": "PUB, default bind"}},
            "channels": {kind: _channel(kind, schemas[kind]) for kind in schemas},
            "operations": {
                f"receive_{kind}": {"action": "receive", "channel": {"$ref": f"#/channels/{kind}"}} for kind in schemas
            },
            "components": {"schemas": components},
        }
    )
    return document


def _json_schema(kind: str, message_type: type[Any]) -> dict[str, Any]:
    (reference,), components = msgspec.json.schema_components([message_type], ref_template="#/$defs/{name}")
    for name, component in components.items():
        _describe(component, _struct_named(name))
    name = message_type.__name__
    own = components[name]
    own["properties"]["schema"] = {
        "type": "string",
        "pattern": rf"^framewire\.{kind}/{MAJOR}\.\d+$",
        "description": "name and version of this message",
    }
    own["required"] = ["schema", *(name for name in own["required"] if name != "schema")]
    own["properties"].pop("jpeg", None)  # the third part, not in the body
    title = f"framewire.{kind}/{MAJOR}.{MINOR}"
    return {
        "$schema": DIALECT,
        "$id": f"urn:{title.replace('/', ':')}",
        "title": title,
        **reference,
        "$defs": components,
    }


def _struct_named(name: str) -> type[Any]:
    from engine.wire import messages, objects, scene

    struct: type[Any] = getattr(messages, name, None) or getattr(scene, name, None) or getattr(objects, name)
    return struct


def _describe(component: dict[str, Any], struct: type[Any]) -> None:
    """Copy the docstring's first line and the attributes' descriptions to where readers of the schema see them."""
    component["description"] = (inspect.getdoc(struct) or "").partition("\n")[0]
    text = "\n".join(inspect.getdoc(each) or "" for each in struct.__mro__ if issubclass(each, msgspec.Struct))
    for name, description in _ATTRIBUTE.findall(text):
        if name in component["properties"]:
            component["properties"][name]["description"] = " ".join(description.split()).rstrip(".")


def _channel(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    owner = "engine_id" if kind == "heartbeat" else "source_id"
    return {
        "address": f"{TOPIC_ROOT}/{kind}/{{{owner}}}/",
        "title": schema["title"],
        "description": schema["$defs"][schema["$ref"].rpartition("/")[2]]["description"],
        "parameters": {owner: {"description": "percent-encoded if it has a slash, percent sign or control character"}},
        "messages": {kind: {"name": schema["title"], "payload": {"$ref": schema["$ref"]}}},
    }


def _moved(node: Any) -> Any:
    """Return the same document with references into the components of AsyncAPI."""
    if isinstance(node, dict):
        return {key: _moved(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(value) for value in node]
    if isinstance(node, str) and node.startswith("#/$defs/"):
        return node.replace("#/$defs/", "#/components/schemas/")
    return node
