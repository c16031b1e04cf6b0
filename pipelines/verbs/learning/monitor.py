"""`framewire monitor`: drift of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from pipelines import console
from pipelines.verbs.options import Json

EVERY = 30
"""Number of frames between two writes of the file for Prometheus."""


def monitor(
    place: Annotated[str, typer.Argument(help="Address of a stream, its JSON lines, or, with --model, a source")],
    against: Annotated[str | None, typer.Option(help="Folder of a release, or a reference file")] = None,
    model: Annotated[str | None, typer.Option(help="Detect on the source here; also measures brightness")] = None,
    learn: Annotated[int, typer.Option(help="Without --against: number of first frames used as the reference")] = 100,
    save: Annotated[str | None, typer.Option(help="Write the reference of the first frames, and exit")] = None,
    classes: Annotated[str | None, typer.Option(help="Class names in order, for a stream and a release")] = None,
    source_id: Annotated[str | None, typer.Option(help="Only this source of the stream")] = None,
    window: Annotated[int, typer.Option(help="Frames that are compared")] = 30,
    count: Annotated[int | None, typer.Option(help="Frames to read")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds of silence after which to stop")] = 60.0,
    prometheus: Annotated[str | None, typer.Option(help="File in Prometheus's text format to keep current")] = None,
    as_json: Json = False,
) -> None:
    """Watch scores, classes, sizes, object counts and brightness for drift from a model's release.

    Brightness needs images: those that the engine publishes, or --model with a source.
    """
    from pipelines.build.detector import model_path
    from pipelines.learning.monitor.drift import DriftMonitor
    from pipelines.learning.monitor.watch import WatchRequest, prometheus_text, save_reference, watch

    names = tuple(name.strip() for name in classes.split(",")) if classes else ()
    request = WatchRequest(
        place,
        None if model is None else str(model_path(model)),
        None if against is None else Path(against),
        learn,
        names,
        source_id,
        window,
        count,
        timeout,
    )
    if save is not None:
        console.show(save_reference(request, Path(save)), as_json=as_json)
        return
    alarms, frames = 0, 0

    def on_alarm(number: int, indexes: Mapping[str, float]) -> None:
        nonlocal alarms
        alarms += 1
        found = ", ".join(f"{name} {value:.2f}" for name, value in indexes.items())
        console.say(f"frame {number}: drift of {found}; collect images of it, label some, and train again")

    def on_frame(state: DriftMonitor) -> None:
        nonlocal frames
        frames += 1
        if prometheus is not None and frames % EVERY == 1:
            _replace(Path(prometheus), prometheus_text(state, alarms))

    console.show(watch(request, on_alarm, on_frame), as_json=as_json)


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
