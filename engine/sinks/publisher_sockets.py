"""The publisher's sockets, each bound and used on the publishing thread.

How losses are detected: an XPUB socket that must not drop (`XPUB_NODROP`) refuses a message when the queue of any
matching reader is full; a socket that may drop silently skips just those readers. So each message is first tried
without dropping. If it is refused, an overflow of its kind is counted and the message is sent again with dropping
allowed: all readers with room get it, and nothing waits. libzmq then skips the slow reader until it has read half of
its queue, so the overflow count shows how often readers fell behind, and each reader knows exactly what it missed
from the gaps in `seq`.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zmq

from engine.errors import SinkError
from engine.transport.address import binding
from engine.transport.connect import PING_MS, PING_TIMEOUT_MS, RECONNECT_MAX_MS, RECONNECT_MS, curve_options
from engine.transport.curve import CurveServer
from engine.transport.guard import NO_LIMIT, SocketGuard
from engine.transport.ipv6 import prepare
from engine.transport.requests import RequestQueue
from engine.transport.zap import refuse_old_protocols

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

MAX_INPUT_BYTES = 1024
MAX_REQUESTS_PER_TURN = 16
MAX_ENVELOPE_PARTS = 4
BACKLOG = 128
_LAST = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)

_REMEDIES = {
    zmq.EADDRINUSE: "another program uses this port: stop it, or use another port (tcp://127.0.0.1:* finds a free one)",
    zmq.EADDRNOTAVAIL: "this machine does not have this address: use 127.0.0.1, * or one of its own",
    errno.ENODEV: "this machine does not have this interface: use 127.0.0.1, * or one of its own",
}


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """Options shared by all sockets of a publisher.

    Attributes:
        high_water_mark: messages queued for one slow reader.
        send_buffer_bytes: kernel buffer per reader.
        linger_ms: how long closing waits for readers to take messages that were sent.
        curve: encryption and the keys that may read; None: plain.
        guard: bounds the memory and descriptors that peers can use; None: no limits.
    """

    high_water_mark: int
    send_buffer_bytes: int
    linger_ms: int
    curve: CurveServer | None = None
    guard: SocketGuard | None = None


def bound_socket(
    context: zmq.Context[Any], kind: int, address: str, options: SocketOptions
) -> tuple[zmq.Socket[Any], str]:
    """Return a bound socket and its endpoint.

    Raises:
        SinkError: the port is in use, or this machine does not have the address.
    """
    socket: zmq.Socket[Any] = context.socket(kind)
    socket.setsockopt(zmq.SNDHWM, options.high_water_mark)
    socket.setsockopt(zmq.SNDBUF, options.send_buffer_bytes)
    socket.setsockopt(zmq.LINGER, options.linger_ms)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_INPUT_BYTES)
    socket.setsockopt(zmq.BACKLOG, BACKLOG)
    if kind == zmq.PUB:
        socket.setsockopt(zmq.CONFLATE, 1)
    if options.curve is not None:
        options.curve.secure(socket)
    else:
        refuse_old_protocols(socket)
    if options.guard is not None:
        options.guard.watch(context, socket, address)
    try:
        with binding(address):
            socket.bind(prepare(socket, address))
    except SinkError:
        socket.close(linger=0)
        raise
    except zmq.ZMQError as error:
        socket.close(linger=0)
        remedy = _REMEDIES.get(error.errno or 0, "give an address like tcp://127.0.0.1:5555")
        raise SinkError(f"cannot publish on {address}: {error.strerror}: {remedy}") from error
    return socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)


def connected_socket(
    context: zmq.Context[Any],
    addresses: Sequence[str],
    options: SocketOptions,
    server_key: str | None,
    keys: KeyPair | None,
) -> zmq.Socket[Any]:
    """Return an XPUB socket that connects to collectors; while a collector is away, messages to it are dropped.

    Raises:
        SinkError: an address is malformed.
    """
    socket: zmq.Socket[Any] = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.SNDHWM, options.high_water_mark)
    socket.setsockopt(zmq.SNDBUF, options.send_buffer_bytes)
    socket.setsockopt(zmq.LINGER, options.linger_ms)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_INPUT_BYTES)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, PING_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, PING_TIMEOUT_MS)
    try:
        for option, value in (curve_options(server_key, keys) if server_key is not None else {}).items():
            socket.setsockopt(option, value)
        if options.guard is not None:
            options.guard.watch(context, socket, "publish.connect", limit=NO_LIMIT)
        for address in addresses:
            socket.connect(prepare(socket, address))
    except zmq.ZMQError as error:
        socket.close(linger=0)
        raise SinkError(f"cannot publish to {', '.join(addresses)}: {error}: give tcp://host:port") from error
    return socket


class FanOut:
    """An XPUB socket: sends `[topic, body]` to every reader of the topic, without waiting for any.

    Attributes:
        address: the bound endpoint.
        overflows: number of times that a message met a reader's full queue, by kind.
    """

    def __init__(self, context: zmq.Context[Any], address: str, options: SocketOptions) -> None:
        self._take(*bound_socket(context, zmq.XPUB, address, options), options.guard)

    @classmethod
    def connected(
        cls,
        context: zmq.Context[Any],
        addresses: Sequence[str],
        options: SocketOptions,
        server_key: str | None,
        keys: KeyPair | None,
    ) -> FanOut:
        """Return a socket that connects to collectors instead of binding.

        Raises:
            SinkError: an address is malformed.
        """
        fan = cls.__new__(cls)
        fan._take(connected_socket(context, addresses, options, server_key, keys), ", ".join(addresses), options.guard)
        return fan

    def _take(self, socket: zmq.Socket[Any], address: str, guard: SocketGuard | None) -> None:
        self._guard, self._socket, self.address = guard, socket, address
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        self.overflows: Counter[str] = Counter()

    def send(self, kind: str, *parts: bytes) -> None:
        """Send a message, `topic, body` and possibly a JPEG, to the readers that have room."""
        try:
            self._send(parts)
        except zmq.Again:
            self.overflows[kind] += 1
            self._socket.setsockopt(zmq.XPUB_NODROP, 0)
            self._send(parts)
            self._socket.setsockopt(zmq.XPUB_NODROP, 1)

    def _send(self, parts: Sequence[bytes]) -> None:
        """Do what `send_multipart` does, but without its checks, which take longer than the sending."""
        for part in parts[:-1]:
            self._socket.send(part, _MORE)
        self._socket.send(parts[-1], _LAST)

    def service(self) -> None:
        """Read the pending subscription notices, so that readers cannot pile them up in our memory."""
        for _ in self.subscriptions():
            pass

    def subscriptions(self) -> Iterator[bytes]:
        """Yield the pending notices: a byte 1 or 0, and the topic that a reader now wants or no longer wants."""
        while self._socket.poll(0):
            notice = self._socket.recv(zmq.NOBLOCK, copy=False)
            if self._guard is not None and notice.bytes[:1] == b"\0":  # a topic that is no longer wanted
                self._guard.explain(notice, 2 * len(notice.bytes), parts=2)
            yield notice.bytes

    def register(self, poller: zmq.Poller) -> None:
        """Let a poller wake up for subscription notices."""
        poller.register(self._socket, zmq.POLLIN)

    def close(self) -> None:
        """Close the socket; messages already sent linger."""
        self._socket.close()


class LatestOnly:
    """A conflating PUB socket: a reader gets only the newest body, as a single part."""

    def __init__(self, context: zmq.Context[Any], address: str, options: SocketOptions) -> None:
        self._socket, self.address = bound_socket(context, zmq.PUB, address, options)

    def send(self, body: bytes) -> None:
        """Replace the message waiting for each reader."""
        self._socket.send(body, zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class SnapshotServer:
    """A ROUTER socket that answers each request (any short body, from REQ or DEALER) with the snapshot.

    Requests are untrusted: their size and number per turn are limited. Malformed requests are dropped and counted, and
        so are answers that a peer does not take.

    Attributes:
        address: the bound endpoint.
        answered: requests answered.
    """

    def __init__(self, context: zmq.Context[Any], address: str, options: SocketOptions) -> None:
        self._socket, self.address = bound_socket(context, zmq.ROUTER, address, options)
        self._requests = RequestQueue(self._socket, options.guard, f"snapshot {self.address}")
        self.answered = 0
        self._refused = 0

    @property
    def refused(self) -> int:
        """Number of requests dropped."""
        return self._refused + self._requests.dropped

    def service(self, snapshot: Callable[[], bytes]) -> None:
        """Answer pending requests, at most `MAX_REQUESTS_PER_TURN`, all with the same snapshot."""
        body: bytes | None = None
        self._requests.take()
        for _ in range(MAX_REQUESTS_PER_TURN):
            request = self._requests.next()
            if request is None:
                return
            *envelope, _body = request
            if not 1 <= len(envelope) <= MAX_ENVELOPE_PARTS or any(envelope[1:]):
                self._refused += 1
                continue
            body = snapshot() if body is None else body
            try:
                self._socket.send_multipart([*envelope, body], zmq.NOBLOCK)
                self.answered += 1
            except zmq.ZMQError:
                self._refused += 1

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
