"""What a launcher reports to the controller, and the protocol of launchers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipelines.fleet.placement.facts import Machine


@dataclass(frozen=True, slots=True)
class Joined:
    """An engine was started or found, or will be started.

    Attributes:
        machine: its capacity.
        address: of its control socket; empty: not known yet.
        process: identifies the process; each one has its own value.
    """

    machine: Machine
    address: str
    process: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The process of an engine is gone.

    Attributes:
        engine_id: the engine.
        is_certain: the process has certainly ended; False: it is only unreachable, and may still publish.
        why: an explanation for people.
    """

    engine_id: str
    is_certain: bool
    why: str


class Launcher(Protocol):
    """Runs one engine on each machine, and restarts it when it ends."""

    def poll(self) -> list[Joined | Ended]:
        """Start whatever is due and return the changes since the last call; does not wait."""

    def set_model(self, model: str | None) -> None:
        """Start engines with this model from now on; None: with that of the configuration."""

    def want(self, machines: int) -> str:
        """Request a number of machines and return the outcome in one line."""

    def give_back(self, engine_id: str) -> None:
        """End an engine whose machine is no longer needed, and start none there; its end is reported."""

    def close(self, *, leave: bool) -> None:
        """End all engines, or leave them running; safe to call again."""
