"""Serves metrics and health of a run, or of another long-lived process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.errors import EngineError
from engine.optional import require
from pipelines import console
from pipelines.metrics.exposition import CONTENT_TYPE, Page, with_client
from pipelines.metrics.health import EngineHealth, Health, LoopHealth, health_routes
from pipelines.metrics.server import MetricsServer, Reply

if TYPE_CHECKING:
    from engine.flow.pipeline import Pipeline


logger = logging.getLogger(__name__)
METRICS_VARIABLE = "FRAMEWIRE_METRICS"
"""Variable with an address for runs that configure none; container images set it for their health check."""


def bound_server(address: str, at_will: str | None = None) -> MetricsServer | None:
    """Return a server with its port bound, not yet answering; None for the address `none`.

    Args:
        address: `HOST:PORT`, or `none`.
        at_will: an address to use instead of `none`; if it cannot be used, that is only logged.

    Raises:
        ConfigError: the address has another form.
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
def serve_run(server: MetricsServer | None, pipeline: Pipeline, health: EngineHealth) -> Iterator[None]:
    """Answer for a run while in the context, then close the server."""
    if server is None:
        yield
        return
    from pipelines.metrics.engine import EngineMetrics

    metrics = EngineMetrics(pipeline)
    with server:
        metrics.start()
        try:
            _start(server, health, metrics.page)
            console.say(f"metrics at http://{server.address}/metrics")
            yield
        finally:
            metrics.close()


@contextmanager
def serve_loop(address: str | None, add: Callable[[Page], None]) -> Iterator[Callable[[], bool]]:
    """Answer for a process with one loop while in the context; yields the function to call on each turn of the loop.

    Args:
        address: `HOST:PORT`; None: do not serve.
        add: adds the metrics of the process to a page.
    """
    health = LoopHealth()
    server = bound_server(address or "none")
    if server is None:
        yield health.beat
        return

    def page() -> str:
        made = Page()
        add(made)
        return made.text()

    with server:
        _start(server, health, page)
        console.say(f"metrics at http://{server.address}/metrics")
        yield health.beat


def _start(server: MetricsServer, health: Health, page: Callable[[], str]) -> None:
    def metrics() -> Reply:
        return Reply(with_client([page()]), content_type=CONTENT_TYPE)

    server.start({"/metrics": metrics, **health_routes(health)})
