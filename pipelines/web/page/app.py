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
from pipelines.web.access import Accounts, Exposure, Gate, GateRules, Listen, TlsFiles, check_exposure
from pipelines.web.access.listen import networks_of
from pipelines.web.page.answers import reply
from pipelines.web.page.api import ROUTES
from pipelines.web.page.history import HISTORY_ROUTES
from pipelines.web.page.hub import Hub
from pipelines.web.page.live import live
from pipelines.web.page.login import Guesses
from pipelines.web.page.openapi import document
from pipelines.web.page.settings import Settings
from pipelines.web.page.static_files import page, static_file

logger = logging.getLogger(__name__)


OPEN = ("/", "/static/", "/api/v1/login", "/api/v1/me")
"""Paths that need no login."""


def guarded_app(settings: Settings) -> ASGIApp:
    """Return the application behind the access rules.

    Raises:
        ConfigError: others could reach it without TLS and a login.
    """
    exposure = exposure_of(settings)
    check_exposure(exposure)
    accounts = Accounts(settings.users) if settings.users is not None else None
    app = build_app(settings, accounts)
    return Gate(app, GateRules(exposure, accounts, OPEN, settings.hosts))


def exposure_of(settings: Settings) -> Exposure:
    """Return who can reach the page, and what protects it."""
    tls = None if settings.certificate is None else TlsFiles.parse(f"{settings.certificate},{settings.key or ''}")
    proxies = networks_of(settings.behind_proxy, "web.behind_proxy")
    return Exposure(Listen.parse(settings.address), tls, settings.users is not None, proxies, "users (web.users)")


async def get_openapi(request: Request) -> Response:
    """Return this document."""
    return reply(document(API_ROUTES))


API_ROUTES = [*ROUTES, *HISTORY_ROUTES, Route("/openapi.json", get_openapi)]


def build_app(settings: Settings, accounts: Accounts | None = None) -> Starlette:
    """Return the application for one engine."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.zone = time_zone(settings.timezone)
        app.state.hub, app.state.accounts, app.state.guesses = Hub(settings), accounts, Guesses()
        await app.state.hub.open()
        try:
            yield
        finally:
            await app.state.hub.close()

    return Starlette(
        routes=[
            Route("/", page),
            Route("/static/{path:path}", static_file),
            WebSocketRoute("/api/v1/live", live),
            Mount("/api/v1", routes=API_ROUTES),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
        lifespan=lifespan,
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return reply({"error": error.detail}, error.status_code, dict(error.headers or {}))


async def _failed(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return reply({"error": "the request failed; the log has more"}, 500)
