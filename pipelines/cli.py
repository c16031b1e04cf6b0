"""The command line: `framewire VERB`. Each verb turns its options into a call of one function elsewhere.

Exit codes: 0 done, 1 the run failed, 2 bad configuration or arguments, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from engine.errors import ConfigError, EngineError, MissingDependencyError, ModelError, SourceError
from pipelines import console
from pipelines.detect_and_publish import EXIT_CONFIG, EXIT_FAILED, EXIT_INTERRUPTED, Interrupt, run_to_the_end, summary

app = typer.Typer(
    name="framewire",
    help="Real-time video object detection: cameras in, a ZeroMQ stream of tracked objects out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable line, the last on stdout")]


@app.callback()
def _common(
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Log more: -v info, -vv debug")] = 0,
) -> None:
    console.set_up_logging(verbose)


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except EngineError as error:
        console.fail(str(error))
        bad_input = isinstance(error, ConfigError | SourceError | ModelError | MissingDependencyError)
        sys.exit(EXIT_CONFIG if bad_input else EXIT_FAILED)
    except BrokenPipeError:
        os._exit(EXIT_FAILED)
    sys.exit(0)


@app.command()
def run(
    config: Annotated[str | None, typer.Argument(help="YAML file, or a preset: webcam, rtsp, multi_camera")] = None,
    source: Annotated[list[str] | None, typer.Option(help="URI, or NAME=URI; repeat for several cameras")] = None,
    model: Annotated[str | None, typer.Option(help="Model file or folder")] = None,
    backend: Annotated[str | None, typer.Option(help="auto, openvino, onnxruntime or tensorrt")] = None,
    tracker: Annotated[str | None, typer.Option(help="Name of the tracker, or none")] = None,
    publish: Annotated[str | None, typer.Option(help="ZeroMQ address to bind, or none")] = None,
    save: Annotated[str | None, typer.Option(help="Write an annotated video")] = None,
    jsonl: Annotated[str | None, typer.Option(help="Write the messages, one per line")] = None,
    show: Annotated[bool | None, typer.Option("--show", help="Show a window")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Stop after so many frames of each source")] = None,
    overflow: Annotated[
        str | None, typer.Option(help="block or drop_oldest, for the first queue of each source")
    ] = None,
    score: Annotated[float | None, typer.Option(help="Drop detections below this score")] = None,
    classes: Annotated[str | None, typer.Option(help="Keep these classes: person,car")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Any key: detector.iou_threshold=0.5")] = None,
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
        "detector.score_threshold": score,
        "detector.classes": [_class(name) for name in classes.split(",")] if classes else None,
        "sources": [_named(text) for text in source] if source else None,
    }
    _run(config, {key: value for key, value in overrides.items() if value is not None}, setting or [], as_json)


@app.command()
def demo(
    publish: Annotated[str | None, typer.Option(help="ZeroMQ address to bind, or none")] = None,
    save: Annotated[str | None, typer.Option(help="Write an annotated video")] = None,
    jsonl: Annotated[str | None, typer.Option(help="Write the messages, one per line")] = None,
    show: Annotated[bool | None, typer.Option("--show", help="Show a window")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Any key of the configuration")] = None,
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


def _run(config_path: str | None, overrides: dict[str, Any], settings: list[str], as_json: bool) -> NoReturn:
    with Interrupt() as interrupt:
        from pipelines.build import build_pipeline
        from pipelines.config import load_config

        config = load_config(config_path, overrides, settings)
        finish: list[Callable[[], None]] = []
        pipeline = build_pipeline(config, on_quit=lambda: finish[0]())
        finish.append(pipeline.finish)
        console.say(_opening(config.publish.address, pipeline))
        outcome = run_to_the_end(pipeline, interrupt)
        facts = summary(pipeline, {"error": str(outcome.error)} if outcome.error else None)
        if as_json:
            console.result_json(facts)
        else:
            console.show_summary(facts)
        if outcome.error is not None:
            console.fail(str(outcome.error))
        sys.stderr.flush()
        if not outcome.clean:
            os._exit(outcome.exit_code)
    sys.exit(outcome.exit_code)


def _opening(address: str, pipeline: Any) -> str:
    detector = pipeline.detector
    where = f"publishing at {address}" if address != "none" else "not publishing"
    reason = getattr(detector, "backend_reason", "")
    cameras = ", ".join(source.info.source_id for source in pipeline.sources)
    return (
        f"{cameras}: {detector.name} on {getattr(detector, 'backend', '?')}{f' ({reason})' if reason else ''}, {where}"
    )


def _named(text: str) -> dict[str, str]:
    """Split `NAME=URI`; an equals sign inside of a URI or path does not count."""
    name, sign, uri = text.partition("=")
    if sign and uri and not any(mark in name for mark in "/:?."):
        return {"source_id": name, "uri": uri}
    return {"uri": text}


def _class(name: str) -> str | int:
    return int(name) if name.strip().isdigit() else name.strip()


@app.command()
def subscribe(
    address: Annotated[str, typer.Argument(help="Address of a publisher: tcp://127.0.0.1:5555")],
    topic: Annotated[list[str] | None, typer.Option(help="Topics start with this; repeat for several")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many messages")] = None,
    timeout: Annotated[float | None, typer.Option(help="Stop with an error after so many seconds of silence")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each message as one line of JSON")] = False,
) -> None:
    """Print the messages of a running engine."""
    from pipelines.subscribe import print_messages

    print_messages(address, topic or ["v1/frame/"], count=count, timeout_s=timeout, as_json=as_json)


@app.command()
def check(
    config: Annotated[str, typer.Argument(help="YAML file or preset")],
    setting: Annotated[list[str] | None, typer.Option("--set", help="Any key of the configuration")] = None,
) -> None:
    """Validate a configuration, its model file and its file sources, without running it."""
    from pipelines.build import build_pipeline
    from pipelines.config import load_config

    loaded = load_config(config, {}, setting or [])
    pipeline = build_pipeline(loaded)
    sources = ", ".join(f"{source.info.source_id} ({source.info.uri})" for source in pipeline.sources)
    console.result(f"{config} is valid: {sources}; {_opening(loaded.publish.address, pipeline)}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is usable on this machine, and how to get what is missing."""
    from dataclasses import asdict

    from pipelines.doctor import examine

    findings = examine()
    if as_json:
        console.result_json([asdict(finding) for finding in findings])
        return
    for finding in findings:
        console.result(f"{finding.verdict:<8}{finding.part}: {finding.found}")
        if finding.remedy:
            console.result(f"{'':<8}  -> {finding.remedy}")


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="Model file or folder; demo: the embedded one")],
    as_json: Json = False,
) -> None:
    """Print what a model file holds: tensors, head, classes, precision."""
    from pipelines.inspect_model import describe

    facts = describe(model)
    if as_json:
        console.result_json(facts)
        return
    for key, value in facts.items():
        console.result(f"{key}: {value}")


@app.command()
def bench(
    config: Annotated[str | None, typer.Argument(help="YAML file or preset")] = None,
    source: Annotated[list[str] | None, typer.Option(help="File to run; the demo clip by default")] = None,
    model: Annotated[str | None, typer.Option(help="Model file or folder")] = None,
    backend: Annotated[str | None, typer.Option(help="auto, openvino, onnxruntime or tensorrt")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Stop after so many frames of each source")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Any key of the configuration")] = None,
    as_json: Json = False,
) -> None:
    """Measure the pipeline beside the bare backend, on the same model in the same run."""
    from engine.assets import demo_clip
    from pipelines.benchmark import benchmark
    from pipelines.config import load_config

    overrides: dict[str, Any] = {
        "detector.model": model,
        "detector.backend": backend,
        "pipeline.max_frames": max_frames,
        "publish.address": "tcp://127.0.0.1:*",
        "sources": [_named(text) for text in source] if source else None if config else [{"uri": str(demo_clip())}],
    }
    loaded = load_config(config, {key: value for key, value in overrides.items() if value is not None}, setting or [])
    figures = benchmark(loaded, progress=console.say)
    if as_json:
        console.result_json(figures)
        return
    console.show_figures(figures)
