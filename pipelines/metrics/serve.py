"""Serves metrics and health of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipelines import console
from pipelines.metrics.answering import answer_with
from pipelines.metrics.server import MetricsServer

if TYPE_CHECKING:
    from engine.flow.pipeline import Pipeline
    from pipelines.metrics.engine_health import EngineHealth


@contextmanager
def serve_run(server: MetricsServer | None, pipeline: Pipeline, health: EngineHealth) -> Iterator[None]:
    """Serve a run while in the context, then close the server."""
    if server is None:
        yield
        return
    from pipelines.metrics.engine import EngineMetrics

    metrics = EngineMetrics(pipeline)
    with server:
        metrics.start()
        try:
            answer_with(server, health, metrics.page)
            console.say(f"metrics at http://{server.address}/metrics")
            yield
        finally:
            metrics.close()
