"""Builds the pipeline from a configuration: the only place that assembles the parts of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from engine.flow.options import PipelineOptions
from engine.flow.pipeline import Pipeline
from engine.identity import default_engine_id
from engine.protocols import Analyser, Source
from pipelines.build.detector import build_second_stage
from pipelines.build.models import MakeDetector, build_pool
from pipelines.build.names import check_names
from pipelines.build.parts import build_analysers
from pipelines.build.privacy import build_privacy, check_classes
from pipelines.build.sinks import build_sinks
from pipelines.build.sources import asks_for_scene, build_rules, build_sources
from pipelines.build.tracker import build_tracker
from pipelines.config.models import Config

if TYPE_CHECKING:
    from engine.sinks.zmq import ZmqPublisher

ANY_PORT = "tcp://*:*"


def build_pipeline(
    config: Config,
    *,
    on_quit: Callable[[], None] | None = None,
    make_detector: MakeDetector | None = None,
    bound: ZmqPublisher | None = None,
    shares_files: bool = False,
) -> Pipeline:
    """Return the pipeline that `config` describes, not yet started.

    Args:
        config: the validated configuration.
        on_quit: called when the user closes the window.
        make_detector: replaces `build_detector`.
        bound: the publisher of `bound_publisher`; None: a publisher that binds when the run starts.
        shares_files: see `build_sinks`.

    Raises:
        ConfigError: there is no source, a name is unknown, or values conflict.
        SourceError: a source is invalid.
        ModelError: a model file cannot be used.
    """
    sources = build_sources(config)
    options = config.pipeline.model_dump(exclude={"engine_id", "workers"})
    pool = build_pool(config, sources, make_detector)
    class_names = {name: detector.class_names for name, detector in pool.models.items()}
    check_names(config, class_names)
    check_classes(config, class_names)
    sinks = build_sinks(config, len(sources), on_quit, bound, shares_files=shares_files)
    if config.publish.media is not None:
        from pipelines.build.video import offer_video

        offer_video(config, sources, sinks)
    return Pipeline(
        sources,
        pool,
        build_tracker(config, sources),
        *sinks,
        options=PipelineOptions(**options, keep_running=_keeps_running(config, sources)),
        rules=build_rules(config),
        analysers=_analysers(config, [source.info.source_id for source in sources]),
        second_stage=build_second_stage(config),
        privacy=build_privacy(config),
        engine_id=config.pipeline.engine_id or _engine_id(config),
    )


def _analysers(config: Config, source_ids: list[str]) -> Mapping[str, Sequence[Analyser]]:
    """Return the analysers of each source; without zones, lines and rules, analytics are not even imported."""
    analysers = build_analysers(config, source_ids)
    if not asks_for_scene(config):
        return analysers
    from pipelines.build.scene import with_scene

    return with_scene(analysers, config)


def _engine_id(config: Config) -> str | None:
    """Return a name for an engine that only connects, and so has no address to distinguish it from others."""
    return default_engine_id([ANY_PORT]) if config.publish.connect and config.publish.bound == "none" else None


def _keeps_running(config: Config, sources: Sequence[Source]) -> bool:
    """Return whether a run continues without sources; one that only watches its file ends after its last video file."""
    is_of_files = bool(sources) and not any(source.info.is_live for source in sources)
    return config.control.address != "none" or (config.control.watch and not is_of_files)
