"""The socket to which the engines of a fleet connect their publishers, and its fence."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import zmq

from engine.errors import ConfigError, SinkError
from engine.transport.address import binding, checked_address, is_loopback
from engine.transport.connect import PING_MS, PING_TIMEOUT_MS
from engine.transport.curve import CurveServer
from engine.transport.guard import SocketGuard
from engine.transport.ipv6 import prepare
from engine.transport.zap import refuse_old_protocols
from engine.wire import MAX_BODY_BYTES
from engine.wire.fence import EpochFence

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

HIGH_WATER_MARK = 1000
MAX_ENGINES = 256
ALLOWANCE_BYTES = 8 * MAX_BODY_BYTES
"""Messages that one engine may have in transit while the proxy is busy."""
ALL_BYTES = 4 * ALLOWANCE_BYTES


class Collector:
    """An XSUB socket that engines connect to. Use it on one thread.

    Args:
        address: the endpoint to bind.
        keys: CURVE keys of the collector: engines must encrypt.
        allowed: public keys of the engines that may connect.

    Attributes:
        address: the bound endpoint, once `open` has returned.
        fence: passes only messages of each source's newest owner.
        guard: closes connections that send more than messages.

    Raises:
        ConfigError: engines on other machines could connect without a listed key, or keys are incomplete.
    """

    def __init__(self, address: str, keys: KeyPair | None, allowed: Collection[str] | None) -> None:
        self.address = checked_address(address, "collect address")
        if allowed is not None and keys is None:
            raise ConfigError("keys of engines were given, but none of the proxy: give the proxy its own keys")
        if allowed is None and not is_loopback(self.address):
            raise ConfigError(
                f"collect address {address} is open to other machines, and any of them can take over any source: "
                "give --keys and one --allowed-engine per engine (framewire keys), or use tcp://127.0.0.1:PORT"
            )
        self.fence = EpochFence()
        self.guard = SocketGuard(most_unexplained=ALL_BYTES)
        self._curve = None if keys is None or allowed is None else CurveServer(keys, allowed)
        self._context: zmq.Context[Any] | None = None
        self._socket: zmq.Socket[Any] | None = None

    @property
    def socket(self) -> zmq.Socket[Any]:
        """The bound socket. Raises `SinkError` before `open`."""
        if self._socket is None:
            raise SinkError(f"{self.address} is not open: call open() first")
        return self._socket

    def open(self) -> None:
        """Bind. Raises `SinkError` if the port is in use."""
        context = self._context = zmq.Context()
        socket = self._socket = context.socket(zmq.XSUB)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_BODY_BYTES)
        socket.setsockopt(zmq.HEARTBEAT_IVL, PING_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, PING_TIMEOUT_MS)
        if self._curve is None:
            refuse_old_protocols(socket)
        else:
            self._curve.guard = self.guard
            self._curve.open(context)
            self._curve.secure(socket)
        self.guard.watch(context, socket, "collect", limit=MAX_ENGINES, allowance=ALLOWANCE_BYTES)
        try:
            with binding(self.address):
                socket.bind(prepare(socket, self.address))
        except zmq.ZMQError as error:
            raise SinkError(f"cannot collect at {self.address}: {error}: choose another address") from error
        self.address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.guard.start()

    def receive(self) -> list[bytes]:
        """Return the parts of the next message. Raises `zmq.Again` if none has arrived."""
        frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        self.guard.explain(frames[-1], sum(len(frame) for frame in frames), parts=len(frames))
        return [frame.bytes for frame in frames]

    def service(self) -> None:
        """Admit or refuse engines that connect."""
        if self._curve is not None:
            self._curve.service()

    def close(self) -> None:
        """Disconnect; harmless when repeated."""
        self.guard.close()
        if self._socket is not None:
            self._socket.close(linger=0)
        if self._curve is not None:
            self._curve.close()
        if self._context is not None:
            self._context.term()
        self._socket = self._context = None
