"""`framewire health`: ask a run whether it is healthy."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pipelines import console

DEFAULT = "127.0.0.1:9464"


def health(
    address: Annotated[
        str | None, typer.Argument(help="HOST:PORT of the run's metrics; default: FRAMEWIRE_METRICS, or 127.0.0.1:9464")
    ] = None,
    ready: Annotated[bool, typer.Option("--ready", help="Ask whether it is ready, not only alive")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait")] = 5.0,
) -> None:
    """Ask a run whether it is alive; exit code 0 if so. For container health checks and scripts."""
    from pipelines.metrics.ask import ask_health

    is_well, text = ask_health(address or os.environ.get("FRAMEWIRE_METRICS") or DEFAULT, timeout, ready=ready)
    console.result(text)
    raise typer.Exit(0 if is_well else 1)
