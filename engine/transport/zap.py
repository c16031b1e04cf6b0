"""ZAP, by which libzmq asks whether a connection is admitted (RFC 27), answered on the thread of the socket.

A socket with a ZAP domain also refuses ZMTP 1.0 and 2.0. This is essential, because their greetings can occur in other
protocols: an HTTP POST from any web page was accepted as a message.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Any

import zmq

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_DOMAIN = b"framewire"
ZAP_VERSION = b"1.0"
ZAP_PARTS = 8
MAX_PER_TURN = 64
TOKEN_USER = b"framewire"
Decide = Callable[[bytes, Sequence[bytes]], bool]


class ZapHandler:
    """Answers libzmq's requests in one context.

    Args:
        decide: takes the mechanism (`NULL`, `PLAIN`, `CURVE`) and the credentials, and returns whether to admit them.

    Attributes:
        admitted: connections admitted.
        denied: connections refused.
    """

    def __init__(self, decide: Decide) -> None:
        self.admitted = 0
        self.denied = 0
        self._decide = decide
        self._seat: zmq.Socket[Any] | None = None

    def open(self, context: zmq.Context[Any]) -> None:
        """Become the handler of a context; call this before any socket is bound in it."""
        self._seat = context.socket(zmq.ROUTER)
        self._seat.setsockopt(zmq.LINGER, 0)
        self._seat.bind(ZAP_ENDPOINT)

    def service(self) -> None:
        """Answer pending requests."""
        for _ in range(MAX_PER_TURN):
            if self._seat is None or not self._seat.poll(0):
                return
            self._answer(self._seat, self._seat.recv_multipart(zmq.NOBLOCK))

    def close(self) -> None:
        """Stop being the handler; harmless when repeated."""
        if self._seat is not None:
            self._seat.close(linger=0)
            self._seat = None

    def _answer(self, seat: zmq.Socket[Any], parts: list[bytes]) -> None:
        peer, empty, version, request_id, *rest = parts
        is_sound = len(parts) >= ZAP_PARTS and version == ZAP_VERSION
        is_admitted = is_sound and self._decide(rest[3], rest[4:])
        self.admitted += is_admitted
        self.denied += not is_admitted
        status = (b"200", b"OK") if is_admitted else (b"400", b"not on the list")
        seat.send_multipart([peer, empty, version, request_id, *status, b"", b""], zmq.NOBLOCK)


class TokenServer:
    """Admits clients that know a token, over ZMTP's PLAIN mechanism; others cannot send a single message. For loopback.

    Args:
        token: the shared secret.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._handler = ZapHandler(self._knows)

    @property
    def denied(self) -> int:
        """Number of connections that did not know the token."""
        return self._handler.denied

    def open(self, context: zmq.Context[Any]) -> None:
        """Become the handler; call this before any socket is bound."""
        self._handler.open(context)

    def secure(self, socket: zmq.Socket[Any]) -> None:
        """Make a socket ask for the token; call this before it is bound."""
        socket.setsockopt(zmq.PLAIN_SERVER, 1)
        socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)

    def service(self) -> None:
        """Answer libzmq's requests."""
        self._handler.service()

    def close(self) -> None:
        """Stop being the handler."""
        self._handler.close()

    def _knows(self, mechanism: bytes, credentials: Sequence[bytes]) -> bool:
        is_plain = mechanism == b"PLAIN" and len(credentials) == 2 and credentials[0] == TOKEN_USER
        return is_plain and hmac.compare_digest(credentials[1], self._token)


def refuse_old_protocols(socket: zmq.Socket[Any]) -> None:
    """Make a plain socket refuse ZMTP 1.0 and 2.0, and so HTTP; call this before it is bound. Needs no handler."""
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)


def token_options(token: str) -> dict[int, bytes]:
    """Return the socket options of a client that knows a token."""
    return {zmq.PLAIN_USERNAME: TOKEN_USER, zmq.PLAIN_PASSWORD: token.encode()}
