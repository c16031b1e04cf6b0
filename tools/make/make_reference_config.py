"""Write configs/reference.yaml: every key of the configuration with its default, bounds and meaning.

usage: python tools/make/make_reference_config.py [--check]
"""

from __future__ import annotations

import json
import sys
import types
import typing
from pathlib import Path
from typing import Any, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipelines.config.hints import section_of
from pipelines.config.models import Config

TARGET = Path(__file__).resolve().parents[2] / "configs" / "reference.yaml"
HEADER = """\
# Every key of the configuration with its default. Made by tools/make/make_reference_config.py.
# A run needs only `sources`; ${NAME} in any text is replaced with the environment variable NAME.
"""
REQUIRED = "required"
EXAMPLES = {"uri": "rtsp://user:${CAMERA_PASSWORD}@192.0.2.10/stream", "source_id": "gate"}


def main() -> int:
    """Write the file, or with --check report whether it is up to date."""
    text = reference()
    if "--check" in sys.argv:
        return 0 if TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


def reference() -> str:
    """Return the text of the reference configuration."""
    return HEADER + "\n".join(_section(Config, 0)) + "\n"


def _section(model: type[BaseModel], depth: int) -> list[str]:
    lines: list[str] = []
    for name, field in model.model_fields.items():
        inner, is_list = _model_of(field.annotation)
        lines += ["", f"# {field.description}"] if depth == 0 else [f"{'  ' * depth}# {_meaning(field)}"]
        if inner is None or (is_list and name != "sources"):
            lines.append(f"{'  ' * depth}{name}: {_value(name, field)}")
            lines += _optional(field, depth)
            continue
        lines.append(f"{'  ' * depth}{name}:")
        body = _section(inner, depth + (2 if is_list else 1))
        if is_list:  # the first key carries the dash
            body[0] = body[0].removeprefix("  ")
            body[1] = f"  - {body[1].strip()}"
        lines += body
    return lines


def _optional(field: FieldInfo, depth: int) -> list[str]:
    """Return the keys of a section that is absent by default, as comments."""
    inner = section_of(field.annotation)
    if inner is None:
        return []
    body = "\n".join(_section(inner, 1)).strip("\n").splitlines()
    return [f"{'  ' * depth}# keys, each with its default:", *(f"{'  ' * depth}#{line}" for line in body)]


def _model_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    is_list = typing.get_origin(annotation) is list
    inner = typing.get_args(annotation)[0] if is_list else annotation
    # in Python 3.10, list[str] is an instance of type as well
    if typing.get_origin(inner) is None and isinstance(inner, type) and issubclass(inner, BaseModel):
        return inner, is_list
    return None, False


def _meaning(field: FieldInfo) -> str:
    facts = [_choices(field.annotation), *(_bound(rule) for rule in field.metadata)]
    known = ", ".join(fact for fact in facts if fact)
    return f"{field.description}{f' ({known})' if known else ''}"


def _choices(annotation: Any) -> str:
    options = typing.get_args(annotation) if typing.get_origin(annotation) in (Union, types.UnionType) else [annotation]
    names = [
        str(name)
        for option in options
        if typing.get_origin(option) is typing.Literal
        for name in typing.get_args(option)
    ]
    return " | ".join(names)


def _bound(rule: Any) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return next((f"{sign} {getattr(rule, name)}" for name, sign in signs.items() if hasattr(rule, name)), "")


def _value(name: str, field: FieldInfo) -> str:
    if name in EXAMPLES and (field.is_required() or name == "source_id"):
        return json.dumps(EXAMPLES[name])
    if field.is_required():
        return json.dumps(REQUIRED)
    default = field.get_default(call_default_factory=True, validated_data={})
    return json.dumps(default)


if __name__ == "__main__":
    raise SystemExit(main())
