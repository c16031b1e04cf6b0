"""`framewire release` and `framewire deploy`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines import console
from pipelines.verbs.options import Json, client_keys

EXIT_REFUSED = 1


def release(
    model: Annotated[str, typer.Argument(help="ONNX file, or the folder of a run")],
    data: Annotated[str, typer.Argument(help="Data set whose test part is locked by hash")],
    licence: Annotated[str, typer.Option(help="Of the model, such as Apache-2.0; a base has its own")],
    out: Annotated[str, typer.Option(help="Folder of the numbered releases")] = "releases",
    gate: Annotated[str | None, typer.Option(help="YAML of conditions; default: no worse than the last")] = None,
    against: Annotated[
        str | None, typer.Option(help="Model in use, by file or name: the one to beat until there is a release")
    ] = None,
    strengths: Annotated[str, typer.Option(help="Strengths of corruptions, if the gate has conditions on them")] = "3",
    as_json: Json = False,
) -> None:
    """Test a model on the locked test set and release it with a model card, unless a condition fails."""
    from pipelines.learning.release.release import ReleaseRequest
    from pipelines.learning.release.release import release as release_model
    from pipelines.learning.testing.corruptions import parse_strengths

    steps = tuple(parse_strengths(strengths))
    place = None if gate is None else Path(gate)
    request = ReleaseRequest(Path(model), Path(data), Path(out), licence, place, against, steps)
    with console.progress_bar("images") as progress:
        result = release_model(request, progress)
    if as_json:
        console.result_json(result)
    else:
        console.show({key: result[key] for key in ("model", "released", "folder") if key in result}, as_json=False)
        console.show_rows("Gate", result["checks"])
    if not result["released"]:
        raise typer.Exit(EXIT_REFUSED)


def deploy(
    model: Annotated[str, typer.Argument(help="Model file or release; the engine must be able to read it")],
    stream: Annotated[str, typer.Option(help="Where the engine publishes")] = "tcp://127.0.0.1:5555",
    to: Annotated[
        str | None,
        typer.Option(
            help="Control address of the engine, optional if only one run is active; docker: a folder for an image "
            "that serves the model; triton: a model repository"
        ),
    ] = None,
    canary: Annotated[
        list[str] | None, typer.Option(help="Source that changes first; repeat; default: the first")
    ] = None,
    watch: Annotated[float, typer.Option(help="Seconds to observe the canary")] = 60.0,
    baseline: Annotated[int, typer.Option(help="Frames of the old model to compare with")] = 60,
    max_drift: Annotated[float, typer.Option(help="Largest drift (PSI) of classes and numbers of objects")] = 0.25,
    shadow: Annotated[bool, typer.Option("--shadow", help="Trial only: the old model always comes back")] = False,
    out: Annotated[str | None, typer.Option(help="docker, triton: folder to write; default: the target's name")] = None,
    name: Annotated[
        str | None, typer.Option(help="docker, triton: name of the model; default: that of its file")
    ] = None,
    server_key: Annotated[str | None, typer.Option(help="File NAME.key of a run that encrypts its control")] = None,
    keys: Annotated[str | None, typer.Option(help="Your file NAME.key_secret, whose public key the run lists")] = None,
    as_json: Json = False,
) -> None:
    """Deploy a model to a running engine: to some sources first, under observation, with automatic rollback.

    Or write a folder for other programs to run: --to docker, --to triton.
    """
    from pipelines.learning.release.deploy import DeployRequest
    from pipelines.learning.release.deploy import deploy as deploy_model
    from pipelines.learning.release.package import TARGETS, package

    if to in TARGETS:
        console.show(package(Path(model), to, Path(out or to), name), as_json=as_json)
        return
    if out is not None or name is not None:
        raise typer.BadParameter("--out and --name require --to docker or --to triton")
    wanted = DeployRequest(Path(model), stream, tuple(canary or ()), watch, baseline, max_drift, shadow)
    result = deploy_model(wanted, _asking(to, server_key, keys), console.say)
    console.show(result, as_json=as_json)
    if not result["passed"]:
        raise typer.Exit(EXIT_REFUSED)


def _asking(to: str | None, server_key: str | None, keys: str | None) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function that sends one request to the control socket. Raises `ConfigError` if there is none."""
    from pipelines.running.control import ask
    from pipelines.running.control_access import find_run

    address, curve = to or find_run(option="--to").address, client_keys(server_key, keys)
    return lambda values: ask(address, values, 30.0, **curve)
