"""`framewire init`: write a configuration for cameras that are named, discovered, or imported from Frigate."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import ConfigError, SinkError
from pipelines import console
from pipelines.verbs.options import named_source

if TYPE_CHECKING:
    from pipelines.machine.new_config import NewConfig

PASSWORD_VARIABLE = "FRAMEWIRE_CAMERA_PASSWORD"


def init(
    out: Annotated[str, typer.Option(help="File to write")] = "cameras.yaml",
    source: Annotated[list[str] | None, typer.Option(help="Address, or NAME=ADDRESS; repeat for several")] = None,
    model: Annotated[str | None, typer.Option(help="Model file; default: the embedded one")] = None,
    classes: Annotated[str | None, typer.Option(help="Classes to keep: person,car")] = None,
    metrics: Annotated[str | None, typer.Option(help="HOST:PORT of metrics and health")] = None,
    discover: Annotated[bool, typer.Option("--discover", help="Find ONVIF cameras and ask for their streams")] = False,
    user: Annotated[str, typer.Option(help="With --discover: account of the cameras")] = "admin",
    from_frigate: Annotated[str | None, typer.Option(help="Import Frigate's config.yml")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file")] = False,
) -> None:
    """Write a commented configuration, asking for missing values. Passwords go into a separate file."""
    from pipelines.machine.new_config import NewConfig, name_of

    if Path(out).exists() and not force:
        raise ConfigError(f"{out} exists: give another --out, or --force to replace it")
    if from_frigate is not None:
        from pipelines.machine.from_frigate import new_from_frigate

        new = new_from_frigate(from_frigate)
    else:
        new = NewConfig()
    for text in source or ():
        given = named_source(text)
        new.add(given.get("source_id") or name_of(given["uri"]), given["uri"])
    if discover:
        _discover(new, user)
    if not new.cameras and from_frigate is None:
        _ask(new)
    new.model = model or new.model
    new.classes = [name.strip() for name in classes.split(",")] if classes else new.classes
    new.metrics = metrics or new.metrics
    _write(new, Path(out))


def _ask(new: NewConfig) -> None:
    """Ask for cameras and a model on the terminal."""
    from pipelines.machine.new_config import name_of

    if not sys.stdin.isatty():
        raise ConfigError("no camera given: use --source rtsp://..., --discover, or --from-frigate config.yml")
    while True:
        uri = typer.prompt(
            "Address of a camera (rtsp://..., a file, 0 for a webcam; empty: no more)", default=""
        ).strip()
        if not uri:
            break
        new.add(typer.prompt("Its name", default=name_of(uri)), uri)
    new.model = typer.prompt("Model file (demo: the embedded one)", default="demo").strip()


def _discover(new: NewConfig, user: str) -> None:
    from engine.errors import SourceError
    from engine.sources.discover import discover_cameras, streams_of
    from pipelines.machine.new_config import with_login

    cameras = discover_cameras()
    console.say(f"{len(cameras)} ONVIF cameras answered")
    password = os.environ.get(PASSWORD_VARIABLE) or typer.prompt(f"Password of {user}", hide_input=True)
    for camera in cameras:
        try:
            streams = streams_of(camera, user, password)
        except SourceError as error:
            new.notes.append(f"{camera.host} ({camera.name or 'no name'}): {error}")
            continue
        if not streams:
            new.notes.append(f"{camera.host}: it offers no RTSP stream")
            continue
        small = min(streams, key=lambda stream: abs(stream.width - 640))  # the smallest stream is enough for detection
        name = camera.name or camera.host.replace(".", "_")
        name = name if all(name != other.name for other in new.cameras) else f"{name}_{camera.host.replace('.', '_')}"
        sizes = [f"{s.profile}: {s.width}x{s.height} {s.encoding}" for s in streams]
        new.add(name, with_login(small.uri, user, password), notes=[f"streams: {'; '.join(sizes)}"])


def _write(new: NewConfig, path: Path) -> None:
    """Write the configuration, and the passwords into a file that only this user may read."""
    from pipelines.config.versions import CURRENT
    from pipelines.machine.new_config import config_text, secrets_text

    env = path.with_suffix(".env")
    try:
        path.write_text(config_text(new, CURRENT), encoding="utf-8")
        if new.secrets:
            with os.fdopen(os.open(env, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(secrets_text(new.secrets))
    except OSError as error:
        raise SinkError(f"cannot write {error.filename}: {error.strerror}") from error
    for note in new.notes:
        console.result(f"note: {note}")
    console.result(f"wrote {path}: {', '.join(camera.name for camera in new.cameras) or 'no cameras'}")
    load = f"set -a; . ./{env}; set +a; " if new.secrets else ""
    console.result(f"next: {load}framewire check {path} && framewire run {path}")
