"""The sources of a configuration, their names, gates and recordings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.data import DEFAULT_MODEL, SourceInfo
from engine.errors import ConfigError
from engine.flow.attention.gate import FrameGate, MotionGate
from engine.flow.attention.planner import RegionWindows
from engine.protocols import Source
from engine.sources.applicable import inapplicable
from engine.sources.base import SourceBase
from engine.sources.open import kind_of, made_source, open_source
from engine.sources.preparation import Lens, Preparation, PreparedSource
from engine.video.options import options_from
from engine.video.uri import name_from_uri, scheme_of, unique_name
from pipelines.config.models import Config
from pipelines.config.scene import AnalyticsConfig, SiteConfig
from pipelines.config.source import PrepareConfig, RecordConfig, SourceConfig

if TYPE_CHECKING:
    from engine.sinks.camera_video.recordings import RecordPlan

PLACES = ("picture", "zones", "lines")
GATE = ("regions", "ignore", "motion_gate", "classes", "score_threshold", "min_area", "max_fps", "detect_hz", "windows")
NOT_OPTIONS = ("uri", "source_id", "model", "type", "parameters", "record", "privacy", "prepare", *GATE, *PLACES)
BYTES_PER_MB = 1_000_000
S_PER_H = 3600.0


def can_change(config: Config) -> bool:
    """Return whether sources may be added and removed during the run."""
    return config.control.address != "none" or config.control.watch


def asks_for_scene(config: Config) -> bool:
    """Return whether there are zones, lines or rules, or settings of analytics that could be invalid."""
    has_places = any(source.zones or source.lines for source in config.sources)
    is_set = (config.site, config.analytics) != (SiteConfig(), AnalyticsConfig())
    return bool(config.rules) or has_places or is_set


def without_places(source: SourceConfig) -> SourceConfig:
    """Return a source's configuration without its analytics keys."""
    return source.model_copy(update={"picture": None, "zones": {}, "lines": {}})


def build_sources(config: Config) -> list[Source]:
    """Return the configured sources, each with a unique name. Raises `ConfigError` if there are none."""
    if not config.sources and not can_change(config):
        raise ConfigError("no source: give --source URI (0, rtsp://…, a file, synthetic://), or sources: in the YAML")
    return [build_source(source, source_id) for source_id, source in named_sources(config)]


def named_sources(config: Config) -> list[tuple[str, SourceConfig]]:
    """Return the configured sources with their names; unnamed ones get a unique name from their address."""
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
    """Return one source, not yet opened, with its preparation. Raises `SourceError` if it is invalid."""
    source = _read_source(config, source_id)
    return source if config.prepare is None else PreparedSource(source, preparation_of(config.prepare))


def preparation_of(config: PrepareConfig) -> Preparation:
    """Return the preparation that a configuration describes. Raises `ConfigError` if its region is empty."""
    values = config.model_dump(exclude={"lens"})
    return Preparation(lens=None if config.lens is None else Lens(**config.lens.model_dump()), **values)


def prepared_as(text: str) -> Preparation:
    """Return the preparation of a source in a configuration, from `CONFIG.yaml:SOURCE`.

    Raises:
        ConfigError: the file cannot be read, or has no such source, or the source has no preparation.
    """
    from pipelines.config.file import load_config

    file, colon, name = text.rpartition(":")
    if not colon or not file:
        raise ConfigError(f"{text!r}: expected CONFIG.yaml:SOURCE")
    sources = dict(named_sources(load_config(file, {}, [])))
    if name not in sources:
        raise ConfigError(f"{file} has no source {name!r}: it has {', '.join(sources) or 'none'}")
    config = sources[name].prepare
    if config is None:
        raise ConfigError(f"{file}: source {name!r} has no prepare: its images need no preparation")
    return preparation_of(config)


def _read_source(config: SourceConfig, source_id: str) -> Source:
    if config.type is None:
        if config.parameters:
            raise ConfigError(f"source {source_id}: parameters belong to a custom source (type: module:attribute)")
        return open_source(config.uri, source_id=source_id, **_reading_options(config))
    defaults = SourceConfig(uri=config.uri)
    for key in _options(defaults):
        if getattr(config, key) != getattr(defaults, key):
            raise ConfigError(f"source {source_id}: {key} does not apply to {config.type}: give it under parameters")
    return made_source(config.type, config.uri, source_id, config.parameters)


def measured(source: Source) -> SourceInfo:
    """Return a source's properties, with its frame size if that can be read before the run, as for a file."""
    size_wh = source.frame_wh() if isinstance(source, SourceBase) else None
    if size_wh is None:
        return source.info
    return replace(source.info, width=size_wh[0], height=size_wh[1])


def _options(config: SourceConfig) -> dict[str, Any]:
    return config.model_dump(exclude=set(NOT_OPTIONS))


def _reading_options(config: SourceConfig) -> dict[str, Any]:
    """Return the options for the source itself, without those that apply only to the address to record."""
    values = _options(config)
    if config.record is None or config.record.uri is None:
        return values
    options = options_from(values)
    unused = set(inapplicable(kind_of(config.uri), options)) - set(inapplicable(scheme_of(config.record.uri), options))
    return {name: value for name, value in values.items() if name not in unused}


def build_recordings(config: Config) -> dict[str, RecordPlan]:
    """Return the recordings by source name. Raises `ConfigError` if a source cannot be recorded."""
    recorded = [(source_id, source, source.record) for source_id, source in named_sources(config)]
    return {
        source_id: _record_plan(config, source_id, source, record)
        for source_id, source, record in recorded
        if record is not None
    }


def _record_plan(config: Config, source_id: str, source: SourceConfig, record: RecordConfig) -> RecordPlan:
    from engine.sinks.camera_video.record_process import RingOptions
    from engine.sinks.camera_video.recordings import record_plan

    return record_plan(
        record.uri or source.uri,
        source_id,
        record.folder,
        options_from(_options(source)),
        ring=RingOptions(record.before_s, record.after_s) if record.mode == "events" else None,
        is_main=record.uri not in (None, source.uri) and (source.privacy or config.privacy).mode == "none",
        container=record.container,
        segment_s=record.segment_s,
        max_bytes=None if record.max_mb is None else int(record.max_mb * BYTES_PER_MB),
        keep_s=None if record.keep_h is None else record.keep_h * S_PER_H,
        sound=record.sound,
    )


def _check_windows(config: Config, source_id: str, source: SourceConfig) -> None:
    """Raise `ConfigError` if detection in windows is not possible on a source."""
    if source.motion_gate is not None:
        raise ConfigError(
            f"sources: {source_id} has windows and motion_gate: leave out motion_gate, windows include it"
        )
    model = source.model or DEFAULT_MODEL
    options = config.models.get(model, config.detector)
    if options.tile is not None:
        raise ConfigError(f"sources: {source_id} has windows, and model {model} has tile: leave out one of them")


def build_rules(config: Config) -> dict[str, FrameGate]:
    """Return the rules of every source by name."""
    rules = {}
    for source_id, source in named_sources(config):
        gate = source.motion_gate
        if source.windows is not None:
            _check_windows(config, source_id, source)
        rules[source_id] = FrameGate(
            source.regions,
            source.ignore,
            None if gate is None else MotionGate(**gate.model_dump()),
            classes=None if source.classes is None else tuple(source.classes),
            score_threshold=source.score_threshold or 0.0,
            min_area=source.min_area,
            max_fps=source.max_fps,
            detect_hz=source.detect_hz,
            windows=None if source.windows is None else RegionWindows(**source.windows.model_dump()),
        )
    return rules
