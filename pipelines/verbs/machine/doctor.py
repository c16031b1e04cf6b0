"""`framewire doctor`: what is usable on this machine."""

from __future__ import annotations

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
