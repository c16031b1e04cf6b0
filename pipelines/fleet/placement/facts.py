"""What placement knows: needs of cameras, capacities of machines, limits, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MIN_CPU = 0.01
"""Processor cores that a camera is never taken to need less of."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a camera needs.

    Attributes:
        source_id: the camera.
        cpu: processor cores (milliseconds per frame × frames per second / 1000).
        gpu: share of one GPU, likewise.
        site: where it must run; empty: anywhere.
        labels: labels that its machine must have.
        pack: cameras with this word run on one machine if they fit (affinity); empty: does not matter.
        spread: cameras with this word run on different machines if there are enough (anti-affinity); likewise.
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
    """One engine and what its machine has.

    Attributes:
        engine_id: the engine.
        cpu: processor cores.
        gpu: number of GPUs.
        site: where it is.
        labels: for instance `{"gpu": "l4"}`.
        starts: cameras that it is starting now; lost cameras go where this queue is short.
    """

    engine_id: str
    cpu: float
    gpu: float = 0.0
    site: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    starts: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Shares of a machine.

    Attributes:
        target: machines are filled up to this.
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
    """Where cameras go.

    Attributes:
        owners: engine_id by source_id of those that have a place.
        unplaced: why the others have none, by source_id.
    """

    owners: dict[str, str] = field(default_factory=dict)
    unplaced: dict[str, str] = field(default_factory=dict)
