"""The gate in front of an ASGI application: who is served, how often, how much they may send, and for how long."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.redaction import printable
from pipelines.logs import ANY_CLIENT
from pipelines.web.access.exposure import Exposure
from pipelines.web.access.forwarded import forwarded_of
from pipelines.web.access.headers import ALWAYS, CSP, headers_of, is_host_allowed, is_origin_allowed
from pipelines.web.access.identity import ANYBODY, Authority, Identity
from pipelines.web.access.limits import FailureLimiter, RateLimiter, retry_after
from pipelines.web.access.listen import address_of, client_of, is_within, site_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)
IDENTITY, CLIENT, PREFIX = "framewire.identity", "framewire.client", "framewire.prefix"
"""Keys of an ASGI scope: the `Identity` (None if a login is missing and not required), the client's address, and the
path below which a named proxy shows the server."""
POLICY_VIOLATION = 1008
MAX_SHOWN_CHARS = 100


@dataclass(frozen=True, slots=True)
class GateRules:
    """The settings of the gate.

    Attributes:
        exposure: where the server listens, and behind which proxies.
        authority: identifies users; None: everyone is `ANYBODY`.
        open_paths: paths that need no login: the login itself, static files, health. A path that ends in `/` covers
            everything below it.
        hosts: host names by which the server is reached, besides those of loopback.
        origins: origins of other pages that may use it.
        rate: requests per client.
        max_body: bytes of a request's body.
        body_s: how long a body may take to arrive.
        send_s: how long a client may take to accept a part of an answer.
        csp: the Content-Security-Policy of every answer.
    """

    exposure: Exposure
    authority: Authority | None = None
    open_paths: Collection[str] = ()
    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    rate: RateLimiter | None = None
    max_body: int = 256 * 1024
    body_s: float = 30.0
    send_s: float = 30.0
    csp: str = CSP
    guesses: FailureLimiter = field(default_factory=FailureLimiter)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer given instead of the application's.

    Attributes:
        status: of HTTP.
        reason: what is wrong, and how to fix it.
        headers: further headers.
    """

    status: int
    reason: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class BodyRefusedError(Exception):
    """A body is too large or too slow: the application that reads it need not handle this."""


class Gate:
    """An ASGI application that checks every request and WebSocket before the one behind it sees it.

    It answers refused requests itself, in JSON: `{"error": "..."}`.

    Args:
        app: the application.
        rules: what to check.
    """

    def __init__(self, app: ASGIApp, rules: GateRules) -> None:
        self._app, self._rules = app, rules
        self._hosts = frozenset(name.lower() for name in rules.hosts)
        self._headers = [*ALWAYS, (b"content-security-policy", rules.csp.encode("latin-1"))]
        self._allowed_networks = rules.exposure.proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket, or the life of the server."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope["headers"])
        peer = (scope.get("client") or ("", 0))[0]
        client = client_of(peer, headers.get("x-forwarded-for"), self._rules.exposure.proxies)
        forwarded = forwarded_of(peer, headers, self._rules.exposure.proxies)
        scope[CLIENT], scope[PREFIX] = client, forwarded.prefix
        if forwarded.is_https:
            scope["scheme"] = "wss" if scope["type"] == "websocket" else "https"
        if forwarded.host is not None:
            headers["x-forwarded-host"] = forwarded.host
        else:
            headers.pop("x-forwarded-host", None)
        refusal = self._refusal(scope, headers, peer, client)
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send, refusal)
            return
        body = _Body(receive, self._rules.max_body, self._rules.body_s)
        answer = _Answer(send, self._headers, self._rules.send_s, body)
        if refusal is not None:
            await answer.refuse(refusal)
            return
        try:
            await self._app(scope, body.receive, answer.send)
        except BodyRefusedError:
            if body.refusal is not None:
                await answer.refuse(body.refusal)
        except asyncio.TimeoutError:
            logger.info("%s does not read its answer: closed", client, extra=ANY_CLIENT)
            raise

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, refusal: Refusal | None) -> None:
        if refusal is None:
            await self._app(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refusal.reason[:100]})

    def _refusal(self, scope: Scope, headers: dict[str, str], peer: str, client: str) -> Refusal | None:
        """Return why a request is refused, or None; sets its identity."""
        rules = self._rules
        method = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
        if not self._is_expected(peer):
            return Refusal(403, "only the reverse proxy may connect here: use its address")
        host = headers.get("host", "")
        behind = headers.get("x-forwarded-host", host)  # only from a trusted proxy
        for name in (host, behind):
            if not is_host_allowed(name, rules.exposure.listen, self._hosts):
                shown = printable(name, MAX_SHOWN_CHARS)
                logger.warning(
                    "refused a request for host %r: allow it by name if it is yours", shown, extra=ANY_CLIENT
                )
                return Refusal(421, "this server does not accept that Host: allow the name when starting the server")
        if not is_origin_allowed(method, {**headers, "host": behind}, rules.origins):
            shown = printable(headers.get("origin", "another site"), MAX_SHOWN_CHARS)
            logger.warning("refused a request from a page on %s", shown, extra=ANY_CLIENT)
            return Refusal(403, "a page of another site may not use this server")
        if rules.rate is not None and (wait_s := rules.rate.wait_s(site_of(client))):
            return _later("too many requests", wait_s)
        if int_of(headers.get("content-length")) > rules.max_body:
            return Refusal(413, f"the body has more than {rules.max_body} bytes: send fewer")
        return self._identify(scope, headers, site_of(client))

    def _is_expected(self, peer: str) -> bool:
        """Return whether a peer may connect: if proxies handle TLS and login, only they and this machine may."""
        exposure = self._rules.exposure
        if not exposure.proxies or (exposure.tls is not None and self._rules.authority is not None):
            return True
        address = address_of(peer)
        return address is None or address.is_loopback or is_within(address, exposure.proxies)

    def _identify(self, scope: Scope, headers: dict[str, str], site: str) -> Refusal | None:
        authority = self._rules.authority
        if authority is None:
            scope[IDENTITY] = ANYBODY
            return None
        wait_s = self._rules.guesses.wait_s(site)
        identity: Identity | None = None if wait_s else authority.identify(headers)
        scope[IDENTITY] = identity
        if identity is not None or _is_open(scope["path"], self._rules.open_paths):
            return None
        if wait_s:
            return _later("too many wrong tokens", wait_s)
        if "authorization" in headers:
            self._rules.guesses.failed(site)
        return Refusal(401, "log in, or send Authorization: Bearer TOKEN", ((b"www-authenticate", b"Bearer"),))


class _Body:
    """Receives the body of a request, within limits."""

    def __init__(self, receive: Receive, most: int, within_s: float) -> None:
        self._receive, self._most, self._within_s = receive, most, within_s
        self._taken = 0
        self._until = math.inf
        self._is_whole = False
        self.refusal: Refusal | None = None

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()  # waits for the client to disconnect
        loop = asyncio.get_running_loop()
        if self._until == math.inf:
            self._until = loop.time() + self._within_s
        try:
            message = await asyncio.wait_for(self._receive(), max(self._until - loop.time(), 0.0))
        except asyncio.TimeoutError as error:
            self.refusal = Refusal(408, f"the body did not arrive within {self._within_s:g} s: send it again")
            raise BodyRefusedError from error
        if message["type"] == "http.disconnect":
            raise BodyRefusedError  # the client has left: nobody reads a refusal
        self._taken += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._taken > self._most:
            self.refusal = Refusal(413, f"the body has more than {self._most} bytes: send fewer")
            raise BodyRefusedError
        return message


class _Answer:
    """Sends an answer with the common headers."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]], within_s: float, body: _Body) -> None:
        self._send, self._headers, self._within_s, self._body = send, headers, within_s, body
        self._has_begun = False

    async def send(self, message: Message) -> None:
        """Send a part of the application's answer, or nothing if its own error page would hide a refusal."""
        if self._body.refusal is None or self._has_begun:
            await self._pass(message)

    async def _pass(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_begun = True
            own = {name.lower() for name, _ in message.get("headers", ())}
            more = [pair for pair in self._headers if pair[0] not in own]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await asyncio.wait_for(self._send(message), self._within_s)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with an error; the rest of the body is read and discarded, or the connection closed if it is slow."""
        if self._has_begun:
            return
        body = json.dumps({"error": refusal.reason}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            *refusal.headers,
        ]
        if refusal.status == 408:
            headers.append((b"connection", b"close"))
        await self._pass({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self._pass({"type": "http.response.body", "body": body})


def _later(what: str, wait_s: float) -> Refusal:
    seconds = retry_after(wait_s)
    return Refusal(429, f"{what}: wait {seconds} s", ((b"retry-after", seconds.encode()),))


def _is_open(path: str, open_paths: Collection[str]) -> bool:
    return any(path == each or (each.endswith("/") and path.startswith(each)) for each in open_paths)


def int_of(text: str | None) -> int:
    """Return a number of bytes from a header, 0 if it is missing or not a number."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 18 else 0
