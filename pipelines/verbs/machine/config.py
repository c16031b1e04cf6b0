"""`framewire config`: versions of a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.errors import ConfigError, SinkError
from pipelines import console

config = typer.Typer(name="config", help="Update a configuration file to the current version.", no_args_is_help=True)


@config.callback()
def _group() -> None:
    """Update a configuration file to the current version."""


@config.command()
def migrate(
    file: Annotated[str, typer.Argument(help="YAML file")],
    write: Annotated[bool, typer.Option("--write", help="Rewrite the file; the old one is kept as FILE.bak")] = False,
) -> None:
    """Show what changes in a file for this version of framewire, or rewrite it; comments and order stay."""
    from pipelines.config.file import load_config
    from pipelines.config.versions import diff, migrated

    path = Path(file)
    try:
        old = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}): give a YAML file") from error
    load_config(file, {})  # a file with mistakes is rejected before it is rewritten
    new = migrated(old)
    changes = diff(old, new, file)
    console.result(changes.rstrip("\n") or f"{file} is up to date")
    if not changes or not write:
        return
    try:
        path.with_name(path.name + ".bak").write_text(old, encoding="utf-8")
        path.write_text(new, encoding="utf-8")
    except OSError as error:
        raise SinkError(f"cannot write {file}: {error.strerror}") from error
    console.result(f"rewrote {file}; the old file is {file}.bak")
