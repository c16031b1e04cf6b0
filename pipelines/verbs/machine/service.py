"""`framewire service`: run a configuration as a systemd service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json

service = typer.Typer(name="service", help="Run a configuration as a systemd service.", no_args_is_help=True)
Name = Annotated[str, typer.Option(help="Name of the service")]
Folder = Annotated[str, typer.Option(help="Folder of the units")]
FOLDER = "/etc/systemd/system"


@service.command()
def install(
    config: Annotated[str, typer.Argument(help="YAML file, such as /etc/framewire/cameras.yaml")],
    name: Name = "framewire",
    user: Annotated[str | None, typer.Option(help="Account to run as; by default systemd allocates one")] = None,
    cameras: Annotated[bool, typer.Option("--cameras", help="Let it use cameras at /dev/video*")] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="Let it use GPUs")] = False,
    print_: Annotated[bool, typer.Option("--print", help="Print the unit and write nothing")] = False,
    folder: Folder = FOLDER,
) -> None:
    """Write a hardened unit with a watchdog, and start it."""
    from pipelines.config.file import load_config
    from pipelines.machine.service import install as install_unit
    from pipelines.machine.service import options_of
    from pipelines.machine.unit import unit_text

    devices = [kind for kind, wanted in (("video", cameras), ("gpu", gpu)) if wanted]
    options = options_of(config, load_config(config, {}), name=name, user=user, devices=devices)
    if print_:
        console.result(unit_text(options).rstrip("\n"))
        return
    for line in install_unit(options, Path(folder)):
        console.result(line)


@service.command()
def status(name: Name = "framewire", folder: Folder = FOLDER, as_json: Json = False) -> None:
    """Show what systemd says about the service; exit code 0 if it is installed."""
    from pipelines.machine.service import status as status_of

    facts = status_of(name, Path(folder))
    console.show(facts, as_json=as_json)
    raise typer.Exit(0 if facts["installed"] else 1)


@service.command()
def uninstall(name: Name = "framewire", folder: Folder = FOLDER) -> None:
    """Stop the service and remove its unit; its data stays."""
    from pipelines.machine.service import uninstall as uninstall_unit

    for line in uninstall_unit(name, Path(folder)):
        console.result(line)
