"""Reads the short YAML files of data sets and projects, with a size limit; `no`, `1:30` and `0x1F` stay text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from engine.plain_yaml.reading import parsed_yaml

MAX_BYTES = 1 << 20


def yaml_file(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """Return the plain values of a file.

    Raises:
        ConfigError: it cannot be read, is longer than `max_bytes`, or is not YAML.
    """
    try:
        with path.open("rb") as file:
            text = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(text) > max_bytes:
        raise ConfigError(f"{path}: larger than {max_bytes / 2**20:g} MiB: is it the right file?")
    return parsed_yaml(text, str(path), max_bytes)


def class_names(value: Any, origin: str) -> list[str]:
    """Return class names from a list, or from a table numbered from 0; a name that is a number is kept as written.

    Raises:
        ConfigError: it is neither, or a name is missing or is not text; the message begins with `origin`.
    """
    if isinstance(value, dict):
        if set(value) != set(range(len(value))):
            raise ConfigError(f"{origin}: expected a list of class names, or all of them by number from 0")
        value = [value[number] for number in range(len(value))]
    if not isinstance(value, list):
        raise ConfigError(f"{origin}: expected a list of class names, or all of them by number from 0")
    for name in value:
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise ConfigError(f"{origin}: {name!r} is not a class name: write it in quotes")
    return [str(name) for name in value]
