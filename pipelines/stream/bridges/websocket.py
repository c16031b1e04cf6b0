"""Bridge to browsers: sends every message as a WebSocket text frame.

A slow browser loses messages, but others do not.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from engine.errors import SinkError
from engine.optional import require
from engine.redaction import printable
from engine.subscriber.aio import AsyncSubscriber
from engine.subscriber.reader import ALL_TOPICS
from engine.wire import encode, kind_of, topic_of

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # not generic in Python 3.10

logger = logging.getLogger(__name__)
KEPT_PER_CLIENT = 50
MAX_CLIENTS = 200
MAX_INPUT_BYTES = 1024
TRY_LATER = 1013
FORBIDDEN = 403
MAX_ORIGIN_CHARS = 100
MAX_ORIGINS_TOLD = 20
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


class _ConnectionLog(_Adapter):
    """Logs connections without tracebacks: anyone who reaches the port can fail a handshake, as often as they like."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the standard library's name
        """Return whether records of a level are logged; never the library's debug records, which hold every message."""
        return level > logging.DEBUG and self.logger.isEnabledFor(logging.DEBUG if level < logging.WARNING else level)

    def log(self, level: int, msg: object, *args: object, **more: Any) -> None:
        """Log a record; those about handshakes, and those below warnings, only for debugging and without traceback."""
        if level >= logging.WARNING and "handshake" not in str(msg):
            super().log(level, msg, *args, **more)
        elif self.isEnabledFor(level):
            self.logger.debug(str(msg), *args)


@dataclass(eq=False)
class _Browser:
    """One connection: its topics and its waiting messages."""

    topics: tuple[str, ...]
    waiting: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_PER_CLIENT))
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class WebSocketBridge:
    """Serves `ws://host:port/?topic=v1/frame/gate/` (any number of `topic`s; none means all). Needs websockets.

    Args:
        address: address of the publisher.
        host: host to listen on.
        port: port to listen on; 0 chooses a free one.
        topics: topics to subscribe to at the publisher.
        origins: origins of pages that may connect (`http://host:port`); `*` allows any. None allows pages served by
            this machine. Programs other than browsers send no origin and may always connect.
        count: end after this many messages of the publisher; None serves until cancelled.
        server_key: public key of a publisher that encrypts.
        keys: CURVE keys of this reader.

    Attributes:
        port: the bound port, once `serving` is set.
        serving: an `asyncio.Event`, set when browsers can connect.
        taken: messages of the publisher, by kind.
        dropped: messages that slow browsers missed.
    """

    def __init__(
        self,
        address: str,
        *,
        host: str = "127.0.0.1",
        port: int = 8765,
        topics: Sequence[str] = ALL_TOPICS,
        origins: Sequence[str] | None = None,
        count: int | None = None,
        server_key: str | None = None,
        keys: KeyPair | None = None,
    ) -> None:
        self.port = port
        self.taken: Counter[str] = Counter()
        self.dropped = 0
        self.serving = asyncio.Event()
        self._address = address
        self._host = host
        self._topics = tuple(topics)
        self._origins = origins
        self._count = count
        self._server_key, self._keys = server_key, keys
        self._browsers: set[_Browser] = set()
        self._refused: set[str] = set()

    @property
    def browsers(self) -> int:
        """Number of connected browsers."""
        return len(self._browsers)

    async def run(self) -> None:
        """Serve until cancelled, or until `count` messages have arrived.

        Raises:
            SinkError: the port cannot be bound.
            MissingDependencyError: the package websockets is not installed.
        """
        server = require("websockets.asyncio.server", extra="websocket")
        options: dict[str, Any] = {
            "max_size": MAX_INPUT_BYTES,
            "process_request": self._check_origin,
            "compression": None,
            "logger": _ConnectionLog(logger, {}),
        }
        if self._host not in LOCAL_HOSTS:
            logger.warning("anyone on the network can read ws://%s:%s: bind 127.0.0.1", self._host, self.port)
        try:
            listening = await server.serve(self._serve, self._host, self.port, **options)
        except OSError as error:
            raise SinkError(
                f"cannot listen on {self._host}:{self.port}: {error.strerror}: choose another port"
            ) from error
        subscriber = AsyncSubscriber(self._address, self._topics, server_key=self._server_key, keys=self._keys)
        async with listening, subscriber:
            self.port = listening.sockets[0].getsockname()[1]
            self.serving.set()
            async for message in subscriber:
                self.taken[kind_of(message)] += 1
                self._offer(topic_of(message), encode(message).decode())
                if self.taken.total() == self._count:
                    return

    def _check_origin(self, connection: Any, request: Any) -> Any:
        """Reject pages of other sites, which a browser would allow to read data from this machine."""
        origin = request.headers.get("Origin")
        if origin is None or self._is_allowed(origin):
            return None
        shown = printable(origin, MAX_ORIGIN_CHARS)
        if shown not in self._refused and len(self._refused) < MAX_ORIGINS_TOLD:
            self._refused.add(shown)
            logger.warning("a page from %s was refused: allow it with --origin", shown)
        return connection.respond(FORBIDDEN, "this page may not read the stream\n")

    def _is_allowed(self, origin: str) -> bool:
        if self._origins is not None:
            return "*" in self._origins or origin in self._origins
        try:
            return urlsplit(origin).hostname in LOCAL_HOSTS
        except ValueError:
            return False

    def _offer(self, topic: str, text: str) -> None:
        for browser in self._browsers:
            if topic.startswith(browser.topics):
                self.dropped += len(browser.waiting) == KEPT_PER_CLIENT
                browser.waiting.append(text)
                browser.ready.set()

    async def _serve(self, connection: Any) -> None:
        if len(self._browsers) >= MAX_CLIENTS:
            await connection.close(TRY_LATER, "too many connections")
            return
        wanted = parse_qs(urlsplit(connection.request.path).query).get("topic", [""])
        browser = _Browser(tuple(wanted))
        self._browsers.add(browser)
        sending = asyncio.create_task(self._send(connection, browser))
        try:
            await connection.wait_closed()
        finally:
            self._browsers.discard(browser)
            sending.cancel()

    @staticmethod
    async def _send(connection: Any, browser: _Browser) -> None:
        closed = require("websockets.exceptions").ConnectionClosed
        try:
            while True:
                await browser.ready.wait()
                browser.ready.clear()
                while browser.waiting:
                    await connection.send(browser.waiting.popleft())
        except closed:
            return
