"""Data of placement: needs of cameras, capacities of machines, limits, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MIN_CPU = 0.01
"""Minimum number of CPU cores that a camera is assumed to need."""


@dataclass(frozen=True, slots=True)
class Need:
    """The needs of a camera.

    Attributes:
        source_id: the camera.
        cpu: CPU cores (milliseconds per frame × frames per second / 1000).
        gpu: share of one GPU, likewise.
        site: where it must run; empty: anywhere.
        labels: labels that its machine must have.
        pack: cameras with the same value run on one machine if they fit (affinity); empty: no preference.
        spread: cameras with the same value run on different machines if there are enough (anti-affinity); likewise.
    """

    source_id: str
    cpu: float
    gpu: float = 0.0
    site: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    pack: str = ""
    spread: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """One engine and the capacity of its machine.

    Attributes:
        engine_id: the engine.
        cpu: processor cores.
        gpu: number of GPUs.
        site: where it is.
        labels: for instance `{"gpu": "l4"}`.
        starts: number of cameras that it is starting; lost cameras go where this queue is short.
    """

    engine_id: str
    cpu: float
    gpu: float = 0.0
    site: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    starts: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Load limits of a machine.

    Attributes:
        target: machines are filled up to this share.
        high: cameras leave a machine above this, and lost cameras may fill one up to it.
        low: the fleet may lose a machine when its load is below this.
        rule: `first_fit` fills machines one after another; `least_loaded` uses all of them evenly.
    """

    target: float = 0.70
    high: float = 0.85
    low: float = 0.45
    rule: Literal["first_fit", "least_loaded"] = "first_fit"


@dataclass(slots=True)
class Placement:
    """The result of placement.

    Attributes:
        owners: engine_id by source_id, for cameras that have a place.
        unplaced: why the others have none, by source_id.
    """

    owners: dict[str, str] = field(default_factory=dict)
    unplaced: dict[str, str] = field(default_factory=dict)
