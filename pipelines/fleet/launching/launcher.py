"""What a launcher tells the controller, and the Protocol of launchers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipelines.fleet.placement.facts import Machine


@dataclass(frozen=True, slots=True)
class Joined:
    """An engine was started or found.

    Attributes:
        machine: what it has.
        address: of its control socket.
        process: names the process: another one has another word.
    """

    machine: Machine
    address: str
    process: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The process of an engine is gone.

    Attributes:
        engine_id: the engine.
        is_certain: the process has ended for certain; False: it is only not heard of, and may still publish.
        why: for people.
    """

    engine_id: str
    is_certain: bool
    why: str


class Launcher(Protocol):
    """Starts one engine for each machine, and another one when it ends."""

    def poll(self) -> list[Joined | Ended]:
        """Start what is due and return what has happened since the last call; does not wait."""

    def set_model(self, model: str | None) -> None:
        """Start engines with this model from now on; None: with that of the configuration."""

    def want(self, machines: int) -> str:
        """Ask for so many machines and return what came of it, in one line."""

    def close(self, *, leave: bool) -> None:
        """End all engines, or leave them running; safe to call again."""
