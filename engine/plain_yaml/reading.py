"""Parses YAML from a file, an option or a request within limits, even if it is hostile.

Aliases can expand a small text into a large tree, and parsing a long one blocks its thread. So the
length is limited before parsing, and the size of the tree, with its aliases followed, before it is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from engine.errors import ConfigError
from engine.plain_yaml.values import PlainLoader

MAX_CHARS = 128 * 1024  # a camera takes about 300 characters, with all its keys 1500
MAX_NODES = 100_000
MAX_DEPTH = 50


def parsed_yaml(
    text: str | bytes, origin: str, max_chars: int = MAX_CHARS, *, expected: str = "a configuration"
) -> Any:
    """Return the plain values in `text`; bytes are UTF-8, or the encoding of their byte order mark.

    Args:
        text: one document.
        origin: what it is; begins each message.
        max_chars: longest text.
        expected: what it should be instead of something longer, deeper or larger.

    Raises:
        ConfigError: it is too long, is not YAML, or its aliases expand too far; the message begins with `origin`.
    """
    if len(text) > max_chars:
        raise ConfigError(f"{origin} has more than {max_chars // 1024} KiB: expected {expected}, shorten it")
    loader = None
    try:
        _check_depth(text, origin, expected)
        loader = PlainLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, origin, expected)
        return loader.construct_document(node)
    except ConfigError:
        raise
    except yaml.YAMLError as error:
        if "nesting depth" in str(error):  # the parser looks ahead, and has a limit too
            raise _too_deep(origin, expected) from error
        raise ConfigError(f"{origin} is not YAML: {_problem(error)}") from error
    except (ValueError, OverflowError, TypeError, AttributeError, RecursionError) as error:  # 2026-99-99, !!binary, ...
        raise ConfigError(f"{origin} holds a value that YAML cannot build ({error}): quote it") from error
    finally:
        if loader is not None:
            loader.dispose()


def read_bytes(path: Path) -> bytes:
    """Return the content of a configuration file; of one that is too long, only enough to detect that.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(MAX_CHARS + 1)


def _check_depth(text: str | bytes, origin: str, expected: str) -> None:
    """Raise `ConfigError` for deep nesting, because the composer recurses into it, in C without a limit."""
    depth = 0
    for event in yaml.parse(text, Loader=PlainLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _too_deep(origin, expected)


def _too_deep(origin: str, expected: str) -> ConfigError:
    return ConfigError(f"{origin} is nested deeper than {MAX_DEPTH} levels: expected {expected}")


def _check_size(root: yaml.Node, origin: str, expected: str) -> None:
    """Count the nodes as if every alias were written out. Raises `ConfigError`."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes:
            raise ConfigError(f"{origin} holds a value that contains itself: expected plain values")
        open_nodes.add(id(node))
        total = 1 + sum(size(child) for child in _children(node))
        open_nodes.discard(id(node))
        if total > MAX_NODES:
            raise ConfigError(f"{origin} has more than {MAX_NODES} values, aliases followed: expected {expected}")
        sizes[id(node)] = total
        return total

    size(root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"{place}{getattr(error, 'problem', None) or error}"
