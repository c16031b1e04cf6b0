"""`framewire support-bundle`: everything needed for support, in one file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json


def support_bundle(
    config: Annotated[str | None, typer.Argument(help="Configuration of the run")] = None,
    out: Annotated[str | None, typer.Option(help="File to write; default: framewire-support-TIME.tar.gz")] = None,
    metrics: Annotated[str | None, typer.Option(help="HOST:PORT of the run's metrics")] = None,
    log: Annotated[str | None, typer.Option(help="Log file; its last megabyte is included")] = None,
    service: Annotated[str, typer.Option(help="Service whose journal is included")] = "framewire",
    as_json: Json = False,
) -> None:
    """Collect versions, doctor, configuration, health, metrics and logs into one archive, without secrets."""
    from pipelines.machine.support_bundle import write_bundle

    path = Path(out or time.strftime("framewire-support-%Y%m%d-%H%M%S.tar.gz"))
    if metrics is None and config is not None:
        metrics = _metrics_of(config)
    sizes = write_bundle(path, config=config, address=metrics, log=Path(log) if log else None, service=service)
    if as_json:
        console.result_json({"path": str(path), "files": sizes})
        return
    console.result(f"wrote {path}: {', '.join(sizes)}")
    console.result("secrets are removed; names of cameras and files remain: read it before you send it")


def _metrics_of(config: str) -> str | None:
    """Return the address that a configuration serves its metrics at; None if it does not, or is invalid."""
    from engine.errors import EngineError
    from pipelines.config.file import load_config

    try:
        address = load_config(config, {}).metrics.address
    except EngineError:
        return None
    return None if address == "none" else address
