"""Reads label files of others within limits: of their size, and of the memory that their content would take."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from engine.errors import ConfigError

MAX_JSON_BYTES = 1 << 30
MAX_XML_BYTES = 256 << 20
MAX_IMAGE_BYTES = 4 << 20
"""Of the labels of one image."""
MAX_MEMORY_BYTES = 4 << 30
"""Estimated, of all values of a file. The values of a COCO file take about twice its size, those of a file made for
the purpose forty times."""
MAX_COORDINATE = 1e9
"""In pixels, or as a fraction: sums and products of two stay finite in float32."""
_JSON_COSTS = ((b"{", 240), (b"[", 96), (b",", 40), (b'"', 30))
_XML_COSTS = ((b"<", 120), (b"=", 90))
"""Bytes of memory for each of these characters, at least what CPython was measured to take."""


def is_coordinate(value: float) -> bool:
    """Return whether a number can be a coordinate or a size.

    >>> is_coordinate(-3.5), is_coordinate(1e308), is_coordinate(float("nan"))
    (True, False, False)
    """
    return abs(value) <= MAX_COORDINATE


def text_of(path: Path, most: int = MAX_IMAGE_BYTES) -> str:
    """Return the text of a label file. Raises `ConfigError` if it is larger than `most` bytes or not UTF-8."""
    content = _bytes_of(path, most)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text: save it as UTF-8") from error


def json_of(path: Path) -> Any:
    """Return the content of a JSON file. Raises `ConfigError`, also if its values would take too much memory."""
    content = _bytes_of(path, MAX_JSON_BYTES)
    _check_memory(path, content, _JSON_COSTS)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error


def xml_of(path: Path, most: int = MAX_XML_BYTES) -> ElementTree.Element:
    """Return the root of an XML file; one that declares entities is rejected. Raises `ConfigError` like `json_of`."""
    content = _bytes_of(path, most)
    if b"\0" in content:  # UTF-16, in which the words below are spelled differently
        raise ConfigError(f"{path}: not UTF-8 text: save it as UTF-8")
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ConfigError(f"{path}: declares a document type or entities, which no label file needs: remove that")
    _check_memory(path, content, _XML_COSTS)
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ConfigError(f"{path}: not XML: {error}") from error


def _bytes_of(path: Path, most: int) -> bytes:
    """Return the content of a file; one that is too large is refused before it takes memory."""
    try:
        with path.open("rb") as file:
            is_small = os.fstat(file.fileno()).st_size <= most
            content = file.read(most + 1) if is_small else b""
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not is_small or len(content) > most:
        remedy = "is it the right file?" if most <= MAX_IMAGE_BYTES else "split it"
        raise ConfigError(f"{path}: larger than {most >> 20} MiB: {remedy}")
    return content


def _check_memory(path: Path, content: bytes, costs: tuple[tuple[bytes, int], ...]) -> None:
    estimate = sum(content.count(character) * cost for character, cost in costs)
    if estimate > MAX_MEMORY_BYTES:
        raise ConfigError(
            f"{path}: its values would take {estimate / 2**30:.1f} GiB of memory, "
            f"more than {MAX_MEMORY_BYTES >> 30}: split it"
        )
