"""uvicorn's HTTP protocol with limits uvicorn lacks. It needs the extra `web`: import it only to start a server."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipelines.logs import ANY_CLIENT
from pipelines.web.access.limits import ServerLimits
from pipelines.web.access.listen import site_of

logger = logging.getLogger(__name__)


def guarded_protocol(limits: ServerLimits) -> type[GuardedProtocol]:
    """Return the protocol of one server: its connections share the limits and are counted by client."""
    return type("ServerProtocol", (GuardedProtocol,), {"limits": limits, "by_client": Counter()})


class GuardedProtocol(HttpToolsProtocol):
    """One connection. It reads a head within `head_s` and `head_bytes`."""

    limits: ClassVar[ServerLimits]
    by_client: ClassVar[Counter[str]]
    _site: str | None = None
    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _rest_bytes = 0
    _in_head = True
    _got_whole = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection of a client, or refuse it."""
        super().connection_made(transport)
        site = site_of((self.client or ("",))[0])
        if self.by_client.total() >= self.limits.connections or self.by_client[site] >= self.limits.per_client:
            logger.warning("%s: too many connections, refusing one", site, extra=ANY_CLIENT)
            self._end(503, b"too many connections")
            return
        self._site = site
        self.by_client[site] += 1
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._leave()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to the WebSocket protocol; from here on the application counts it."""
        self._leave()
        super().handle_websocket_upgrade()

    def _leave(self) -> None:
        self._stop_timer()
        if self._site is not None:
            self.by_client[self._site] -= 1
            if self.by_client[self._site] <= 0:
                del self.by_client[self._site]
            self._site = None

    def data_received(self, data: bytes) -> None:
        """Read what arrived, and end a head or an unread body that grows too large."""
        if self.transport.is_closing():
            return
        self._got_whole, was_in_head = False, self._in_head
        super().data_received(data)
        if self._in_head and was_in_head and not self._got_whole:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes:
                self._end(431, b"the head of the request is too large")
        elif not self._in_head and self.cycle is not None and self.cycle.response_complete:
            self._rest_bytes += len(data)
            if self._rest_bytes > self.limits.rest_bytes:
                self.transport.close()

    def on_response_complete(self) -> None:
        """Limit the time for the rest of a body that was already answered."""
        super().on_response_complete()
        if not self._in_head and self._timer is None:  # the rest of the body is read and discarded
            self._timer = self.loop.call_later(self.limits.head_s, self.transport.close)

    def on_message_begin(self) -> None:
        """Start the time limit for a head."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        if self._timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """Record that the head has arrived."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Record that the whole request has arrived."""
        super().on_message_complete()
        self._in_head, self._got_whole, self._head_bytes, self._rest_bytes = True, True, 0, 0
        self._stop_timer()

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(self.limits.head_s, self._end, 408, b"the head did not arrive in time")

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
