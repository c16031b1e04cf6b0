"""`framewire track`: run a tracker over detections from a file."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from engine.errors import ConfigError
from pipelines import console
from pipelines.verbs.options import Json

Parameters = Annotated[list[str] | None, typer.Option("--set", help="Parameter of the tracker: lost_s=2")]


def track(
    mot: Annotated[str, typer.Option(help="Detections in MOTChallenge form")],
    fps: Annotated[float, typer.Option(help="Frames per second of the video that they come from")],
    out: Annotated[str, typer.Option(help="MOTChallenge file to write")],
    tracker: Annotated[str | None, typer.Option(help="Name of the tracker")] = None,
    detect_every: Annotated[int, typer.Option(min=1, help="Use only the detections of every n-th frame")] = 1,
    setting: Parameters = None,
    as_json: Json = False,
) -> None:
    """Run a tracker over detections from a file."""
    from pipelines.build.tracker import DEFAULT_TRACKER
    from pipelines.scoring.mot import track_mot

    chosen = tracker or DEFAULT_TRACKER
    done = track_mot(mot, fps, _tracker(chosen, setting), out, detect_every=detect_every)
    console.show({"tracker": chosen, **asdict(done)}, as_json=as_json)


def _tracker(name: str, settings: list[str] | None) -> Any:
    from engine.plain_yaml.reading import parsed_yaml
    from engine.tracking.registry import tracker_by_name

    parameters = {}
    for setting in settings or []:
        key, sign, text = setting.partition("=")
        if not sign:
            raise ConfigError(f"--set {setting}: expected PARAMETER=VALUE")
        parameters[key] = parsed_yaml(text, f"--set {key}: the value")
    return tracker_by_name(name, **parameters)
