"""The application: the page, the API and the WebSocket."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp

from engine.analytics.rules.schedule import time_zone
from engine.errors import ConfigError
from pipelines.web.access import (
    Accounts,
    Audit,
    Exposure,
    Gate,
    GateRules,
    Listen,
    RequestCounts,
    TlsFiles,
    check_exposure,
    route_names,
)
from pipelines.web.access.headers import CSP, embeddable_csp
from pipelines.web.access.listen import networks_of
from pipelines.web.children import Jobs
from pipelines.web.page.answers import reply
from pipelines.web.page.api import ROUTES
from pipelines.web.page.figures import WebFigures
from pipelines.web.page.history import HISTORY_ROUTES
from pipelines.web.page.hub import Hub
from pipelines.web.page.live import live
from pipelines.web.page.login import Guesses
from pipelines.web.page.openapi import document
from pipelines.web.page.past import PAST_ROUTES, Confirmations
from pipelines.web.page.rules import RULES_ROUTES
from pipelines.web.page.settings import Settings
from pipelines.web.page.static_files import page, static_file
from pipelines.web.page.streams import STREAM_ROUTES
from pipelines.web.page.users import USERS_ROUTES

logger = logging.getLogger(__name__)


OPEN = ("/", "/static/", "/api/v1/login", "/api/v1/me")
"""Paths that need no login."""


def guarded_app(settings: Settings) -> tuple[ASGIApp, WebFigures]:
    """Return the application behind the access rules, and its metrics.

    Raises:
        ConfigError: others could reach it without TLS and a login.
    """
    exposure = exposure_of(settings)
    check_exposure(exposure)
    accounts = Accounts(settings.users) if settings.users is not None else None
    app = build_app(settings, accounts)
    csp = embeddable_csp(settings.embed) if settings.embed else CSP
    gate = Gate(app, GateRules(exposure, accounts, OPEN, settings.hosts, csp=csp))
    requests = RequestCounts(gate, route_names(app.routes))
    return requests, WebFigures(app.state.hub, requests)


def exposure_of(settings: Settings) -> Exposure:
    """Return who can reach the page, and how it is protected.

    Raises:
        ConfigError: an address, a network or an origin of `embed` is malformed, or `embed` needs TLS.
    """
    embeddable_csp(settings.embed)
    if settings.embed and settings.users and not settings.certificate and not settings.behind_proxy:
        raise ConfigError(
            "web.embed: browsers send the login of an embedded page over TLS only: give web.certificate, or name the "
            "proxy that does TLS in web.behind_proxy"
        )
    tls = None if settings.certificate is None else TlsFiles.parse(f"{settings.certificate},{settings.key or ''}")
    proxies = networks_of(settings.behind_proxy, "web.behind_proxy")
    return Exposure(Listen.parse(settings.address), tls, settings.users is not None, proxies, "users (web.users)")


async def get_openapi(request: Request) -> Response:
    """Return this document."""
    return reply(document(API_ROUTES))


API_ROUTES = [
    *ROUTES,
    *STREAM_ROUTES,
    *HISTORY_ROUTES,
    *PAST_ROUTES,
    *RULES_ROUTES,
    *USERS_ROUTES,
    Route("/openapi.json", get_openapi),
]


def build_app(settings: Settings, accounts: Accounts | None = None) -> Starlette:
    """Return the application for one engine."""

    hub = Hub(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.zone = time_zone(settings.timezone)
        app.state.accounts, app.state.guesses = accounts, Guesses()
        app.state.audit, app.state.jobs = Audit(settings.audit), Jobs()
        app.state.confirmations, app.state.open = Confirmations(), {}
        await hub.open()
        try:
            yield
        finally:
            await hub.close()

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/static/{path:path}", static_file),
            WebSocketRoute("/api/v1/live", live),
            Mount("/api/v1", routes=API_ROUTES),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
        lifespan=lifespan,
    )
    app.state.hub = hub
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return reply({"error": error.detail}, error.status_code, dict(error.headers or {}))


async def _failed(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return reply({"error": "the request failed; see the log"}, 500)
