"""Access control: CURVE encryption, an allow list of client keys (ZAP), and a count of refused clients.

libzmq asks `inproc://zeromq.zap.01` whether a key may connect (RFC 27). This module answers on the publishing thread,
so that no further thread is needed. A reader waits for its handshake until the next packet or tick.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import zmq
from zmq.utils import z85

from engine.transport.guard import SocketGuard
from engine.transport.keys import KeyPair
from engine.transport.zap import ZAP_DOMAIN, ZapHandler


class CurveServer:
    """Encrypts sockets and admits only listed clients. Use it on one thread.

    Args:
        keys: of this server.
        allowed: public keys of the clients that may read; None admits every client that knows our public key.

    Attributes:
        guard: of the sockets, once they have one; it counts failed handshakes.
    """

    def __init__(self, keys: KeyPair, allowed: Collection[str] | None = None) -> None:
        self._keys = keys
        self._allowed = None if allowed is None else frozenset(allowed)
        self._handler = ZapHandler(self._is_allowed)
        self.guard: SocketGuard | None = None

    @property
    def admitted(self) -> int:
        """Number of connections admitted."""
        return self._handler.admitted

    @property
    def denied(self) -> int:
        """Number of connections with a key that is not listed."""
        return self._handler.denied

    @property
    def failed(self) -> int:
        """Number of connections that aborted their handshake, as plain clients do."""
        return 0 if self.guard is None else self.guard.failed

    def open(self, context: zmq.Context[Any]) -> None:
        """Become the ZAP handler of a context; call this before any socket is bound in it."""
        self._handler.open(context)

    def secure(self, socket: zmq.Socket[Any]) -> None:
        """Make a socket accept only CURVE; call this before it is bound."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
        socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)

    def service(self) -> None:
        """Answer libzmq's requests."""
        self._handler.service()

    def close(self) -> None:
        """Stop being the ZAP handler; harmless when repeated."""
        self._handler.close()

    def _is_allowed(self, mechanism: bytes, credentials: Sequence[bytes]) -> bool:
        if mechanism != b"CURVE" or len(credentials) != 1:
            return False
        return self._allowed is None or _client_key(credentials[0]) in self._allowed


def _client_key(binary: bytes) -> str:
    return z85.encode(binary).decode() if len(binary) == 32 else ""
