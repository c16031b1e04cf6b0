"""Versions of the configuration file: an older one is read as intended, and can be rewritten with its comments."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from engine.errors import ConfigError

logger = logging.getLogger(__name__)
CURRENT = 1
KEY = "version"
_LINE = re.compile(r"^version:[ \t]*[^\s#]*", re.M)


@dataclass(frozen=True, slots=True)
class Rename:
    """A key that has another name from the next version on.

    Attributes:
        path: dotted path of the key in the older version; `*` stands for every element of a list or every key.
        name: its new name.
    """

    path: str
    name: str


MIGRATIONS: Mapping[int, Sequence[Rename]] = {}
"""Changes from each version to the next one. None so far: keys have only been added since version 1."""


def version_of(tree: Mapping[str, Any], origin: str) -> int:
    """Return the version of a configuration; if it states none, it is version 1.

    Raises:
        ConfigError: it is not a version, or belongs to a newer framewire.
    """
    version = tree.get(KEY, 1)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ConfigError(f"{origin}: version: expected a number from 1 to {CURRENT} (found {version!r})")
    if version > CURRENT:
        raise ConfigError(
            f"{origin}: it has version {version}, and this framewire reads up to {CURRENT}: "
            "pip install --upgrade framewire"
        )
    return version


def upgraded(
    tree: dict[str, Any],
    origin: str,
    migrations: Mapping[int, Sequence[Rename]] | None = None,
    current: int = CURRENT,
) -> dict[str, Any]:
    """Convert a configuration to the current version."""
    version = version_of(tree, origin) if current == CURRENT else int(tree.get(KEY, 1))
    for step in _steps(version, current, migrations):
        for node, key in _places(tree, step.path.split(".")):
            logger.warning("%s: %s is now named %s: framewire config migrate rewrites the file", origin, key, step.name)
            node.setdefault(step.name, node.pop(key))
    return {**tree, KEY: current}


def migrated(text: str, migrations: Mapping[int, Sequence[Rename]] | None = None, current: int = CURRENT) -> str:
    """Return the text of a configuration rewritten for the current version; comments and order stay.

    Raises:
        ConfigError: it is not a configuration.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"it is not YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError("it holds no keys: expected a configuration")
    version = next((int(v.value) for k, v in root.value if k.value == KEY and v.value.isdigit()), 1)
    edits = [
        (key.start_mark.index, key.end_mark.index, step.name)
        for step in _steps(version, current, migrations)
        for key in _keys(root, step.path.split("."))
    ]
    for start, end, name in sorted(edits, reverse=True):
        text = text[:start] + name + text[end:]
    return _with_version(text, current)


def diff(old: str, new: str, name: str) -> str:
    """Return the differences as a unified diff; empty if there are none."""
    lines = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), name, f"{name} (new)")
    return "".join(lines)


def _steps(version: int, current: int, migrations: Mapping[int, Sequence[Rename]] | None) -> list[Rename]:
    chosen = MIGRATIONS if migrations is None else migrations
    return [step for number in range(version, current) for step in chosen.get(number, ())]


def _with_version(text: str, current: int) -> str:
    if _LINE.search(text):
        return _LINE.sub(f"version: {current}", text, count=1)
    lines = text.splitlines(keepends=True)
    at = next(
        (n for n, line in enumerate(lines) if line.strip() and not line.startswith(("#", "---", "%"))), len(lines)
    )
    return "".join([*lines[:at], f"version: {current}\n", *lines[at:]])


def _places(tree: Any, path: Sequence[str]) -> list[tuple[dict[str, Any], str]]:
    """Return the tables that hold the last key of a path, with that key."""
    head, *rest = path
    if not rest:
        return [(tree, head)] if isinstance(tree, dict) and head in tree else []
    if isinstance(tree, dict):
        inner = list(tree.values()) if head == "*" else [tree.get(head)]
    else:
        inner = tree if isinstance(tree, list) and head == "*" else []
    return [place for node in inner for place in _places(node, rest)]


def _keys(node: yaml.Node, path: Sequence[str]) -> list[yaml.ScalarNode]:
    """Return the nodes of the keys that a path names."""
    head, *rest = path
    if isinstance(node, yaml.SequenceNode):
        return [key for item in node.value for key in _keys(item, rest)] if head == "*" else []
    if not isinstance(node, yaml.MappingNode):
        return []
    if not rest:
        return [key for key, _ in node.value if key.value == head]
    return [found for key, value in node.value if head in ("*", key.value) for found in _keys(value, rest)]
