"""Writes a commented configuration for a set of cameras, one that `framewire check` accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from engine.errors import ConfigError

_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_VARIABLE = re.compile(r"[^A-Z0-9]+")
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
_NO_TEXT = ("null", "true", "false", "yes", "no", "on", "off", "none", "y", "n", "~")


@dataclass(slots=True)
class NewCamera:
    """A camera to write.

    Attributes:
        name: its `source_id`.
        uri: its address; passwords are variables.
        keys: further keys of the source, as plain values.
        notes: comments above it.
    """

    name: str
    uri: str
    keys: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class NewConfig:
    """A configuration to write.

    Attributes:
        cameras: in their order.
        model: model file, or `demo`.
        classes: names of the classes to keep; None: all.
        metrics: address of the metrics; None: leave it as a comment.
        secrets: passwords by the name of their variable.
        notes: what could not be converted, for people.
    """

    cameras: list[NewCamera] = field(default_factory=list)
    model: str = "demo"
    classes: list[str] | None = None
    metrics: str | None = None
    secrets: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(
        self, name: str, uri: str, *, keys: Mapping[str, Any] | None = None, notes: Iterable[str] = ()
    ) -> NewCamera:
        """Add a camera; a password in its address becomes a variable.

        Raises:
            ConfigError: a camera with this name exists.
        """
        name = _NAME.sub("_", name).strip("_") or f"camera{len(self.cameras)}"
        if any(camera.name == name for camera in self.cameras):
            raise ConfigError(f"two cameras are named {name}: give each its own, as NAME=ADDRESS")
        camera = NewCamera(name, self.without_password(name, uri), dict(keys or {}), list(notes))
        self.cameras.append(camera)
        return camera

    def without_password(self, name: str, uri: str) -> str:
        """Return an address with its password replaced by an environment variable, and store the password."""
        parts = urlsplit(uri) if "://" in uri else None
        if parts is None or not parts.password or parts.password.startswith("${"):
            return uri
        variable = f"{_VARIABLE.sub('_', name.upper()).strip('_') or 'CAMERA'}_PASSWORD"
        self.secrets[variable] = quote(unquote(parts.password), safe="")  # safe in an address and in a shell
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{parts.username}:${{{variable}}}@{host}"))


def config_text(new: NewConfig, version: int) -> str:
    """Return the YAML, with comments that describe further options."""
    lines = [
        "# Written by framewire init. Try it: framewire check FILE, then framewire run FILE",
        "# Every key with its meaning is in configs/reference.yaml and in the documentation.",
        *(f"# {note}" for note in new.notes),
        f"version: {version}",
        "sources:" if new.cameras else "sources: [] # cameras can be added while it runs: framewire ctl",
    ]
    for camera in new.cameras:
        lines += [f"  # {note}" for note in camera.notes]
        lines.append(f"  - uri: {scalar(camera.uri)}")
        lines.append(f"    source_id: {scalar(camera.name)}")
        lines += [f"    {key}: {flow(value)}" for key, value in camera.keys.items()]
        if "zones" not in camera.keys:
            lines.append("    # zones: {yard: {points: [[0.1, 0.4], [0.9, 0.4], [0.9, 1.0], [0.1, 1.0]]}}")
        if "record" not in camera.keys:
            lines.append("    # record: {folder: recordings, max_mb: 20000} # without decoding; its own connection")
    lines += ["detector:", f"  model: {scalar(new.model)}{_about_model(new.model)}"]
    lines.append(f"  classes: {flow(new.classes)}" if new.classes else "  # classes: [person, car] # null: all")
    lines += [
        "# rules: [{name: intruder, kind: presence, zone: yard, for_s: 2, severity: alert}] # see docs/analytics.md",
        "pipeline:",
        "  on_inference_error: restart # load the model again if it fails, rather than stop",
        "# publish: {address: tcp://127.0.0.1:5555} # where results are read; framewire subscribe shows them",
    ]
    metrics = "metrics: {address: " + (new.metrics or "127.0.0.1:9464") + "} # Prometheus and health"
    lines.append(metrics if new.metrics else f"# {metrics}; pip install framewire[metrics]")
    return "\n".join(lines) + "\n"


def _about_model(model: str) -> str:
    return " # the embedded one, for trying things out; put your own file here" if model == "demo" else ""


def secrets_text(secrets: Mapping[str, str]) -> str:
    """Return the environment file, as systemd and Docker read it."""
    return "".join(f"{name}={value}\n" for name, value in secrets.items())


def scalar(value: Any) -> str:
    """Return a value as YAML in one line.

    >>> scalar("rtsp://a/b#c"), scalar("gate"), scalar("no"), scalar(3)
    ('"rtsp://a/b#c"', 'gate', '"no"', '3')
    """
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _NO_TEXT
        return value if plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def flow(value: Any) -> str:
    """Return plain values as YAML in flow style.

    >>> flow({"yard": {"points": [[0, 0.5], [1, 1]], "classes": ["person"]}})
    '{yard: {points: [[0, 0.5], [1, 1]], classes: [person]}}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def with_login(uri: str, user: str, password: str) -> str:
    """Return an address with user and password.

    >>> with_login("rtsp://10.0.0.7:554/s", "admin", "p@ss")
    'rtsp://admin:p%40ss@10.0.0.7:554/s'
    """
    parts = urlsplit(uri)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))


def name_of(uri: str) -> str:
    """Return a name for an unnamed camera: its host, or the stem of its file."""
    parts = urlsplit(uri)
    stem = unquote(parts.path or uri).rstrip("/").rpartition("/")[2].partition(".")[0]
    return (parts.hostname or stem or "camera").replace(".", "_")
