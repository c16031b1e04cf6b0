"""`framewire run`: detect and track on cameras, streams or files, and publish the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.verbs.options import Json, Metrics, Settings, Web, class_of, named_source, place_points

if TYPE_CHECKING:
    pass
from pipelines.verbs.running.start import start_run


def run(
    config: Annotated[str | None, typer.Argument(help="YAML file, or a preset: webcam, rtsp, multi_camera")] = None,
    source: Annotated[list[str] | None, typer.Option(help="URI, or NAME=URI; repeat for several cameras")] = None,
    model: Annotated[str | None, typer.Option(help="Model file or folder")] = None,
    backend: Annotated[str | None, typer.Option(help="auto, openvino, onnxruntime or tensorrt")] = None,
    tracker: Annotated[str | None, typer.Option(help="Name of the tracker, or none")] = None,
    publish: Annotated[str | None, typer.Option(help="ZeroMQ address to bind, or none")] = None,
    save: Annotated[str | None, typer.Option(help="Write an annotated video")] = None,
    jsonl: Annotated[str | None, typer.Option(help="Write the messages, one per line; - is stdout")] = None,
    show: Annotated[bool | None, typer.Option("--show", help="Show a window")] = None,
    grid: Annotated[
        bool | None, typer.Option("--grid", help="Save and show all sources side by side in one image")
    ] = None,
    max_frames: Annotated[int | None, typer.Option(help="Stop after this many frames of each source")] = None,
    overflow: Annotated[
        str | None, typer.Option(help="block or drop_oldest, for the first queue of each source")
    ] = None,
    score: Annotated[float | None, typer.Option(help="Drop detections below this score")] = None,
    zone: Annotated[
        list[str] | None, typer.Option(help="SOURCE.NAME=x,y,x,y,x,y: pixels, or fractions up to 1; repeat")
    ] = None,
    line: Annotated[list[str] | None, typer.Option(help="SOURCE.NAME=x,y,x,y: same units; repeat")] = None,
    classes: Annotated[str | None, typer.Option(help="Keep these classes: person,car")] = None,
    privacy: Annotated[str | None, typer.Option(help="Hide people: none, blur, silhouette or no_images")] = None,
    control: Annotated[
        str | None, typer.Option(help="Let framewire ctl change the run; an address is optional")
    ] = None,
    metrics: Metrics = None,
    web: Web = None,
    setting: Settings = None,
    as_json: Json = False,
) -> None:
    """Detect and track on cameras, streams or files, and publish the results."""
    overrides: dict[str, Any] = {
        "detector.model": model,
        "detector.backend": backend,
        "tracker.type": tracker,
        "publish.address": publish,
        "output.save": save,
        "output.jsonl": jsonl,
        "output.show": show,
        "output.grid": grid,
        "pipeline.max_frames": max_frames,
        "pipeline.overflow": overflow,
        "control.address": control,
        "metrics.address": metrics,
        "web.address": web,
        "detector.score_threshold": score,
        "privacy.mode": privacy,
        "detector.classes": [class_of(name) for name in classes.split(",")] if classes else None,
        "sources": [named_source(text) for text in source] if source else None,
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    places = {"zones": zone, "lines": line}
    parsed = {key: [place_points(text) for text in texts] for key, texts in places.items() if texts}
    start_run(config, overrides, setting or [], as_json, parsed)
