"""`framewire doctor`: what is usable on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json


def doctor(
    fix_hints: Annotated[
        bool, typer.Option("--fix-hints", help="Print the commands that install what is missing, for this system")
    ] = False,
    as_json: Json = False,
) -> None:
    """Report what is usable on this machine and how to get what is missing; exit code 0 if it is ready."""
    from dataclasses import asdict

    from pipelines.doctor import examine, readiness

    findings = examine()
    is_ready, line = readiness(findings)
    if as_json:
        console.result_json([asdict(finding) for finding in findings])
        raise typer.Exit(0 if is_ready else 1)
    console.result(line)
    for finding in findings:
        optional = "" if finding.is_needed or finding.verdict == "ok" else " (optional)"
        console.result(f"{finding.verdict:<8}{finding.part}{optional}: {finding.found}")
        if finding.remedy and not fix_hints:
            console.result(f"{'':<8}  -> {finding.remedy}")
    if fix_hints:
        from pipelines.machine.fix_hints import hints, this_system

        for part, commands in hints(findings, this_system()).items():
            console.result(f"\n# {part}")
            for command in commands:
                console.result(command)
    raise typer.Exit(0 if is_ready else 1)
