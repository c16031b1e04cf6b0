"""`framewire discover`: ONVIF cameras on the network."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json


def discover(
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for answers")] = 3.0,
    as_json: Json = False,
) -> None:
    """Find ONVIF cameras on the network."""
    from dataclasses import asdict

    from engine.sources.discover import discover_cameras

    cameras = [asdict(camera) for camera in discover_cameras(timeout)]
    if as_json:
        console.result_json(cameras)
    elif cameras:
        console.show_rows("Cameras", cameras)
    else:
        console.result("no ONVIF camera answered: are they on this network, and is ONVIF switched on in them?")
