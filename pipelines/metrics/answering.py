"""Serves metrics and health of any long-lived process.

The part used by the page's process does not import the engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from engine.errors import EngineError
from engine.optional import require
from pipelines.metrics.exposition import CONTENT_TYPE, Page, with_client
from pipelines.metrics.health import Health, LoopHealth, health_routes
from pipelines.metrics.server import MetricsServer, Reply

logger = logging.getLogger(__name__)
METRICS_VARIABLE = "FRAMEWIRE_METRICS"
"""Environment variable with an address for runs that do not configure one.

Container images set it for their health check.
"""


def bound_server(address: str, at_will: str | None = None) -> MetricsServer | None:
    """Return a server with its port bound but not yet answering; None for the address `none`.

    Args:
        address: `HOST:PORT`, or `none`.
        at_will: an optional address to use instead of `none`; failing to use it is only logged.

    Raises:
        ConfigError: the address is malformed.
        SinkError: the port is in use.
        MissingDependencyError: the extra `metrics` is not installed.
    """
    if address == "none" and at_will:
        try:
            return bound_server(at_will)
        except EngineError as error:
            logger.warning("%s=%s: %s", METRICS_VARIABLE, at_will, error)
    if address == "none":
        return None
    require("prometheus_client", extra="metrics")
    return MetricsServer(address)


@contextmanager
def serve_loop(
    address: str | None,
    add: Callable[[Page], None],
    *,
    say: Callable[[str], object],
    facts: Callable[[], dict[str, Any]] = dict,
    waits_for: Callable[[], list[str]] = list,
) -> Iterator[Callable[[], bool]]:
    """Serve a process with one loop while in the context; yields the function to call on each turn of the loop.

    Args:
        address: `HOST:PORT`; None or `none`: do not serve.
        add: adds the metrics of the process to a page.
        say: called with a line that states the bound address.
        facts: further facts for `/healthz`.
        waits_for: returns what else the process needs before it is ready; empty if nothing.
    """
    health = LoopHealth(facts, waits_for)
    server = bound_server(address or "none")
    if server is None:
        yield health.beat
        return

    def page() -> str:
        made = Page()
        add(made)
        return made.text()

    with server:
        answer_with(server, health, page)
        say(f"metrics at http://{server.address}/metrics")
        yield health.beat


def answer_with(server: MetricsServer, health: Health, page: Callable[[], str]) -> None:
    """Answer `/metrics` and the probes from now on."""

    def metrics() -> Reply:
        return Reply(with_client([page()]), content_type=CONTENT_TYPE)

    server.start({"/metrics": metrics, **health_routes(health)})
