"""The models of a configuration by name, and which source uses which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engine.backends.files.base import find_model
from engine.backends.select import BACKENDS, REMOTE, why_not
from engine.data import DEFAULT_MODEL, SourceInfo
from engine.detection.detector import ModelDetector
from engine.detection.load import known_class_ids
from engine.errors import ConfigError
from engine.flow.defaults import describe
from engine.flow.pool import DetectorPool
from engine.protocols import Detector, Source
from pipelines.build.detector import build_detector, model_path, options_of, tiled
from pipelines.build.sources import measured, named_sources
from pipelines.config.models import Config
from pipelines.config.source import SourceConfig

MakeDetector = Callable[[Config, Sequence[SourceInfo], str], Detector]


def model_of(source: SourceConfig) -> str:
    """Return the name of the model that a source uses."""
    return source.model or DEFAULT_MODEL


def models_by_source(config: Config) -> dict[str, str]:
    """Return the name of the model of each source, by the name of the source."""
    return {source_id: model_of(source) for source_id, source in named_sources(config)}


def models_in_use(config: Config) -> list[str]:
    """Return the names of the needed models: those of the sources, or `detector` if there is no source."""
    return list(dict.fromkeys(map(model_of, config.sources))) or [DEFAULT_MODEL]


def infos_of(model: str, config: Config, sources: Sequence[SourceInfo]) -> list[SourceInfo]:
    """Return the sources that use a model."""
    names = models_by_source(config)
    return [info for info in sources if names.get(info.source_id, DEFAULT_MODEL) == model]


def check_devices(config: Config, models: Mapping[str, Detector]) -> None:
    """Raise `ConfigError` for a model whose backend or device this machine does not have.

    A run finds that out when it loads the model.
    """
    for name, detector in models.items():
        options, backend = options_of(config, name), describe(detector).backend
        if backend == REMOTE or backend not in BACKENDS:
            continue
        obstacle = why_not(backend, find_model(model_path(options.model)))
        if obstacle is None and backend == "openvino" and options.device is not None:
            from engine.backends.openvino import why_not_device

            obstacle = why_not_device(options.device)
        if obstacle is not None:
            section = DEFAULT_MODEL if name == DEFAULT_MODEL else f"models.{name}"
            raise ConfigError(f"{section}: {backend} cannot run here: {obstacle}")


def build_pool(config: Config, sources: Sequence[Source], make: MakeDetector | None = None) -> DetectorPool:
    """Return the models that the sources of a configuration use, not yet loaded.

    Raises:
        ConfigError: values conflict, or no model has a class of the second stage.
        ModelError: a model file cannot be used.
    """
    infos = [measured(source) for source in sources]
    models = {
        name: tiled(config, (make or build_detector)(config, infos_of(name, config, infos), name), name)
        for name in models_in_use(config)
    }
    _check_second_stage(config, models)
    _check_thresholds(config, models)
    default = DEFAULT_MODEL if DEFAULT_MODEL in models else None
    return DetectorPool(models, models_by_source(config), default)


def _check_thresholds(config: Config, models: Mapping[str, Detector]) -> None:
    """Raise `ConfigError` for a source whose threshold is below the one that its model's file recommends."""
    for source_id, source in named_sources(config):
        detector = models[model_of(source)]
        if source.score_threshold is None or not isinstance(detector, ModelDetector):
            continue
        if source.score_threshold < detector.score_threshold:
            raise ConfigError(
                f"{source_id}: score_threshold {source.score_threshold} is below that of its model, "
                f"{detector.score_threshold}, which drops detections first: set detector.score_threshold as low"
            )


def _check_second_stage(config: Config, models: Mapping[str, Detector]) -> None:
    """Raise `ConfigError` unless some model has each class of the second stage."""
    stage = config.second_stage
    for entry in () if stage is None or stage.classes is None else stage.classes:
        if not any(known_class_ids([entry], detector.class_names) for detector in models.values()):
            raise ConfigError(f'second_stage.classes: no model has a class "{entry}"; see framewire inspect')
