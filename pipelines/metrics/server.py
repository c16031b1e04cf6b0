"""A small HTTP server for Prometheus and for health probes: GET only, with limits on requests, time and connections."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from engine.clock import pause
from engine.errors import ConfigError, SinkError
from engine.transport.address import is_loopback

logger = logging.getLogger(__name__)
MAX_REQUEST_BYTES = 8192
REQUEST_S = 2.0
REPLY_S = 10.0
MAX_CONNECTIONS = 16
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_ADDRESS = re.compile(r"\A(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):(\d{1,5})")
_REQUEST = re.compile(rb"(GET|HEAD) (/[!-~]{0,1024}) HTTP/1\.[01]\r?\n")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        body: its text.
        status: HTTP status.
        content_type: of the body.
    """

    body: str
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


Route = Callable[[], Reply]


def host_and_port(address: str, key: str = "metrics.address") -> tuple[str, int]:
    """Return host and port of `HOST:PORT`.

    Raises:
        ConfigError: the address is malformed.

    >>> host_and_port("[::1]:9464")
    ('::1', 9464)
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[2]) > 65535:
        raise ConfigError(f"{key} {address!r}: expected HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464, or none")
    return match[1].strip("[]"), int(match[2])


class MetricsServer:
    """Serves routes at an address; it binds at once, so that a port in use is noticed early, and answers after `start`.

    Args:
        address: `HOST:PORT`; port 0 finds a free one.

    Attributes:
        address: the bound `HOST:PORT`.

    Raises:
        ConfigError: the address is malformed.
        SinkError: the port is in use, or this machine does not have the address.
    """

    def __init__(self, address: str) -> None:
        host, port = host_and_port(address)
        try:
            family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._socket = socket.create_server(place[:2], family=family, backlog=64)
        except OSError as error:
            raise SinkError(
                f"cannot serve metrics on {address}: {error.strerror}: use another port or address"
            ) from error
        bound = self._socket.getsockname()
        self.address = f"[{bound[0]}]:{bound[1]}" if family == socket.AF_INET6 else f"{bound[0]}:{bound[1]}"
        self._routes: Mapping[str, Route] = {}
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._thread: threading.Thread | None = None

    def start(self, routes: Mapping[str, Route]) -> None:
        """Answer from now on; a route is called on a thread of this server."""
        self._routes = routes
        if not is_loopback(f"tcp://{self.address}"):
            logger.warning("anyone on the network can read the metrics and camera names at %s", self.address)
        self._thread = threading.Thread(target=self._accept, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; harmless when repeated."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._socket.close()
        if self._thread is not None:
            self._thread.join(1.0)

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            self._slots.acquire()
            try:
                connection, _ = self._socket.accept()
            except OSError:
                self._slots.release()
                if self._socket.fileno() < 0:
                    return
                pause(0.1)  # out of descriptors, or a peer that has gone
                continue
            try:
                threading.Thread(target=self._serve, args=(connection,), name="metrics peer", daemon=True).start()
            except RuntimeError:  # out of threads
                connection.close()
                self._slots.release()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                request = _read_request(connection)
                if request is not None:
                    connection.settimeout(REPLY_S)
                    connection.sendall(self._answer(request))
        finally:
            self._slots.release()

    def _answer(self, request: bytes) -> bytes:
        match = _REQUEST.match(request)
        if match is None:
            known = request[:4] in (b"GET ", b"HEAD")
            return _encoded(Reply("this server only answers GET\n", 400 if known else 405))
        path = match[2].decode().partition("?")[0]
        route = self._routes.get(path)
        if route is None:
            return _encoded(Reply(f"there are {', '.join(self._routes)}\n", 404))
        try:
            reply = route()
        except Exception:
            logger.exception("%s failed", path)
            reply = Reply("the log says what failed\n", 500)
        return _encoded(reply, with_body=match[1] == b"GET")


def _read_request(connection: socket.socket) -> bytes | None:
    """Return the head of a request; None if it is too long or does not arrive in time."""
    deadline, received = time.monotonic() + REQUEST_S, b""
    while b"\r\n\r\n" not in received and b"\n\n" not in received:
        left = deadline - time.monotonic()
        if left <= 0 or len(received) > MAX_REQUEST_BYTES:
            return None
        connection.settimeout(left)
        part = connection.recv(4096)
        if not part:
            return None
        received += part
    return received


def _encoded(reply: Reply, *, with_body: bool = True) -> bytes:
    body = reply.body.encode("utf-8", "backslashreplace")
    head = (
        f"HTTP/1.1 {reply.status} {_REASONS[reply.status]}\r\nContent-Type: {reply.content_type}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
