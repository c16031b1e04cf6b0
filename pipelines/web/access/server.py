"""Runs an ASGI application on uvicorn, with limits that uvicorn lacks: connections, and the time and size of a head."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from engine.errors import SinkError
from engine.optional import require
from pipelines.web.access.limits import ServerLimits
from pipelines.web.access.listen import Listen
from pipelines.web.access.tls import TlsFiles

if TYPE_CHECKING:
    from starlette.types import ASGIApp

TLS_LOOK_S = 5.0
BACKLOG = 256


def bind(listen: Listen) -> socket.socket:
    """Return a listening socket; its name contains the chosen port.

    Raises:
        SinkError: this machine does not have the address, or it is in use.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((listen.host, listen.port))
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        reason = error.strerror or error
        raise SinkError(f"cannot listen on {listen.host}:{listen.port}: {reason}: choose another address") from error
    return bound


async def serve(
    app: ASGIApp,
    listening: socket.socket,
    *,
    tls: TlsFiles | None = None,
    limits: ServerLimits | None = None,
    websockets: bool = False,
    root_path: str = "",
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Serve an application until it is cancelled or `stopping` returns true; closes the socket.

    Args:
        app: the application, usually a `Gate`.
        listening: from `bind`.
        tls: certificate and key; reloaded when they change.
        limits: of clients.
        websockets: whether to accept WebSockets; needs the package websockets.
        root_path: path below which a reverse proxy serves it.
        stopping: polled a few times a second.

    Raises:
        MissingDependencyError: the extra `web` is not installed.
    """
    uvicorn = require("uvicorn", extra="web")
    from pipelines.web.access.guarded_protocol import guarded_protocol

    context = None if tls is None else tls.context()
    config = uvicorn.Config(
        app,
        http=guarded_protocol(limits or ServerLimits()),
        ws="websockets-sansio" if websockets else "none",
        ws_max_size=(limits or ServerLimits()).message_bytes,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        root_path=root_path,
        timeout_keep_alive=int((limits or ServerLimits()).idle_s),
        timeout_graceful_shutdown=int((limits or ServerLimits()).stop_s),
        ssl_context_factory=None if context is None else (lambda *_: context),
    )
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # the caller handles them
    watching = asyncio.create_task(_watch(server, tls, stopping))
    try:
        await server.serve(sockets=[listening])
    finally:
        watching.cancel()
        listening.close()
        await _abort(server)


async def _abort(server: Any) -> None:
    """Close the connections that are still open: those of clients that do not read, which uvicorn leaves behind."""
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    await asyncio.sleep(0)


async def _watch(server: Any, tls: TlsFiles | None, stopping: Callable[[], bool]) -> None:
    loop = asyncio.get_running_loop()
    look_at = loop.time() + TLS_LOOK_S
    while not stopping():
        await asyncio.sleep(0.1)
        if tls is not None and loop.time() >= look_at:
            look_at = loop.time() + TLS_LOOK_S
            tls.refresh()
    server.should_exit = True
