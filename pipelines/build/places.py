"""Adds zones and lines from the command line to the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import ConfigError
from pipelines.build.sources import named_sources
from pipelines.config.models import Config
from pipelines.config.scene import LineConfig, ZoneConfig
from pipelines.config.source import SourceConfig

Points = Sequence[tuple[float, float]]
MODELS: Mapping[str, type[ZoneConfig] | type[LineConfig]] = {"zones": ZoneConfig, "lines": LineConfig}


def with_places(config: Config, places: Mapping[str, Sequence[tuple[str, Points]]]) -> Config:
    """Return the configuration with more zones and lines; they replace those of the same name.

    Args:
        config: validated.
        places: under `zones` and `lines`, pairs of SOURCE.NAME and points; values above 1 are pixels of the source's
            own frame. The name follows the last dot; without a dot, there must be exactly one source.

    Raises:
        ConfigError: there is no such source.
    """
    if not places:
        return config
    named = dict(named_sources(config))
    if len(named) < len(config.sources):
        raise ConfigError("two sources have the same name: give each its own source_id")
    for key, given in places.items():
        for text, points in given:
            source_id, name = _split(text, list(named), f"--{key[:-1]}")
            named[source_id] = _with_place(named[source_id], key, name, points)
    sources = [source for _, source in zip(config.sources, named.values(), strict=True)]
    return config.model_copy(update={"sources": sources})


def _split(text: str, source_ids: list[str], option: str) -> tuple[str, str]:
    source_id, dot, name = text.rpartition(".")
    if not dot and len(source_ids) == 1:
        return source_ids[0], name
    if source_id not in source_ids:
        found = f"there is no source {source_id!r}" if dot else "the source is missing"
        raise ConfigError(
            f"{option} {text}: {found}: give SOURCE.NAME=x,y,… with one of: {', '.join(source_ids) or 'no source'}"
        )
    return source_id, name


def _with_place(source: SourceConfig, key: str, name: str, points: Points) -> SourceConfig:
    is_pixels = any(value > 1 for point in points for value in point)
    if not is_pixels and source.picture is not None:  # the configured points are pixels of that frame
        width, height = source.picture.size_wh
        points = [(x * width, y * height) for x, y in points]
    place: Any = MODELS[key](points=list(points), pixels=is_pixels)
    return source.model_copy(update={key: {**getattr(source, key), name: place}})
