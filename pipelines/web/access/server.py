"""Runs an ASGI application on uvicorn, with limits that uvicorn lacks: connections, and the time and size of a head."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import SinkError
from engine.optional import require
from pipelines.web.access.listen import Listen, site_of
from pipelines.web.access.tls import TlsFiles

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = logging.getLogger(__name__)
TLS_LOOK_S = 5.0
BACKLOG = 256


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a server grants its clients.

    Attributes:
        connections: open at the same time.
        per_client: of one client.
        head_s: how long the head of a request may take to arrive, so that slow clients hold no connection.
        head_bytes: its largest size.
        rest_bytes: what a client may go on sending of a body that was already answered; more closes the connection.
        idle_s: how long a connection may wait for its next request.
        stop_s: how long requests may go on once the server ends.
        message_bytes: of one WebSocket message from a client.
    """

    connections: int = 512
    per_client: int = 128
    head_s: float = 10.0
    head_bytes: int = 64 * 1024
    rest_bytes: int = 64 * 1024 * 1024
    idle_s: float = 30.0
    stop_s: float = 5.0
    message_bytes: int = 64 * 1024


def bind(listen: Listen) -> socket.socket:
    """Return a listening socket; its name has the port that was chosen.

    Raises:
        SinkError: the address does not exist here, or is in use.
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
        tls: certificate and key; loaded again when they change.
        limits: what clients are granted.
        websockets: whether to accept WebSockets; needs the package websockets.
        root_path: path below which a reverse proxy serves it.
        stopping: asked a few times a second.

    Raises:
        MissingDependencyError: the extra `web` is not installed.
    """
    uvicorn = require("uvicorn", extra="web")
    context = None if tls is None else tls.context()
    config = uvicorn.Config(
        app,
        http=_protocol(limits or ServerLimits()),
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
    server.capture_signals = nullcontext  # whoever runs the server handles them
    watching = asyncio.create_task(_watch(server, tls, stopping))
    try:
        await server.serve(sockets=[listening])
    finally:
        watching.cancel()
        listening.close()


async def _watch(server: Any, tls: TlsFiles | None, stopping: Callable[[], bool]) -> None:
    loop = asyncio.get_running_loop()
    look_at = loop.time() + TLS_LOOK_S
    while not stopping():
        await asyncio.sleep(0.1)
        if tls is not None and loop.time() >= look_at:
            look_at = loop.time() + TLS_LOOK_S
            tls.refresh()
    server.should_exit = True


def _protocol(limits: ServerLimits) -> type[Any]:
    """Return uvicorn's HTTP protocol with the limits."""
    base: Any = require("uvicorn.protocols.http.httptools_impl", extra="web").HttpToolsProtocol
    by_client: Counter[str] = Counter()

    class GuardedProtocol(base):  # type: ignore[misc]
        """One connection. It reads a head within `head_s` and `head_bytes`."""

        _site: str | None = None
        _timer: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _rest_bytes = 0
        _in_head = True
        _got_whole = False

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            site = site_of((self.client or ("",))[0])
            if by_client.total() >= limits.connections or by_client[site] >= limits.per_client:
                logger.warning("%s: too many connections, one is refused", site)
                self._end(503, b"too many connections")
                return
            self._site = site
            by_client[site] += 1
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._leave()
            super().connection_lost(exc)

        def handle_websocket_upgrade(self) -> None:
            self._leave()  # from here on another protocol has the connection: the application counts its WebSockets
            super().handle_websocket_upgrade()

        def _leave(self) -> None:
            self._stop_timer()
            if self._site is not None:
                by_client[self._site] -= 1
                if by_client[self._site] <= 0:
                    del by_client[self._site]
                self._site = None

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            self._got_whole, was_in_head = False, self._in_head
            super().data_received(data)
            if self._in_head and was_in_head and not self._got_whole:
                self._head_bytes += len(data)
                if self._head_bytes > limits.head_bytes:
                    self._end(431, b"the head of the request is too large")
            elif not self._in_head and self.cycle is not None and self.cycle.response_complete:
                self._rest_bytes += len(data)
                if self._rest_bytes > limits.rest_bytes:
                    self.transport.close()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._in_head and self._timer is None:  # the rest of the body is read and forgotten
                self._timer = self.loop.call_later(limits.head_s, self.transport.close)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head, self._head_bytes = True, 0
            if self._timer is None:
                self._expect_head()

        def on_headers_complete(self) -> None:
            self._in_head = False
            self._stop_timer()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._in_head, self._got_whole, self._head_bytes, self._rest_bytes = True, True, 0, 0
            self._stop_timer()

        def _expect_head(self) -> None:
            self._timer = self.loop.call_later(limits.head_s, self._end, 408, b"the head did not arrive in time")

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _end(self, status: int, why: bytes) -> None:
            """Answer, if nothing else is being answered, and close."""
            if self.transport.is_closing():
                return
            if self.cycle is None or self.cycle.response_complete:
                head = f"HTTP/1.1 {status} \r\ncontent-type: text/plain\r\ncontent-length: {len(why)}\r\n"
                self.transport.write(head.encode() + b"connection: close\r\n\r\n" + why)
            self.transport.close()

    return GuardedProtocol
