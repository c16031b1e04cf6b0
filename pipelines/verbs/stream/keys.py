"""`framewire keys`: create CURVE keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines import console

if TYPE_CHECKING:
    pass


def keys(
    name: Annotated[str, typer.Argument(help="Name of the owner: gate, dashboard, ...")],
    folder: Annotated[str, typer.Option(help="Where to write NAME.key and NAME.key_secret")] = "keys",
) -> None:
    """Create a pair of CURVE keys: the secret key stays here (mode 0600), the public key goes to the other side."""
    from engine.transport.keys import make_keys

    public, secret = make_keys(folder, name)
    console.result(f"{public}: public, give it to the other side")
    console.result(f"{secret}: secret, leave it here")
