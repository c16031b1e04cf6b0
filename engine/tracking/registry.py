"""Trackers by name, for configuration and the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class TrackerParameter:
    """One keyword argument of a tracker.

    Attributes:
        name: the argument.
        default: its value where none is given.
        description: what it means and what raising it does.
    """

    name: str
    default: Any
    description: str


def _class_of(name: str) -> Any:
    if name not in TRACKERS:
        raise ConfigError(f"unknown tracker {name!r}: expected one of {', '.join(TRACKERS)}")
    module, _, attribute = TRACKERS[name].partition(":")
    return getattr(require(module), attribute)


def tracker_by_name(name: str, **parameters: Any) -> Tracker:
    """Return a tracker with the given parameters.

    Raises:
        ConfigError: an unknown name or parameter; the known ones are listed.
    """
    kind = _class_of(name)
    known = inspect.signature(kind).parameters
    unknown = [key for key in parameters if key not in known]
    if unknown:
        expected = ", ".join(known) or "none at all"
        raise ConfigError(f"tracker {name} has no parameter {', '.join(unknown)}: expected some of {expected}")
    try:
        tracker: Tracker = kind(**parameters)
    except TypeError as error:
        raise ConfigError(f"tracker {name}: {error}: see docs/tracking.md for its parameters") from error
    return tracker


def tracker_parameters(name: str) -> list[TrackerParameter]:
    """Return the parameters of a tracker, with the descriptions of its class's docstring.

    >>> [parameter.name for parameter in tracker_parameters("sort")][:2]
    ['min_score', 'min_overlap']

    Raises:
        ConfigError: an unknown name; the known ones are listed.
    """
    kind = _class_of(name)
    section = (inspect.getdoc(kind) or "").partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    described = {key: " ".join(text.split()) for key, text in entries}
    return [
        TrackerParameter(key, parameter.default, described.get(key, ""))
        for key, parameter in inspect.signature(kind).parameters.items()
    ]
