"""Checks that the names in a configuration exist: a blur setting that matches nothing would silently hide nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from engine.data import DEFAULT_MODEL
from engine.detection.load import class_ids, known_class_ids
from engine.errors import ConfigError
from pipelines.build.sources import can_change, named_sources
from pipelines.config.hints import did_you_mean
from pipelines.config.models import Config

logger = logging.getLogger(__name__)


def check_names(config: Config, class_names: Mapping[str, Sequence[str]]) -> None:
    """Reject classes that no model has, and sources that do not exist, wherever a configuration names them.

    Args:
        config: validated.
        class_names: class names by model; models that are missing here are not checked.

    Raises:
        ConfigError: names the key, the value found and what was probably meant.
    """
    for index, source in enumerate(config.sources):
        names = class_names.get(source.model or DEFAULT_MODEL)
        if names is None:
            continue
        _check_classes(f"sources.{index}.classes", source.classes, names)
        for kind, places in (("zones", source.zones), ("lines", source.lines)):
            for name, place in places.items():
                _check_classes(f"sources.{index}.{kind}.{name}.classes", place.classes, names)
    every = [name for names in class_names.values() for name in names]
    for index, rule in enumerate(config.rules if every else ()):
        for key in ("classes", "to_classes", "owners"):
            _check_classes(f"rules.{index}.{key}", getattr(rule, key), every)
    if config.publish.pictures is not None:
        _check_blurred_classes(config, class_names)
        _check_blurred_places(config)


def _check_classes(key: str, classes: Sequence[str | int] | None, names: Sequence[str]) -> None:
    try:
        if classes is not None:
            class_ids(classes, names)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def _check_blurred_classes(config: Config, class_names: Mapping[str, Sequence[str]]) -> None:
    pictures = config.publish.pictures
    blur = [] if pictures is None else pictures.blur
    every = list(dict.fromkeys(name for names in class_names.values() for name in names))
    for name in blur:
        if every and name not in every:
            raise ConfigError(f"publish.pictures.blur: no model finds {name!r}: {did_you_mean(name, every)}")
        for key, kept, names in _choices(config, class_names):
            if name in names and not set(known_class_ids([name], names)) & set(known_class_ids(kept, names)):
                raise ConfigError(
                    f"publish.pictures.blur hides only what is detected, and {key} leaves out {name}: "
                    f"add {name} there, or use blur_regions"
                )
    for index, source in enumerate(config.sources):
        if blur and (source.regions or source.ignore):
            key = "regions" if source.regions else "ignore"
            logger.warning("sources.%d.%s: objects that it leaves out are not blurred in images either", index, key)


def _choices(
    config: Config, class_names: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Sequence[str | int], Sequence[str]]]:
    """Yield each key that selects classes, with the selected classes and those of its model."""
    for model, names in class_names.items():
        options = config.detector if model == DEFAULT_MODEL else config.models.get(model)
        if options is not None and options.classes is not None:
            yield "detector.classes" if model == DEFAULT_MODEL else f"models.{model}.classes", options.classes, names
    for index, source in enumerate(config.sources):
        if source.classes is not None:
            yield f"sources.{index}.classes", source.classes, class_names.get(source.model or DEFAULT_MODEL, ())


def _check_blurred_places(config: Config) -> None:
    pictures = config.publish.pictures
    known = [source_id for source_id, _ in named_sources(config)]
    for name in {} if pictures is None else pictures.blur_regions:
        if name in known:
            continue
        text = f"publish.pictures.blur_regions: there is no source {name!r}: {did_you_mean(name, known)}"
        if not can_change(config):
            raise ConfigError(text)
        logger.warning("%s; it takes effect once such a source is added", text)
