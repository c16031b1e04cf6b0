"""`framewire inspect`: the contents of a model file."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json, ModelSettings, told_of_model


def inspect(
    model: Annotated[str, typer.Argument(help="Model file or folder; demo: the embedded one")],
    setting: ModelSettings = None,
    as_json: Json = False,
) -> None:
    """Print the contents of a model file: tensors, head, classes, precision."""
    from pipelines.models.inspect import describe

    facts = describe(model, told_of_model(setting))
    console.show(facts, as_json=as_json)
