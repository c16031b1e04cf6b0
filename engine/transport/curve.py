"""Who may read: CURVE encryption, an allow list of client keys (ZAP), and the count of those turned away.

libzmq asks `inproc://zeromq.zap.01` whether a key may connect (RFC 27); this module answers there, on the publishing
thread, so that no further thread is needed. A reader waits for its handshake until the next packet or tick.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from engine.transport.keys import KeyPair

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_DOMAIN = b"framewire"
ZAP_VERSION = b"1.0"
ZAP_PARTS = 8
MAX_PER_TURN = 64
_FAILURES = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


class CurveServer:
    """Makes sockets encrypted, and lets only listed clients in. Use on one thread.

    Args:
        keys: of this server.
        allowed: public keys of the clients that may read; None lets in every client that knows our public key.

    Attributes:
        admitted: connections let in.
        denied: connections with a key that is not listed.
        failed: connections that broke off their handshake, as plain clients do.
    """

    def __init__(self, keys: KeyPair, allowed: Collection[str] | None = None) -> None:
        self._keys = keys
        self._allowed = None if allowed is None else frozenset(allowed)
        self.admitted = 0
        self.denied = 0
        self.failed = 0
        self._gate: zmq.Socket[Any] | None = None
        self._monitors: list[zmq.Socket[Any]] = []
        self._context: zmq.Context[Any] | None = None

    def open(self, context: zmq.Context[Any]) -> None:
        """Take the seat of the ZAP handler in a context; before any socket is bound there."""
        self._context = context
        self._gate = context.socket(zmq.ROUTER)
        self._gate.setsockopt(zmq.LINGER, 0)
        self._gate.bind(ZAP_ENDPOINT)

    def secure(self, socket: zmq.Socket[Any]) -> None:
        """Make a socket speak CURVE only; before it is bound."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
        socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        self._watch(socket)

    def service(self) -> None:
        """Answer the questions of libzmq, and count the handshakes that failed."""
        gate = self._gate
        for _ in range(MAX_PER_TURN):
            if gate is None or not gate.poll(0):
                break
            self._answer(gate, gate.recv_multipart(zmq.NOBLOCK))
        for monitor in self._monitors:
            while monitor.poll(0):
                event = parse_monitor_message(monitor.recv_multipart(zmq.NOBLOCK))
                self.failed += event["event"] != zmq.EVENT_MONITOR_STOPPED

    def close(self) -> None:
        """Leave the seat; harmless when repeated."""
        for socket in (*self._monitors, self._gate):
            if socket is not None:
                socket.close(linger=0)
        self._monitors, self._gate, self._context = [], None, None

    def _answer(self, gate: zmq.Socket[Any], parts: list[bytes]) -> None:
        peer, empty, version, request_id, *rest = parts
        is_curve = len(parts) >= ZAP_PARTS + 1 and version == ZAP_VERSION and rest[3] == b"CURVE"
        is_allowed = is_curve and (self._allowed is None or _client_key(rest[4]) in self._allowed)
        self.admitted += is_allowed
        self.denied += not is_allowed
        status = (b"200", b"OK") if is_allowed else (b"400", b"this key is not on the list")
        gate.send_multipart([peer, empty, version, request_id, *status, b"", b""], zmq.NOBLOCK)

    def _watch(self, socket: zmq.Socket[Any]) -> None:
        """Count failed handshakes; the queue has no limit, as libzmq would wait on a full one, and is emptied often."""
        if self._context is None:
            return
        endpoint = f"inproc://framewire.monitor.{len(self._monitors)}"
        socket.monitor(endpoint, _FAILURES)
        monitor = self._context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.connect(endpoint)
        self._monitors.append(monitor)


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach a bound address.

    >>> is_loopback("tcp://127.0.0.1:5555"), is_loopback("tcp://*:5555"), is_loopback("ipc:///tmp/x")
    (True, False, True)
    """
    transport, _, rest = address.partition("://")
    host = rest.rpartition(":")[0].strip("[]")
    if transport != "tcp":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "lo")


def _client_key(binary: bytes) -> str:
    return z85.encode(binary).decode() if len(binary) == 32 else ""
