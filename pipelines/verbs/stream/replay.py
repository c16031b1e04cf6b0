"""`framewire replay`: publish a recorded stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import ConfigError
from pipelines import console
from pipelines.verbs.options import Json

if TYPE_CHECKING:
    pass
from pipelines.verbs.stream.options import plain


def replay(
    path: Annotated[str, typer.Argument(help="File made by record")],
    publish: Annotated[str, typer.Option(help="Address to bind")] = "tcp://127.0.0.1:5555",
    speed: Annotated[str, typer.Option(help="1.0 is the original pace; max: as fast as the slowest reader")] = "1.0",
    start: Annotated[float, typer.Option(help="Start this many seconds into the recording")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Stop this many seconds into the recording")] = None,
    wait: Annotated[float, typer.Option(help="Maximum seconds to wait for the first reader")] = 5.0,
    as_json: Json = False,
) -> None:
    """Publish a recording as if it were live."""
    from pipelines.stream.replay import ReplayOptions
    from pipelines.stream.replay import replay as replay_file

    try:
        pace = None if speed == "max" else float(speed)
    except ValueError as error:
        raise ConfigError(f"speed is {speed!r}: give a number such as 2.0, or max") from error
    console.show(plain(replay_file(path, publish, ReplayOptions(pace, start, end, wait))), as_json=as_json)
