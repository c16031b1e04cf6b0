"""HTTP connections with one deadline for everything: a server that sends single bytes cannot extend it."""

from __future__ import annotations

import io
import socket
import ssl
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from typing import Any

LATE = "no complete answer in time"


class TimedConnection(HTTPConnection):
    """A connection of `http.client` on which no wait lasts beyond `until`.

    The timeout of a socket holds for each system call, so a head or body that arrives byte by byte could take
    arbitrarily long.

    Args:
        host: name or address, without brackets.
        port: of TCP.
        until: the deadline, in seconds of `time.monotonic`.
        tls: how to verify the server; None: a plain connection.

    Attributes:
        until: the deadline; may be changed between two requests.

    Methods raise `TimeoutError` after the deadline.
    """

    def __init__(self, host: str, port: int, until: float, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(host, port)
        self.until = until
        self._tls = tls
        self.response_class = self._timed_response  # type: ignore[assignment]

    def connect(self) -> None:
        """Connect, and shake hands if the connection is encrypted; a failure leaves no open socket."""
        self.sock = socket.create_connection((self.host, self.port), timeout=left(self.until))
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                self.sock.settimeout(left(self.until))
                self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)
        except BaseException:
            self.close()
            raise

    def send(self, data: Any) -> None:
        """Send bytes."""
        if self.sock is not None:
            self.sock.settimeout(left(self.until))
        super().send(data)

    def _timed_response(self, sock: socket.socket, *args: Any, **named: Any) -> HTTPResponse:
        return timed(HTTPResponse(sock, *args, **named), sock, lambda: left(self.until))


def timed(response: HTTPResponse, sock: socket.socket, wait_s: Callable[[], float]) -> HTTPResponse:
    """Return a response, not read yet, that waits for `wait_s()` seconds at most for each piece of it."""
    response.fp = io.BufferedReader(_Timed(response.fp.detach(), sock, wait_s))
    return response


class _Timed(io.RawIOBase):
    """The bytes that arrive on a socket."""

    def __init__(self, raw: Any, sock: socket.socket, wait_s: Callable[[], float]) -> None:
        self._raw, self._sock, self._wait_s = raw, sock, wait_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._wait_s())
        try:
            count: int | None = self._raw.readinto(buffer)
        except TimeoutError as error:
            raise TimeoutError(LATE) from error
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def left(until: float) -> float:
    """Return the seconds until a deadline. Raises `TimeoutError` once it has passed."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError(LATE)
    return seconds
