"""How the controller talks to engines: requests are sent, answers arrive later, and nothing waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one request.

    Attributes:
        engine_id: the engine that was asked.
        request: as sent.
        reply: its reply; None: no reply arrived in time, and the engine may or may not have acted on the request.
    """

    engine_id: str
    request: dict[str, Any]
    reply: dict[str, Any] | None


class Links(Protocol):
    """Connections to all engines. An engine handles the requests of one link in their order."""

    def send(self, engine_id: str, request: dict[str, Any]) -> None:
        """Send a request. Exactly one `Answer` follows, possibly without a reply."""

    def receive(self) -> list[Answer]:
        """Return the answers since the last call, in order for each engine."""
