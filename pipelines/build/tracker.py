"""The tracker of a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import ConfigError
from engine.protocols import Source, Tracker
from engine.sources.images import ImagesSource
from engine.tracking.registry import tracker_by_name
from pipelines.build.detector import options_of
from pipelines.build.models import models_in_use
from pipelines.config.models import Config

DEFAULT_TRACKER = "steady"


def build_tracker(config: Config, sources: Sequence[Source] = ()) -> Tracker:
    """Return the configured tracker; classified frames and unrelated images are tracked only if it is named."""
    name = config.tracker.type
    if name == "auto":
        unrelated = [isinstance(source, ImagesSource) and not source.is_sequence() for source in sources]
        name = "none" if _classifies(config) or (unrelated and all(unrelated)) else DEFAULT_TRACKER
    return tracker_by_name(name, **config.tracker.parameters)


def _classifies(config: Config) -> bool:
    """Return whether the models classify whole frames. Raises `ConfigError` if only some of them do."""
    tasks = {name: options_of(config, name).task for name in models_in_use(config)}
    whole = [name for name, task in tasks.items() if task == "classify"]
    if whole and len(whole) < len(tasks):
        raise ConfigError(
            f"model {whole[0]} classifies whole frames, which are not tracked, and others detect: "
            "set tracker.type, for example steady, or use two runs"
        )
    return bool(whole)
