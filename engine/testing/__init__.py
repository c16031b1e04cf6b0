"""Fakes, and contract suites for your own parts: `check_source`, `check_detector`, `check_tracker`, ...

See `engine.testing.contracts`. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.testing.contracts.base import ContractError, name_of
    from engine.testing.contracts.detector import DETECTOR_CHECKS, HEAD_CHECKS, check_detector, check_head
    from engine.testing.contracts.output import ANALYSER_CHECKS, SINK_CHECKS, check_analyser, check_sink
    from engine.testing.contracts.source import SOURCE_CHECKS, check_source
    from engine.testing.contracts.tracker import TRACKER_CHECKS, check_tracker

__all__ = [
    "ANALYSER_CHECKS",
    "ContractError",
    "DETECTOR_CHECKS",
    "HEAD_CHECKS",
    "SINK_CHECKS",
    "SOURCE_CHECKS",
    "TRACKER_CHECKS",
    "check_analyser",
    "check_detector",
    "check_head",
    "check_sink",
    "check_source",
    "check_tracker",
    "name_of",
]

_HOMES = {
    "base": ("ContractError", "name_of"),
    "detector": ("DETECTOR_CHECKS", "HEAD_CHECKS", "check_detector", "check_head"),
    "output": ("ANALYSER_CHECKS", "SINK_CHECKS", "check_analyser", "check_sink"),
    "source": ("SOURCE_CHECKS", "check_source"),
    "tracker": ("TRACKER_CHECKS", "check_tracker"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"engine.testing.contracts.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
