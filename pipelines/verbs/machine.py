"""The machine and its models: `doctor`, `inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json


def doctor(as_json: Json = False) -> None:
    """Say what is usable on this machine, and how to get what is missing."""
    from dataclasses import asdict

    from pipelines.doctor import examine

    findings = examine()
    if as_json:
        console.result_json([asdict(finding) for finding in findings])
        return
    for finding in findings:
        console.result(f"{finding.verdict:<8}{finding.part}: {finding.found}")
        if finding.remedy:
            console.result(f"{'':<8}  -> {finding.remedy}")


def inspect(
    model: Annotated[str, typer.Argument(help="Model file or folder; demo: the embedded one")],
    as_json: Json = False,
) -> None:
    """Print what a model file holds: tensors, head, classes, precision."""
    from pipelines.inspect_model import describe

    facts = describe(model)
    if as_json:
        console.result_json(facts)
        return
    for key, value in facts.items():
        console.result(f"{key}: {value}")
