"""`framewire bench`: the pipeline compared with the bare backend, or under faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines import console
from pipelines.verbs.options import Json, Settings, named_source, size_of

if TYPE_CHECKING:
    pass


def bench(
    config: Annotated[str | None, typer.Argument(help="YAML file or preset")] = None,
    source: Annotated[list[str] | None, typer.Option(help="File to run; the demo clip by default")] = None,
    model: Annotated[str | None, typer.Option(help="Model file or folder")] = None,
    backend: Annotated[str | None, typer.Option(help="auto, openvino, onnxruntime or tensorrt")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Stop after this many frames of each source")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions; reports the median, for a busy machine")] = 1,
    stage: Annotated[list[str] | None, typer.Option(help="Only time preprocess, infer, decode or nms")] = None,
    engine: Annotated[bool, typer.Option("--engine", help="Only the engine's cost, with still cameras")] = False,
    cameras: Annotated[int, typer.Option(min=1, max=1000, help="With --engine: number of cameras")] = 32,
    objects: Annotated[int, typer.Option(min=0, max=1000, help="With --engine: number of objects on each frame")] = 10,
    plan: Annotated[
        bool, typer.Option("--plan", help="Measure for a minute how many cameras this machine can handle")
    ] = False,
    size: Annotated[str, typer.Option(help="With --plan: size of the cameras' video")] = "1280x720",
    fps: Annotated[float, typer.Option(min=0.5, max=240, help="With --plan: frames per second of a camera")] = 10.0,
    faults: Annotated[bool, typer.Option("--faults", help="Play faults of cameras instead (source checkout)")] = False,
    only: Annotated[str, typer.Option(help="With --faults: those whose name contains this")] = "",
    setting: Settings = None,
    as_json: Json = False,
) -> None:
    """Compare the pipeline with the bare backend, on the same model in the same run."""
    if faults:
        from pipelines.measuring.faults import play_faults

        raise typer.Exit(play_faults(only, as_json=as_json))
    from engine.assets import demo_clip
    from pipelines.config.file import load_config
    from pipelines.measuring.pipeline import benchmark
    from pipelines.measuring.stages import benchmark_stages

    overrides: dict[str, Any] = {
        "detector.model": model,
        "detector.backend": backend,
        "pipeline.max_frames": max_frames,
        "publish.address": "tcp://127.0.0.1:*",
        "sources": [named_source(text) for text in source]
        if source
        else None
        if config
        else [{"uri": str(demo_clip())}],
    }
    loaded = load_config(config, {key: value for key, value in overrides.items() if value is not None}, setting or [])
    if plan:
        from pipelines.measuring.plan import plan as plan_cameras

        figures = plan_cameras(loaded, size_wh=size_of(size), fps=fps, progress=console.say)
    elif engine:
        from pipelines.measuring.engine_cost import benchmark_engine

        figures = benchmark_engine(loaded, cameras=cameras, objects=objects, frames=max_frames or 300, rounds=rounds)
    elif stage:
        figures = benchmark_stages(loaded, tuple(stage))
    else:
        figures = benchmark(loaded, rounds=rounds, progress=console.say)
    if as_json:
        console.result_json(figures)
        return
    console.show_figures(figures)
