"""Command-line options shared by several verbs."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from engine.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable line, the last on stdout")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Any key: detector.iou_threshold=0.5")]


Metrics = Annotated[str | None, typer.Option(help="HOST:PORT of Prometheus metrics and health probes")]
Web = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Serve a page with live video: 127.0.0.1:8080")]
ModelSettings = Annotated[list[str] | None, typer.Option("--set", help="Facts missing from the file: head=yolov5")]
TOLD = ("size", "names", "head", "color", "mean", "std", "letterbox")
"""Keys of `detector:` that define how to read a model file."""


def told_of_model(settings: list[str] | None) -> dict[str, Any]:
    """Return the checked keys of `detector:` that were given, as arguments of `inspect_model`.

    Raises:
        ConfigError: an unknown key, or one that does not concern the file.
    """
    from pipelines.config.file import load_config

    config = load_config(None, {}, [f"detector.{text}" for text in settings or []])
    options = config.detector.model_dump(exclude_unset=True)
    foreign = options.keys() - set(TOLD)
    if foreign:
        raise ConfigError(f"--set {min(foreign)}: expected a key that defines how to read the file: {', '.join(TOLD)}")
    return options


def named_source(text: str) -> dict[str, str]:
    """Split `NAME=URI`; ignores an equals sign inside a URI, a path or the name of an existing file."""
    if os.path.lexists(text):
        return {"uri": text}
    name, sign, uri = text.partition("=")
    is_name = not any(mark in name for mark in "/:?~") and not name.startswith(".")
    if sign and uri and is_name and ("." not in name or "://" in uri or os.path.lexists(uri)):
        return {"source_id": _utf8(name), "uri": uri}
    return {"uri": text}


def place_points(text: str) -> tuple[str, list[tuple[float, float]]]:
    """Return the name and points of `NAME=x,y,x,y,…`. Raises `ConfigError`.

    >>> place_points("door=0.5,1,0.5,0")
    ('door', [(0.5, 1.0), (0.5, 0.0)])
    """
    name, _, values = text.rpartition("=")
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        numbers = []
    if not name or not numbers or len(numbers) % 2:
        raise ConfigError(f"{text!r}: expected NAME=x,y,x,y,… with an even number of values")
    return name, list(zip(numbers[::2], numbers[1::2], strict=True))


def size_of(text: str) -> tuple[int, int]:
    """Return the width and height of `WxH`. Raises `ConfigError`.

    >>> size_of("640x480")
    (640, 480)
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ConfigError(f"size {text!r}: expected width and height in pixels, as 1920x1080")
    return int(width), int(height)


def _utf8(text: str) -> str:
    """Return a command-line word as UTF-8, even if the locale decoded it differently (`LC_ALL=C`)."""
    try:
        return text.encode("ascii", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return text


def class_of(name: str) -> str | int:
    """Return a class as given on the command line: a number if it is one, else a name."""
    return int(name) if name.strip().isdigit() else name.strip()


def client_keys(server_key: str | None, keys: str | None) -> dict[str, Any]:
    """Read the keys of a client from their files and return them as keyword arguments."""
    from engine.transport.keys import load_key_pair, load_public_key

    return {
        "server_key": load_public_key(server_key) if server_key else None,
        "keys": load_key_pair(keys) if keys else None,
    }
