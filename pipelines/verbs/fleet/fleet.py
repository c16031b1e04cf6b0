"""`framewire fleet`: many machines as one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines import console
from pipelines.verbs.options import Json

fleet = typer.Typer(
    name="fleet", help="Many machines as one: cameras placed, moved and owned exactly once.", no_args_is_help=True
)
Name = Annotated[str | None, typer.Option(help="Name of the fleet on this machine, if several run here")]
To = Annotated[str | None, typer.Option(help="Control address of its controller; otherwise found by --name")]
ASK_S = 10.0


def _ask(name: str | None, to: str | None, request: dict[str, Any]) -> dict[str, Any]:
    from pipelines.fleet.running.address import running_fleet
    from pipelines.running.control_client import ask

    return ask(to or running_fleet(name), request, ASK_S)


@fleet.command()
def up(
    config: Annotated[str, typer.Argument(help="YAML file of the fleet: fleet.yaml")],
    leave: Annotated[bool, typer.Option("--leave", help="At the end, leave the engines running")] = False,
    as_json: Json = False,
) -> None:
    """Run the controller: start engines, place cameras, and keep each on exactly one engine (Ctrl-C ends)."""
    from pipelines.fleet.config import load_fleet
    from pipelines.fleet.running.service import FleetService
    from pipelines.running.detect_and_publish import Interrupt

    service = FleetService(load_fleet(config), say=console.say)
    with Interrupt() as interrupt:
        try:
            console.say(service.opening_line())
            while not interrupt.requested:
                service.turn()
            last = service.controller.status()
        except BaseException:  # what runs must not depend on this process: the keeper renews the leases
            console.say("the controller failed; the engines continue: start it again")
            service.close(leave=True)
            raise
        service.close(leave=leave)
    states = [camera["state"] for camera in last["cameras"].values()]
    console.show(
        {"engines": len(last["engines"]), "cameras": len(states), "live": states.count("live")}, as_json=as_json
    )
    raise typer.Exit(interrupt.exit_code)


@fleet.command(hidden=True)
def keep(config: Annotated[str, typer.Argument(help="As the controller wrote it")]) -> None:
    """Renew the leases of a fleet while its controller is away; the controller starts this by itself."""
    from pipelines.fleet.config import load_fleet
    from pipelines.fleet.running.keeper import LeaseKeeper
    from pipelines.running.detect_and_publish import Interrupt

    keeper = LeaseKeeper(load_fleet(config))
    with Interrupt() as interrupt:
        keeper.run(lambda: bool(interrupt.requested))


@fleet.command()
def status(name: Name = None, to: To = None, as_json: Json = False) -> None:
    """Show engines and cameras: which engine owns which camera, in which epoch, and at what cost."""
    found = _ask(name, to, {"command": "status"})
    found.pop("ok", None)
    if as_json:
        console.result_json(found)
        return
    engines, cameras = found["engines"], found["cameras"]
    keys = ("state", "cameras", "load", "cpu_cores", "gpus", "site", "draining")
    console.show_rows("Engines", [{"engine": k, **{key: v[key] for key in keys}} for k, v in engines.items()])
    shown = ("engine", "epoch", "state", "cpu", "gpu", "why")
    console.show_rows("Cameras", [{"camera": k, **{key: v[key] for key in shown}} for k, v in cameras.items()])


@fleet.command()
def plan(name: Name = None, to: To = None, as_json: Json = False) -> None:
    """Show how many machines the cameras need, and why; an autoscaler reads it with --json."""
    found = _ask(name, to, {"command": "plan"})
    found.pop("ok", None)
    console.show(found, as_json=as_json)


@fleet.command()
def drain(
    node: Annotated[str, typer.Argument(help="Engine to drain")],
    undo: Annotated[bool, typer.Option("--undo", help="Let the machine have cameras again")] = False,
    name: Name = None,
    to: To = None,
) -> None:
    """Move all cameras off a machine, a few per minute, and assign it no others."""
    _say(_ask(name, to, {"command": "drain", "engine_id": node, "undo": undo}))


@fleet.command()
def move(
    camera: Annotated[str, typer.Argument(help="Camera to move")],
    node: Annotated[str, typer.Argument(help="Engine that should run it")],
    name: Name = None,
    to: To = None,
) -> None:
    """Move a camera: stop it where it runs, then start it on the other engine."""
    _say(_ask(name, to, {"command": "move", "source_id": camera, "engine_id": node}))


@fleet.command()
def roll(
    model: Annotated[str | None, typer.Argument(help="Model file, under the same path on every machine")] = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the roll in progress, and return to the old model")
    ] = False,
    canary: Annotated[
        list[str] | None, typer.Option(help="Camera that changes first; repeat; default: the first")
    ] = None,
    watch: Annotated[float, typer.Option(help="Seconds to observe the canary and each machine")] = 60.0,
    baseline: Annotated[int, typer.Option(help="Frames of the old model to compare with")] = 60,
    max_drift: Annotated[float, typer.Option(help="Largest drift (PSI) of classes and numbers of objects")] = 0.25,
    name: Name = None,
    to: To = None,
    as_json: Json = False,
) -> None:
    """Roll out a model to all machines: shadow, canary, then one machine after another, with automatic rollback.

    Without MODEL, show the progress of the roll. It continues without this command, and after a restart of the
    controller.
    """
    request: dict[str, Any] = {"command": "roll"}
    if stop:
        request["stop"] = True
    elif model is not None:
        request |= {"model": model, "canary": canary or [], "watch_s": watch, "baseline": baseline}
        request["max_drift"] = max_drift
    found = _ask(name, to, request)
    found.pop("ok", None)
    console.show(found if as_json else found["roll"] or {"roll": "there was none"}, as_json=as_json)


def _say(reply: dict[str, Any]) -> None:
    for line in reply["done"]:
        console.result(line)
