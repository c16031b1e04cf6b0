"""Serves models over HTTP until it is stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines import console
from pipelines.metrics.answering import serve_loop
from pipelines.serving.app import OPEN_PATHS, create_app
from pipelines.serving.figures import ServeFigures
from pipelines.serving.models import ServedModel
from pipelines.serving.requests import AppLimits, Server
from pipelines.web.access import (
    Exposure,
    Gate,
    GateRules,
    Listen,
    RateLimiter,
    RequestCounts,
    ServerLimits,
    TokenFile,
    bind,
    route_names,
)
from pipelines.web.access import serve as serve_app
from pipelines.web.access.exposure import check_exposure
from pipelines.web.access.listen import networks_of
from pipelines.web.access.tls import TlsFiles

logger = logging.getLogger(__name__)
RATE_PER_S = 50.0
"""Default limit of requests per second and client if other machines can connect."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Where and for whom models are served.

    Attributes:
        listen: the address.
        tls: certificate and key.
        token_file: file of the tokens that requests need.
        proxies: addresses of reverse proxies that do TLS and login.
        hosts: host names by which clients reach the server.
        origins: origins of other sites' pages that may use it.
        rate_per_s: requests per second and client; None: 50 if other machines can connect, else no limit.
        limits: of requests.
        metrics: HOST:PORT of metrics and health; None: none.
    """

    listen: Listen
    tls: TlsFiles | None = None
    token_file: str | None = None
    proxies: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    rate_per_s: float | None = None
    limits: AppLimits = field(default_factory=AppLimits)
    metrics: str | None = None


def gate_rules(options: ServeOptions) -> GateRules:
    """Return the settings of the gate.

    Raises:
        ConfigError: other machines could use the server without protection, or a file cannot be used.
    """
    authority = TokenFile(options.token_file) if options.token_file else None
    proxies = networks_of(options.proxies, "--behind-proxy")
    exposure = Exposure(options.listen, options.tls, authority is not None, proxies, "--token-file")
    check_exposure(exposure)
    rate = options.rate_per_s
    if rate is None and not options.listen.is_loopback:
        rate = RATE_PER_S
    return GateRules(
        exposure,
        authority,
        open_paths=OPEN_PATHS,
        hosts=options.hosts,
        origins=options.origins,
        rate=RateLimiter(rate) if rate else None,
        max_body=options.limits.body_bytes,
    )


def serve_models(
    models: Mapping[str, ServedModel],
    options: ServeOptions,
    *,
    stopping: Callable[[], bool],
    listening: Callable[[str], None] = lambda url: None,
    ready: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Load models, and serve them until `stopping` returns true; return a summary.

    Args:
        models: from `load_models`; closed here.
        options: where and for whom.
        stopping: polled a few times a second.
        listening: called with the address once it is bound.
        ready: called once all models are loaded.

    Raises:
        ConfigError: other machines could use the server without protection.
        ModelError: a model cannot be loaded.
        SinkError: the address cannot be bound.
        MissingDependencyError: the extra `web` is not installed.
    """
    server = Server(models, options.limits)
    app = create_app(server)
    requests = RequestCounts(Gate(app, gate_rules(options)), route_names(app.routes))
    if options.tls is not None:
        options.tls.context()
    bound = bind(options.listen)
    listening(Listen(options.listen.host, bound.getsockname()[1]).url("https" if options.tls else "http"))
    loading = _Loading(models, ready)
    for model in models.values():
        model.worker.start()
    figures = ServeFigures(server, requests)
    try:
        with serve_loop(
            options.metrics, figures.add_to, say=console.say, facts=figures.facts, waits_for=figures.not_loaded
        ) as beat:

            def is_over() -> bool:
                return beat() or stopping() or loading.has_failed()

            asyncio.run(serve_app(requests, bound, tls=options.tls, limits=ServerLimits(), stopping=is_over))
    finally:
        for model in models.values():
            model.close()
        server.decoders.shutdown(cancel_futures=True)
    loading.check()
    return summary(server)


class _Loading:
    """Watches the models while they are being loaded."""

    def __init__(self, models: Mapping[str, ServedModel], ready: Callable[[], None]) -> None:
        self._models, self._ready = models, ready
        self._has_told = False

    def has_failed(self) -> bool:
        """Return whether a model could not be loaded; reports once when all are loaded."""
        opened = [model.worker.opened for model in self._models.values()]
        if not self._has_told and all(each.done() and each.exception() is None for each in opened):
            self._has_told = True
            self._ready()
        return any(each.done() and each.exception() is not None for each in opened)

    def check(self) -> None:
        """Raise the error that prevented a model from being loaded."""
        for model in self._models.values():
            if model.worker.opened.done():
                model.worker.opened.result()


def summary(server: Server) -> dict[str, Any]:
    """Return the server's counters as plain values."""
    models = {
        name: {
            "images": model.worker.done,
            "tensors": model.raw.done if model.raw is not None else 0,
            "refused": model.worker.refused,
            "failed": model.worker.failed,
        }
        for name, model in server.models.items()
    }
    return {"answers": {str(status): count for status, count in sorted(server.answers.items())}, "models": models}
