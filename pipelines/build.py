"""From configuration to objects: the one place where the parts of a run are put together."""

from __future__ import annotations

from collections.abc import Callable

from engine.data import SourceInfo
from engine.errors import ConfigError
from engine.pipeline import Pipeline, PipelineOptions
from engine.protocols import Detector, Sink, Source, Tracker
from pipelines.config import Config, SourceConfig

LATENCY, THROUGHPUT = "latency", "throughput"


def build_pipeline(config: Config, *, on_quit: Callable[[], None] | None = None) -> Pipeline:
    """Return the pipeline that `config` describes, not yet started.

    Args:
        config: validated configuration.
        on_quit: called when the user closes the window.

    Raises:
        ConfigError: no source, an unknown name, or values that do not go together.
        SourceError: a source that cannot exist.
        ModelError: a model file that cannot be used.
    """
    sources = build_sources(config)
    options = config.pipeline
    return Pipeline(
        sources,
        build_detector(config, [source.info for source in sources]),
        build_tracker(config),
        *build_sinks(config, len(sources), on_quit),
        options=PipelineOptions(options.overflow, options.max_age_ms, options.batch_wait_ms, options.max_frames),
        engine_id=options.engine_id,
    )


def build_sources(config: Config) -> list[Source]:
    """Return the configured sources, each with a name of its own."""
    from engine.sources.names import unique_names

    if not config.sources:
        raise ConfigError(
            "no source: give --source URI (0, rtsp://…, a file, synthetic://) or sources: in the YAML file"
        )
    names = unique_names([(source.uri, source.source_id) for source in config.sources])
    return [_source(source, name) for source, name in zip(config.sources, names, strict=True)]


def _source(config: SourceConfig, source_id: str) -> Source:
    from engine.sources.open import open_source

    return open_source(
        config.uri,
        source_id=source_id,
        realtime=config.realtime,
        loop=config.loop,
        reader=config.reader,
        open_timeout_s=config.open_timeout_s,
        read_timeout_s=config.read_timeout_s,
        reconnect=config.reconnect,
    )


def build_detector(config: Config, sources: list[SourceInfo]) -> Detector:
    """Return the configured detector, its file checked, its model not yet loaded."""
    from engine.assets import demo_model
    from engine.detection.detector import load_detector

    options = config.detector
    performance = options.performance
    if performance == "auto":
        performance = LATENCY if len(sources) == 1 and sources[0].is_live else THROUGHPUT
    return load_detector(
        demo_model() if options.model == "demo" else options.model,
        backend=options.backend,
        score_threshold=options.score_threshold,
        iou_threshold=options.iou_threshold,
        classes=options.classes,
        performance=performance,
        max_batch=min(options.max_batch, max(len(sources), 1)),
        head=options.head,
        names=options.names,
    )


def build_tracker(config: Config) -> Tracker:
    """Return the configured tracker."""
    from engine.tracking.registry import tracker_by_name

    return tracker_by_name(config.tracker.type, **config.tracker.parameters)


def build_sinks(config: Config, source_count: int, on_quit: Callable[[], None] | None) -> list[Sink]:
    """Return the configured outputs."""
    sinks: list[Sink] = []
    if config.publish.address != "none":
        from engine.sinks.zmq import ZmqPublisher

        publish = config.publish
        sinks.append(ZmqPublisher(publish.address, high_water_mark=publish.high_water_mark, encoding=publish.encoding))
    if config.output.jsonl is not None:
        from engine.sinks.jsonl import JsonlWriter

        sinks.append(JsonlWriter(config.output.jsonl))
    if config.output.save is not None:
        from engine.sinks.video import VideoWriter

        sinks.append(VideoWriter(config.output.save, per_source=source_count > 1))
    if config.output.show:
        from engine.sinks.window import Window

        sinks.append(Window(on_quit=on_quit))
    return sinks
