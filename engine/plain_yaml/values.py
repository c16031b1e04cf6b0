"""How YAML becomes plain values: no guessing and no sharing.

PyYAML follows YAML 1.1, in which `no` is false, `1:30` is 90 and a second key of one name replaces the first. Here `no`
stays text (a switch still accepts it), and a duplicate key is rejected with its line numbers.
Each alias becomes a copy, so that changing one camera never changes another. A number remembers how it was written,
so that a camera named `0x1F`, `1_000` or `1.10` keeps exactly that name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

MAX_VALUES = 100_000
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "tag:yaml.org,2002:merge"
_REPLACED = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp")


class WrittenInt(int):
    """A whole number whose text is the one that was written."""

    text: str

    def __str__(self) -> str:
        return self.text


class WrittenFloat(float):
    """A number whose text is the one that was written."""

    text: str

    def __str__(self) -> str:
        return self.text


class PlainLoader(_BASE):  # type: ignore[misc]  # the base is C where libyaml is there
    """Loads one document; every mistake raises a `yaml.YAMLError` with its position."""

    def get_single_node(self) -> yaml.Node | None:
        """Return the root of the document after checking it for duplicate keys."""
        root: yaml.Node | None = super().get_single_node()
        for node in _mappings(root):
            _refuse_doubled_keys(node)
        return root

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Resolve `<<`: the mapping's own keys win, even when it is merged into another one."""
        super().flatten_mapping(node)
        last = {key.value: index for index, (key, _) in enumerate(node.value) if isinstance(key, yaml.ScalarNode)}
        node.value = [pair for index, pair in enumerate(node.value) if last.get(pair[0].value, index) == index]

    def construct_document(self, node: yaml.Node) -> Any:
        """Return the plain values of a document; no list or table is shared."""
        return _Copier(node.start_mark).copied(super().construct_document(node))


def _install_resolvers() -> None:
    """Convert `true`, `false` and decimal, hexadecimal and octal (0o) numbers; keep all other words as text."""
    old = {first: list(rules) for first, rules in _BASE.yaml_implicit_resolvers.items()}
    kept = {first: [rule for rule in rules if rule[0] not in _REPLACED] for first, rules in old.items()}
    PlainLoader.yaml_implicit_resolvers = {first: rules for first, rules in kept.items() if rules}
    truth = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
    whole = re.compile(r"^(?:[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+|0o[0-7_]+)$")
    PlainLoader.add_implicit_resolver("tag:yaml.org,2002:bool", truth, list("tTfF"))
    PlainLoader.add_implicit_resolver("tag:yaml.org,2002:int", whole, list("-+0123456789"))


def _whole(loader: Any, node: yaml.ScalarNode) -> WrittenInt:
    number = WrittenInt(loader.construct_yaml_int(node))
    number.text = node.value
    return number


def _real(loader: Any, node: yaml.ScalarNode) -> WrittenFloat:
    number = WrittenFloat(loader.construct_yaml_float(node))
    number.text = node.value
    return number


_install_resolvers()
PlainLoader.add_constructor("tag:yaml.org,2002:int", _whole)
PlainLoader.add_constructor("tag:yaml.org,2002:float", _real)


def _mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """Yield every mapping once, even if several aliases point to it."""
    waiting, seen = [root] if root is not None else [], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [part for pair in node.value for part in pair]
        else:
            waiting += node.value


def _refuse_doubled_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            problem = f"{key.value!r} is written twice, first in line {lines[key.value]}: keep one of them"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        lines[key.value] = line


class _Copier:
    """Copies plain values so that no list or table is shared; bounded, because aliases can multiply."""

    def __init__(self, mark: Any) -> None:
        self._mark = mark
        self._left = MAX_VALUES
        self._open: set[int] = set()

    def copied(self, value: Any) -> Any:
        """Return the copy. Raises `yaml.YAMLError` if a value contains itself or grows too large."""
        self._left -= 1
        if self._left < 0 or id(value) in self._open:
            problem = "a value contains itself" if self._left >= 0 else f"more than {MAX_VALUES} values by its aliases"
            raise yaml.constructor.ConstructorError(None, None, problem, self._mark)
        if not isinstance(value, dict | list):
            return value
        self._open.add(id(value))
        result = (
            {key: self.copied(item) for key, item in value.items()}
            if isinstance(value, dict)
            else [self.copied(item) for item in value]
        )
        self._open.discard(id(value))
        return result
