"""The tracker of a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from engine.protocols import Source, Tracker
from engine.sources.images import ImagesSource
from engine.tracking.registry import tracker_by_name
from pipelines.config.models import Config

DEFAULT_TRACKER = "steady"


def build_tracker(config: Config, sources: Sequence[Source] = ()) -> Tracker:
    """Return the configured tracker; whole frames and unrelated images are not tracked unless one is named."""
    name = config.tracker.type
    if name == "auto":
        unrelated = [isinstance(source, ImagesSource) and not source.is_sequence() for source in sources]
        name = "none" if config.detector.task == "classify" or (unrelated and all(unrelated)) else DEFAULT_TRACKER
    return tracker_by_name(name, **config.tracker.parameters)
