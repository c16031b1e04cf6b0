"""The schema files are generated from the types, up to date, and match what is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.wire import MESSAGE_TYPES, TOPIC_KINDS, encode
from engine.wire.schema import asyncapi, json_schemas
from tests.wire.samples import SAMPLES

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "schema"
KINDS = sorted(MESSAGE_TYPES)


@pytest.mark.parametrize("kind", KINDS)
def test_schema_files_are_up_to_date(kind: str) -> None:
    written = json.loads((FOLDER / f"{kind}.schema.json").read_text())
    assert written == json_schemas()[kind], "run tools/make/make_wire_schema.py and review the diff"


def test_the_asyncapi_file_is_up_to_date() -> None:
    assert yaml.safe_load((FOLDER / "asyncapi.yaml").read_text()) == asyncapi(), "run tools/make/make_wire_schema.py"


def test_every_field_is_described() -> None:
    for schema in json_schemas().values():
        for component in schema["$defs"].values():
            missing = [name for name, field in component["properties"].items() if "description" not in field]
            assert missing == [] or component["title"] == "ClassScore"


@pytest.mark.parametrize("kind", KINDS)
def test_messages_fit_their_schema_and_broken_ones_do_not(kind: str) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
    validator = jsonschema.Draft202012Validator(json_schemas()[kind])
    body: dict[str, Any] = json.loads(encode(SAMPLES[kind]))
    validator.validate(body)
    validator.validate({**body, "a_later_field": 1, "schema": f"framewire.{kind}/1.9"})
    for wrong in ({**body, "schema": f"framewire.{kind}/2.0"}, {**body, "seq": "7"}, {**body, "seq": -1}, {}):
        assert not validator.is_valid(wrong)


def test_every_reference_in_the_asyncapi_file_leads_somewhere() -> None:
    document = asyncapi()
    assert list(document["channels"]) == list(TOPIC_KINDS)
    for reference in _references(document):
        node: Any = document
        for key in reference.removeprefix("#/").split("/"):
            node = node[key]


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for value in node for found in _references(value)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if "$ref" in node else []
    return own + [found for value in node.values() for found in _references(value)]
