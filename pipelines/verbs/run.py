"""Running: `run`, `demo`, `check`, `bench`, `ctl`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from engine.errors import ConfigError
from pipelines import console
from pipelines.running.detect_and_publish import Interrupt, innermost, recordings_of, run_to_the_end, summary
from pipelines.verbs.options import Json, Settings, class_of, client_keys, named_source

if TYPE_CHECKING:
    from engine.flow.pipeline import Pipeline
    from pipelines.config.models import Config
    from pipelines.running.plan_rebuild import PlanRebuild


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
    max_frames: Annotated[int | None, typer.Option(help="Stop after so many frames of each source")] = None,
    overflow: Annotated[
        str | None, typer.Option(help="block or drop_oldest, for the first queue of each source")
    ] = None,
    score: Annotated[float | None, typer.Option(help="Drop detections below this score")] = None,
    classes: Annotated[str | None, typer.Option(help="Keep these classes: person,car")] = None,
    control: Annotated[str | None, typer.Option(help="Address for framewire ctl: tcp://127.0.0.1:5556")] = None,
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
        "pipeline.max_frames": max_frames,
        "pipeline.overflow": overflow,
        "control.address": control,
        "detector.score_threshold": score,
        "detector.classes": [class_of(name) for name in classes.split(",")] if classes else None,
        "sources": [named_source(text) for text in source] if source else None,
    }
    _run(config, {key: value for key, value in overrides.items() if value is not None}, setting or [], as_json)


def demo(
    publish: Annotated[str | None, typer.Option(help="ZeroMQ address to bind, or none")] = None,
    save: Annotated[str | None, typer.Option(help="Write an annotated video")] = None,
    jsonl: Annotated[str | None, typer.Option(help="Write the messages, one per line; - is stdout")] = None,
    show: Annotated[bool | None, typer.Option("--show", help="Show a window")] = None,
    setting: Settings = None,
    as_json: Json = False,
) -> None:
    """Run the embedded model on the embedded clip of pedestrians: needs nothing else."""
    from engine.assets import demo_clip

    overrides: dict[str, Any] = {
        "sources": [{"uri": str(demo_clip()), "source_id": "demo", "realtime": True}],
        "publish.address": publish,
        "output.save": save,
        "output.jsonl": jsonl,
        "output.show": show,
    }
    _run(None, {key: value for key, value in overrides.items() if value is not None}, setting or [], as_json)


def check(
    config: Annotated[str, typer.Argument(help="YAML file or preset")],
    setting: Settings = None,
) -> None:
    """Validate a configuration, its model file and its file sources, without running it."""
    from pipelines.build.pipeline import build_pipeline
    from pipelines.config.file import load_config

    loaded = load_config(config, {}, setting or [])
    pipeline = build_pipeline(loaded)
    sources = ", ".join(f"{source.info.source_id} ({source.info.uri})" for source in pipeline.sources)
    console.result(f"{config} is valid: {sources}; {_opening(loaded.publish.address, pipeline)}")


def bench(
    config: Annotated[str | None, typer.Argument(help="YAML file or preset")] = None,
    source: Annotated[list[str] | None, typer.Option(help="File to run; the demo clip by default")] = None,
    model: Annotated[str | None, typer.Option(help="Model file or folder")] = None,
    backend: Annotated[str | None, typer.Option(help="auto, openvino, onnxruntime or tensorrt")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Stop after so many frames of each source")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often; the median counts, for a machine in use")] = 1,
    stage: Annotated[list[str] | None, typer.Option(help="Only time preprocess, infer, decode or nms")] = None,
    faults: Annotated[bool, typer.Option("--faults", help="Play faults of cameras instead (source checkout)")] = False,
    only: Annotated[str, typer.Option(help="With --faults: those whose name contains this")] = "",
    setting: Settings = None,
    as_json: Json = False,
) -> None:
    """Measure the pipeline beside the bare backend, on the same model in the same run."""
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
    if stage:
        figures = benchmark_stages(loaded, tuple(stage))
    else:
        figures = benchmark(loaded, rounds=rounds, progress=console.say)
    if as_json:
        console.result_json(figures)
        return
    console.show_figures(figures)


def _run(config_path: str | None, overrides: dict[str, Any], settings: list[str], as_json: bool) -> NoReturn:
    with Interrupt() as interrupt:
        from engine.sinks.jsonl import STDOUT
        from pipelines.build.pipeline import build_pipeline
        from pipelines.config.file import load_config
        from pipelines.running.plan_rebuild import PlanRebuild

        config = load_config(config_path, overrides, settings)
        if config.control.watch and not (config_path and Path(config_path).is_file()):
            raise ConfigError("control.watch: there is no file to watch: give a configuration file, or leave it out")
        finish: list[Callable[[], None]] = []
        with closing(PlanRebuild()) as plans:
            pipeline = build_pipeline(config, on_quit=lambda: finish[0](), make_detector=plans.detector)
            finish.append(pipeline.finish)
            console.say(_opening(config.publish.address, pipeline))
            origin = config_path, overrides, settings
            with _changes(pipeline, config, origin, plans, lambda: interrupt.requested) as each_tick:
                outcome = run_to_the_end(pipeline, interrupt, each_tick=each_tick)
        error = {"error": str(outcome.error)} if outcome.error else {}
        facts = summary(pipeline, plans.status() | error)
        if as_json:
            console.result_json(facts)
        else:
            console.show_summary(facts, aside=config.output.jsonl == STDOUT)
        if outcome.error is not None:
            console.fail(str(outcome.error))
        sys.stderr.flush()
        if not outcome.clean:
            os._exit(outcome.exit_code)
    sys.exit(outcome.exit_code)


@contextmanager
def _changes(
    pipeline: Pipeline,
    config: Config,
    origin: tuple[str | None, dict[str, Any], list[str]],
    plans: PlanRebuild,
    is_over: Callable[[], bool],
) -> Iterator[list[Callable[[], None]]]:
    """Yield what is to be called during the run, so that it can be changed by socket and by file."""
    from pipelines.running.control import ControlServer
    from pipelines.running.reconfigure import ConfigWatch, Reconfigurer

    path, overrides, settings = origin
    changes = Reconfigurer(pipeline, config, plans.detector, is_over)
    each_tick: list[Callable[[], None]] = [lambda: plans.poll(pipeline, changes.config)]
    if config.control.watch and path is not None:
        each_tick.append(ConfigWatch(path, overrides, settings, changes).poll)
    if config.control.address == "none":
        yield each_tick
        return
    from engine.transport.keys import load_key_pair, load_public_keys

    control = config.control
    server = ControlServer(
        control.address,
        pipeline,
        changes,
        keys=load_key_pair(control.keys) if control.keys else None,
        allowed_keys=load_public_keys(control.allowed_keys) if control.allowed_keys is not None else None,
        more_status=lambda: plans.status() | recordings_of(pipeline),
    )
    try:
        yield [*each_tick, server.poll]
    finally:
        server.close()


def ctl(
    command: Annotated[str, typer.Argument(help="status, add, remove, pause, resume, set or stop")],
    argument: Annotated[str | None, typer.Argument(help="add: [NAME=]URI; set: KEY; else the NAME")] = None,
    value: Annotated[str | None, typer.Argument(help="set: the value, as YAML")] = None,
    address: Annotated[str, typer.Option(help="Control address of the run")] = "tcp://127.0.0.1:5556",
    server_key: Annotated[str | None, typer.Option(help="File NAME.key of a run that encrypts")] = None,
    keys: Annotated[str | None, typer.Option(help="File NAME.key_secret of yours, which the run lists")] = None,
) -> None:
    """Change a running engine: cameras, thresholds, classes, the model; or ask for its state."""
    from pipelines.running.control import ask

    request: dict[str, Any] = {"command": command}
    if command == "add" and argument is not None:
        request["source"] = named_source(argument)
    elif command == "set" and argument is not None:
        request |= {"key": argument, "value": _value_from_yaml(argument, value or "null")}
    elif argument is not None:
        request["source_id"] = argument
    console.result_json(ask(address, request, **client_keys(server_key, keys)))


def _value_from_yaml(key: str, text: str) -> Any:
    """Return a value as it travels in a request. Raises `ConfigError` where it is not YAML, or nothing JSON has."""
    import yaml

    try:
        value = yaml.safe_load(text)
        json.dumps(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"set {key}: the value {text} is not YAML ({error}): quote it") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"set {key}: the value {text} cannot be sent ({error}): quote it to send a text") from error
    return value


def _opening(address: str, pipeline: Pipeline) -> str:
    detector = innermost(pipeline.detector)
    where = f"publishing at {address}" if address != "none" else "not publishing"
    reason = getattr(detector, "backend_reason", "")
    cameras = ", ".join(source.info.source_id for source in pipeline.sources)
    backend = f"{getattr(detector, 'backend', '?')}{f' ({reason})' if reason else ''}"
    return f"{cameras}: {pipeline.detector.name} on {backend}, {where}"
