"""From configuration to objects: the one place where the parts of a run are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.files.base import find_model
from engine.backends.select import select_backend
from engine.data import Packet, SourceInfo
from engine.detection.load import class_ids, load_detector
from engine.errors import ConfigError
from engine.flow.pipeline import Pipeline
from engine.protocols import Detector, Sink, Source, TrackClassifier, Tracker
from engine.flow.gate import MotionGate, FrameGate
from engine.sources.images import ImagesSource
from engine.sources.open import open_source
from engine.video.options import options_from
from engine.sinks.camera_video.recordings import Recordings, RecordPlan, record_plan
from engine.video.uri import name_from_uri, unique_name
from engine.flow.options import PipelineOptions
from engine.tracking.registry import tracker_by_name
from pipelines.config.models import Config, DetectorConfig, PublishConfig, SourceConfig

DEMO = "demo"
DEFAULT_TRACKER = "steady"
CLASSIC = ("motion", "hog")
GPU_BATCH = 8
MakeDetector = Callable[[Config, Sequence[SourceInfo]], Detector]
OF_CLASSIFIERS = ("backend", "names", "size", "color", "mean", "std", "precision", "threads", "cache_dir")
NOT_OF_CLASSIFIERS = ("head", "letterbox", "tile")
NOT_OPTIONS = ("uri", "source_id", "regions", "ignore", "motion_gate", "record")
BYTES_PER_MB = 1_000_000
S_PER_H = 3600.0


def build_pipeline(
    config: Config, *, on_quit: Callable[[], None] | None = None, make_detector: MakeDetector | None = None
) -> Pipeline:
    """Return the pipeline that `config` describes, not yet started.

    Args:
        config: validated configuration.
        on_quit: called when the user closes the window.
        make_detector: in place of `build_detector`.

    Raises:
        ConfigError: no source, an unknown name, or values that do not go together.
        SourceError: a source that cannot exist.
        ModelError: a model file that cannot be used.
    """
    sources = build_sources(config)
    options = config.pipeline.model_dump(exclude={"engine_id"})
    detector = (make_detector or build_detector)(config, [source.info for source in sources])
    return Pipeline(
        sources,
        tiled(config, detector),
        build_tracker(config, sources),
        *build_sinks(config, len(sources), on_quit),
        options=PipelineOptions(**options, keep_running=_keeps_running(config, sources)),
        rules=build_rules(config),
        second_stage=build_second_stage(config, detector.class_names),
        engine_id=config.pipeline.engine_id,
    )


def can_change(config: Config) -> bool:
    """Return whether sources may come and go during the run."""
    return config.control.address != "none" or config.control.watch


def _keeps_running(config: Config, sources: Sequence[Source]) -> bool:
    """Return whether a run goes on without sources; one that only watches its file ends with the last file it plays."""
    is_of_files = bool(sources) and not any(source.info.is_live for source in sources)
    return config.control.address != "none" or (config.control.watch and not is_of_files)


def build_sources(config: Config) -> list[Source]:
    """Return the configured sources, each with a name of its own."""
    if not config.sources and not can_change(config):
        raise ConfigError("no source: give --source URI (0, rtsp://…, a file, synthetic://), or sources: in the YAML")
    return [build_source(source, source_id) for source_id, source in named_sources(config)]


def named_sources(config: Config) -> list[tuple[str, SourceConfig]]:
    """Return the configured sources with their names; unnamed ones are called after their address, uniquely."""
    taken = [source.source_id for source in config.sources if source.source_id is not None]
    named = []
    for source in config.sources:
        source_id = source.source_id
        if source_id is None:
            source_id = unique_name(name_from_uri(source.uri), taken)
            taken.append(source_id)
        named.append((source_id, source))
    return named


def build_source(config: SourceConfig, source_id: str) -> Source:
    """Return one source, not yet opened. Raises `SourceError` where it cannot exist."""
    return open_source(config.uri, source_id=source_id, **_options(config))


def _options(config: SourceConfig) -> dict[str, Any]:
    return config.model_dump(exclude=set(NOT_OPTIONS))


def build_recordings(config: Config) -> dict[str, RecordPlan]:
    """Return what is to be recorded by the name of its source. Raises `ConfigError` where that cannot be."""
    plans = {}
    for source_id, source in named_sources(config):
        record = source.record
        if record is not None:
            plans[source_id] = record_plan(
                record.uri or source.uri,
                source_id,
                record.folder,
                options_from(_options(source)),
                container=record.container,
                segment_s=record.segment_s,
                max_bytes=None if record.max_mb is None else int(record.max_mb * BYTES_PER_MB),
                keep_s=None if record.keep_h is None else record.keep_h * S_PER_H,
            )
    return plans


def build_rules(config: Config) -> dict[str, FrameGate]:
    """Return the rules of every source by its name."""
    rules = {}
    for source_id, source in named_sources(config):
        gate = source.motion_gate
        rules[source_id] = FrameGate(
            source.regions, source.ignore, None if gate is None else MotionGate(**gate.model_dump())
        )
    return rules


def build_detector(config: Config, sources: Sequence[SourceInfo]) -> Detector:
    """Return the configured detector, its file checked, its model not yet loaded."""
    options = config.detector
    if options.task == "classify":
        return _frame_classifier(options)
    if options.model in CLASSIC:
        return _classic(options)
    performance = options.performance
    if performance == "auto":
        performance = "latency" if len(sources) == 1 and sources[0].is_live else "throughput"
    return load_detector(
        model_path(options.model),
        performance=performance,
        max_batch=_max_batch(options, len(sources)),
        **options.model_dump(exclude={"model", "task", "performance", "max_batch", "tile", "rebuild"}),
        build_plans=options.rebuild != "never",
    )


def _max_batch(options: DetectorConfig, source_count: int) -> int:
    """Return the frames per inference: one of each source, or of each tile; on a CPU larger batches are slower."""
    limit = options.max_batch
    if limit is None:
        backend, _ = select_backend(find_model(model_path(options.model)), options.backend)
        limit = GPU_BATCH if backend == "tensorrt" else 1
    return limit if options.tile else min(limit, max(source_count, 1))


def _frame_classifier(options: DetectorConfig) -> Detector:
    from engine.detection.classify import load_classifier
    from engine.detection.frame_classifier import FrameClassifier

    for key in NOT_OF_CLASSIFIERS:
        if getattr(options, key) is not None:
            raise ConfigError(f"detector.{key}: a classifier takes whole frames, cut at the centre: leave it out")
    classifier = load_classifier(
        options.model,
        max_batch=options.max_batch or 1,
        **options.model_dump(include=set(OF_CLASSIFIERS)),
    )
    return FrameClassifier(
        classifier,
        Path(options.model).name,
        score_threshold=options.score_threshold,
        classes=None if options.classes is None else class_ids(options.classes, classifier.class_names),
    )


def _classic(options: DetectorConfig) -> Detector:
    from engine.detection.classic import HogPeopleDetector, MotionDetector

    return MotionDetector() if options.model == "motion" else HogPeopleDetector(score_threshold=options.score_threshold)


def tiled(config: Config, detector: Detector) -> Detector:
    """Return the detector, behind tiles where the configuration asks for them."""
    if config.detector.tile is None:
        return detector
    from engine.detection.tiles import TiledDetector

    return TiledDetector(detector, **config.detector.tile.model_dump())


def model_path(model: str) -> str | Path:
    """Return the path of a configured model; `demo` is the embedded one."""
    from engine.assets import demo_model

    return demo_model() if model == DEMO else model


def build_second_stage(config: Config, class_names: Sequence[str]) -> TrackClassifier | None:
    """Return the configured second stage, its file checked, its model not yet loaded."""
    options = config.second_stage
    if options is None:
        return None
    from engine.detection.classify import load_classifier
    from engine.detection.second_stage import SecondStage

    return SecondStage(
        load_classifier(options.model),
        class_ids=None if options.classes is None else frozenset(class_ids(options.classes, class_names)),
        top=options.top,
        refresh_s=options.refresh_s,
        margin=options.margin,
    )


def build_tracker(config: Config, sources: Sequence[Source] = ()) -> Tracker:
    """Return the configured tracker; whole frames and unrelated images are not tracked unless one is named."""
    name = config.tracker.type
    if name == "auto":
        unrelated = [isinstance(source, ImagesSource) and not source.is_sequence() for source in sources]
        name = "none" if config.detector.task == "classify" or (unrelated and all(unrelated)) else DEFAULT_TRACKER
    return tracker_by_name(name, **config.tracker.parameters)


def build_sinks(config: Config, source_count: int, on_quit: Callable[[], None] | None) -> list[Sink]:
    """Return the configured outputs."""
    sinks: list[Sink] = []
    plans = build_recordings(config)
    if plans or can_change(config):
        sinks.append(Recordings(plans))
    if config.publish.address != "none":
        sinks.append(_publisher(config.publish))
    if config.output.jsonl is not None:
        from engine.sinks.jsonl import JsonlWriter

        sinks.append(JsonlWriter(config.output.jsonl))
    if config.output.save is not None:
        from engine.sinks.video import VideoWriter

        first = named_sources(config)[0][0] if source_count == 1 else None  # keeps the name that was asked for
        per_source = source_count > 1 or can_change(config)
        sinks.append(VideoWriter(config.output.save, per_source=per_source, first=first, draw=_overlay()))
    if config.output.show:
        from engine.sinks.window import Window

        sinks.append(Window(draw=_overlay(), on_quit=on_quit))
    return sinks


def _publisher(config: PublishConfig) -> Sink:
    from engine.transport.keys import load_key_pair, load_public_keys
    from engine.sinks.pictures import Pictures
    from engine.sinks.zmq import ZmqPublisher

    return ZmqPublisher(
        config.address,
        keys=load_key_pair(config.keys) if config.keys else None,
        allowed_keys=load_public_keys(config.allowed_keys) if config.allowed_keys is not None else None,
        pictures=Pictures(**config.pictures.model_dump()) if config.pictures is not None else None,
        **config.model_dump(exclude={"address", "keys", "allowed_keys", "pictures"}),
    )


def _overlay() -> Callable[[Packet], NDArray[np.uint8]]:
    from engine.imaging.overlay import Overlay

    return Overlay().draw
