"""Trackers by name, for configuration and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import ConfigError
from engine.optional import require
from engine.protocols import Tracker

TRACKERS: Mapping[str, str] = {
    "steady": "engine.tracking.steady:SteadyTrack",
    "bytetrack": "engine.tracking.bytetrack:ByteTrack",
    "botsort": "engine.tracking.botsort:BotSort",
    "ocsort": "engine.tracking.ocsort:OcSort",
    "sort": "engine.tracking.sort:Sort",
    "none": "engine.tracking.untracked:Untracked",
}


def tracker_by_name(name: str, **parameters: Any) -> Tracker:
    """Return a tracker with the given parameters.

    Raises:
        ConfigError: an unknown name or parameter; the known ones are listed.
    """
    if name not in TRACKERS:
        raise ConfigError(f"unknown tracker {name!r}: expected one of {', '.join(TRACKERS)}")
    module, _, attribute = TRACKERS[name].partition(":")
    try:
        tracker: Tracker = getattr(require(module), attribute)(**parameters)
    except TypeError as error:
        raise ConfigError(f"tracker {name}: {error}: see docs/tracking.md for its parameters") from error
    return tracker
