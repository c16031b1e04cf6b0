"""Parts of other packages: sinks, analysers and detectors by entry point or `module:attribute`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.errors import ConfigError
from engine.flow.analyse import ALL_SOURCES
from engine.protocols import Analyser, Detector, Sink
from engine.registry import Registry, is_reference
from pipelines.config.models import Config, DetectorConfig

DETECTORS = Registry("detector", {})
SINKS = Registry("sink", {})
ANALYSERS = Registry("analyser", {})
OF_OWN_DETECTORS = ("model", "parameters", "tile")
REFERENCES = ("type", "model", "backend", "head", "kind")
"""Keys whose value may name code."""


def own_detector(options: DetectorConfig) -> Detector | None:
    """Return the detector of another package that `model` names, or None if it names a file.

    Raises:
        ConfigError: the code cannot be imported, or a key does not apply to it.
    """
    if not (is_reference(options.model) or options.model in DETECTORS.names()):
        return None
    defaults = DetectorConfig(model=options.model)
    for key in DetectorConfig.model_fields:
        if key not in OF_OWN_DETECTORS and getattr(options, key) != getattr(defaults, key):
            raise ConfigError(f"{key} does not apply to {options.model}: give its own arguments under parameters")
    detector: Detector = DETECTORS.make(options.model, options.parameters, protocol=Detector)
    return detector


def own_sinks(config: Config) -> list[Sink]:
    """Return the sinks of other packages."""
    return [SINKS.make(one.type, one.parameters, protocol=Sink) for one in config.output.sinks]


def build_analysers(config: Config, source_ids: list[str]) -> dict[str, list[Analyser]]:
    """Return the analysers by source; those of all sources are also under `ALL_SOURCES`, for sources added later.

    Raises:
        ConfigError: an unknown source or analyser.
    """
    lists: dict[str, list[Analyser]] = {name: [] for name in source_ids}
    for_all: list[Analyser] = []
    for index, one in enumerate(config.analysers):
        unknown = [name for name in one.sources or () if name not in source_ids]
        if unknown:
            known = ", ".join(source_ids) or "none"
            raise ConfigError(f"analysers.{index}.sources: there is no source {unknown[0]}; expected one of: {known}")
        analyser = ANALYSERS.make(one.type, one.parameters, protocol=Analyser)
        for name in source_ids if one.sources is None else one.sources:
            lists[name].append(analyser)
        if one.sources is None:
            for_all.append(analyser)
    wanted = {name: analysers for name, analysers in lists.items() if analysers != for_all}
    return {**wanted, **({ALL_SOURCES: for_all} if for_all else {})}


def references(tree: Any) -> Iterator[str]:
    """Yield every `module:attribute` in the plain values of a configuration, under keys that may name code."""
    if isinstance(tree, list):
        for item in tree:
            yield from references(item)
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key in REFERENCES and is_reference(value):
                yield value
            yield from references(value)
