"""Looks up trackers by name for configuration and the command line: built-in ones and those of other packages."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.protocols import Tracker
from engine.registry import Registry

TRACKERS: Mapping[str, str] = {
    "steady": "engine.tracking.steady:SteadyTrack",
    "bytetrack": "engine.tracking.bytetrack:ByteTrack",
    "botsort": "engine.tracking.botsort:BotSort",
    "ocsort": "engine.tracking.ocsort:OcSort",
    "sort": "engine.tracking.sort:Sort",
    "none": "engine.tracking.untracked:Untracked",
}
REGISTRY = Registry("tracker", TRACKERS)


@dataclass(frozen=True, slots=True)
class TrackerParameter:
    """One keyword argument of a tracker.

    Attributes:
        name: the argument.
        default: its value if none is given.
        description: its meaning and the effect of raising it.
    """

    name: str
    default: Any
    description: str


def tracker_by_name(name: str, **parameters: Any) -> Tracker:
    """Return a tracker with the given parameters; `name` may be `module:attribute` or one of another package.

    Raises:
        ConfigError: the name or parameter is unknown (the known ones are listed), or the object is not a tracker.
    """
    tracker: Tracker = REGISTRY.make(name, parameters, protocol=Tracker)
    return tracker


def tracker_parameters(name: str) -> list[TrackerParameter]:
    """Return the parameters of a tracker, with the descriptions from its class docstring.

    >>> [parameter.name for parameter in tracker_parameters("sort")][:2]
    ['min_score', 'min_overlap']

    Raises:
        ConfigError: the name is unknown; the known ones are listed.
    """
    kind = REGISTRY.load(name)
    section = (inspect.getdoc(kind) or "").partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    described = {key: " ".join(text.split()) for key, text in entries}
    return [
        TrackerParameter(key, parameter.default, described.get(key, ""))
        for key, parameter in inspect.signature(kind).parameters.items()
    ]
