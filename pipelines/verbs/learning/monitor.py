"""`framewire monitor`: drift of a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import ConfigError
from pipelines import console
from pipelines.verbs.options import Json

if TYPE_CHECKING:
    from pipelines.learning.monitor.drift import DriftMonitor
    from pipelines.learning.monitor.watch import WatchRequest

COLLECT = "framewire dataset collect, or --collect PROJECT here"
EVERY = 30
"""Number of frames between two writes of the file for Prometheus."""


def monitor(
    place: Annotated[str, typer.Argument(help="Address of a stream, its JSON lines, or, with --model, a source")],
    against: Annotated[str | None, typer.Option(help="Folder of a release, or a reference file")] = None,
    model: Annotated[str | None, typer.Option(help="Detect on the source here; also measures brightness")] = None,
    learn: Annotated[int, typer.Option(help="Without --against: number of first frames used as the reference")] = 100,
    save: Annotated[str | None, typer.Option(help="Write the reference of the first frames, and exit")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names in order, for a stream whose reference does not state them")
    ] = None,
    source_id: Annotated[str | None, typer.Option(help="Only this source of the stream")] = None,
    window: Annotated[int, typer.Option(help="Frames that are compared")] = 30,
    count: Annotated[int | None, typer.Option(help="Frames to read")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds of silence after which to stop")] = 60.0,
    prometheus: Annotated[str | None, typer.Option(help="File in Prometheus's text format to keep current")] = None,
    collect: Annotated[
        str | None, typer.Option(help="Project that receives images worth labelling while a quantity is in alarm")
    ] = None,
    per_hour: Annotated[float, typer.Option(help="For --collect: images per camera and hour at most")] = 200,
    as_json: Json = False,
) -> None:
    """Watch scores, classes, sizes, object counts and brightness for drift from a model's release.

    Brightness and --collect need images: those that the engine publishes (--set publish.pictures.images_per_s=1).
    Brightness is also measured with --model and a source.
    """
    from pipelines.build.detector import model_path
    from pipelines.learning.monitor.watch import WatchRequest, prometheus_text, save_reference, watch

    names = tuple(name.strip() for name in classes.split(",")) if classes else ()
    file, reference = None if model is None else str(model_path(model)), None if against is None else Path(against)
    request = WatchRequest(place, file, reference, learn, names, source_id, window, count, timeout)
    if save is not None:
        if collect is not None:
            raise typer.BadParameter("--collect needs alarms, and --save writes the reference and ends: leave one out")
        console.show(save_reference(request, Path(save)), as_json=as_json)
        return
    gathering = None if collect is None else _Gathering(collect, names, request, per_hour)
    alarms, frames = 0, 0

    def on_alarm(number: int, indexes: Mapping[str, float]) -> None:
        nonlocal alarms
        alarms += 1
        found = ", ".join(f"{name} {value:.2f}" for name, value in indexes.items())
        then = f"collect images of it ({COLLECT})" if gathering is None else f"collecting images into {collect}"
        console.say(f"frame {number}: drift of {found}; {then}, label some, and train again")

    def on_frame(state: DriftMonitor) -> None:
        nonlocal frames
        frames += 1
        if gathering is not None:
            gathering.is_open = bool(state.raised)
        if prometheus is not None and frames % EVERY == 1:
            _replace(Path(prometheus), prometheus_text(state, alarms))

    if gathering is None:
        console.show(watch(request, on_alarm, on_frame), as_json=as_json)
        return
    console.show(gathering.added_to(watch(request, on_alarm, on_frame, gathering.take)), as_json=as_json)


class _Gathering:
    """Puts images of the stream into a project while it is open.

    Args:
        folder: of the project, which is created if necessary.
        names: classes of a new project; empty: those of the release.
        request: what is watched.
        per_hour: images per camera and hour at most.

    Raises:
        ConfigError: there is no stream, the project is broken, or a new one has no classes.
    """

    def __init__(self, folder: str, names: Sequence[str], request: WatchRequest, per_hour: float) -> None:
        from pipelines.learning.dataset.choose import USUAL, Chooser, parse_when
        from pipelines.learning.dataset.collect import Collector
        from pipelines.learning.dataset.project import open_or_create
        from pipelines.learning.monitor.watch import classes_of

        if request.model is not None:
            raise ConfigError("--collect needs the images of a running engine: give the address of its stream")
        if not (Path(folder) / "project.yaml").is_file() and not (names := names or classes_of(request)):
            raise ConfigError(f"{folder}: a new project: give the classes that you will label: --classes person,car")
        project = open_or_create(folder, names)
        known = [origin.look for origin in project.origins().values()]
        self._collector = Collector(project, Chooser(parse_when(USUAL), per_hour, known))
        self._images = 0
        self._was_open = self.is_open = False

    def take(self, message: object) -> None:
        """Take a frame or an image."""
        from engine.wire import ImageMessage

        self._images += isinstance(message, ImageMessage)
        self._was_open |= self.is_open
        if self.is_open:
            self._collector.take(message)

    def added_to(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return a result with the number of images collected; print the reason if the stream has none."""
        from pipelines.learning.dataset.collect import NO_PICTURES

        if self._was_open and not self._images:
            console.say(f"nothing was collected, because {NO_PICTURES}")
        return {**result, "collected": self._collector.collected.pictures}


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
