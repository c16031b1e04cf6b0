"""How the controller talks to engines: requests are sent, answers arrive later, and nothing waits."""

from __future__ import annotations

from typing import Any, Protocol

from pipelines.running.control_links import Answer


class Links(Protocol):
    """Connections to all engines. An engine handles the requests of one link in their order, renewals before others."""

    def send(self, engine_id: str, request: dict[str, Any]) -> None:
        """Send a request. Exactly one `Answer` follows, possibly without a reply."""

    def receive(self) -> list[Answer]:
        """Return the answers since the last call, in order for each engine."""
