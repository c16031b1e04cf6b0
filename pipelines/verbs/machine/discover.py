"""`framewire discover`: ONVIF cameras on the network."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines import console
from pipelines.verbs.options import Json

if TYPE_CHECKING:
    from engine.sources.discover import FoundCamera

PASSWORD_VARIABLE = "FRAMEWIRE_CAMERA_PASSWORD"


def discover(
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for answers")] = 3.0,
    user: Annotated[str | None, typer.Option(help="Account of the cameras, to also get their stream addresses")] = None,
    as_json: Json = False,
) -> None:
    """Find ONVIF cameras on the network."""
    from dataclasses import asdict

    from engine.sources.discover import discover_cameras

    found = discover_cameras(timeout)
    cameras: list[dict[str, Any]] = [asdict(camera) for camera in found]
    if user is not None and found:
        password = os.environ.get(PASSWORD_VARIABLE) or typer.prompt(f"Password of {user}", hide_input=True)
        for camera, row in zip(found, cameras, strict=True):
            row["streams"] = _streams(camera, user, password)
    if as_json:
        console.result_json(cameras)
    elif cameras:
        console.show_rows("Cameras", cameras)
    else:
        console.result("no ONVIF camera answered: are they on this network, and is ONVIF enabled?")


def _streams(camera: FoundCamera, user: str, password: str) -> list[str] | str:
    """Return the addresses of a camera's streams, largest first, or why there are none."""
    from engine.errors import SourceError
    from engine.sources.discover import streams_of

    try:
        return [stream.uri for stream in streams_of(camera, user, password)]
    except SourceError as error:
        return str(error)
