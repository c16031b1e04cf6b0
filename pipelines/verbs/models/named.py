"""`framewire models`: models by name."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json

models = typer.Typer(name="models", help="List models by name, and download one.", no_args_is_help=True)


@models.command(name="list")
def list_models(as_json: Json = False) -> None:
    """List the models available by name, with licence, size and measured scores. Opens no connection.

    mAP: on 128 COCO images. ms: per image on one thread, all measured in one run: compare their ratios.
    """
    from pipelines.models.named import listed, shown

    rows = listed()
    if as_json:
        console.result_json(rows)
        return
    console.show_rows("Models", shown(rows))
    for row in rows:
        how = f"export it: {row['export']}" if row["export"] else ""
        if text := "; ".join(part for part in (how, row["note"]) if part):
            console.result(f"{row['name']}: {text}")
    console.result('state: get = run "framewire models get NAME"; export = make the file with the command above')


@models.command(name="get")
def get_model(
    name: Annotated[str, typer.Argument(help="Name, as in: framewire models list")],
    given: Annotated[
        str | None, typer.Option("--from", help="File, folder or mirror to take it from; its hash is always checked")
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a model, verifying its SHA-256 and continuing where an earlier attempt stopped."""
    from pipelines.models.named import get

    with console.progress_bar(name) as progress:
        got = get(name, given=given, progress=progress)
    if as_json:
        console.result_json(got)
        return
    console.result(got["path"])
    console.say(f"{name}: {'fetched' if got['fetched'] else 'already there'}; {got['licence']}, by {got['origin']}")


@models.command(name="path")
def path_of_model(
    name: Annotated[str, typer.Argument(help="Name, as in: framewire models list")],
    as_json: Json = False,
) -> None:
    """Print the path of a model that is on this machine."""
    from pipelines.models.named import path_of

    place = path_of(name)
    console.show({"path": str(place)}, as_json=True) if as_json else console.result(str(place))
