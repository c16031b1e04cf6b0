"""A reader's sockets: SUB and DEALER with limits, pings and keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import zmq

from engine.errors import ConfigError
from engine.transport.guard import NO_LIMIT, SocketGuard
from engine.transport.ipv6 import prepare
from engine.wire import TOPIC_KINDS, TOPIC_ROOT

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

HIGH_WATER_MARK = 10_000
RECONNECT_MS = 100
RECONNECT_MAX_MS = 2_000
PING_MS = 2_000
PING_TIMEOUT_MS = 6_000
WAITING_BYTES = 256 * 1024 * 1024
"""Of messages that wait for the reader, and of incomplete ones: a publisher that sends more is disconnected."""
ON_EVENTS = frozenset(("status", "event", "eos"))


class Connection:
    """Creates connected sockets in its own context, and limits what publishers make this process keep.

    After creating all sockets, call `start`; read messages with `receive`, or pass those of asyncio to `taken`.

    Args:
        high_water_mark: messages queued while the reader is busy.
        max_bytes: longest part accepted; a publisher that sends a longer one is disconnected.
        server_key: public key of a publisher that encrypts; None: a plain one.
        keys: CURVE keys of this reader; None: new ones.
        context: a context of asyncio, of this connection alone: `close` destroys it; None: a new plain one.

    Raises:
        ConfigError: there are keys without a server key, or a key is invalid.
    """

    def __init__(
        self,
        high_water_mark: int,
        max_bytes: int,
        server_key: str | None = None,
        keys: KeyPair | None = None,
        context: zmq.Context[Any] | None = None,
    ) -> None:
        self._options: dict[int, int | bytes] = {
            zmq.RCVHWM: high_water_mark,
            zmq.MAXMSGSIZE: max_bytes,
            zmq.RECONNECT_IVL: RECONNECT_MS,
            zmq.RECONNECT_IVL_MAX: RECONNECT_MAX_MS,
            zmq.HEARTBEAT_IVL: PING_MS,
            zmq.HEARTBEAT_TIMEOUT: PING_TIMEOUT_MS,
            zmq.LINGER: 0,
        }
        if keys is not None and server_key is None:
            raise ConfigError("keys without server_key: give the public key of the publisher")
        if server_key is not None:
            self._options.update(curve_options(server_key, keys))
        self._context: zmq.Context[Any] = zmq.Context() if context is None else context
        self._is_async = context is not None  # asyncio sockets do not report when they are empty
        self._guard = SocketGuard(most_unexplained=WAITING_BYTES)

    def start(self) -> None:
        """Start limiting what waits in memory; call this after creating the last socket."""
        self._guard.start()

    def receive(self, socket: zmq.Socket[Any]) -> list[bytes]:
        """Return the parts of the next message. Raises `zmq.Again` if none has arrived."""
        try:
            frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            self._guard.drained()
            raise
        return self.taken(frames)

    def taken(self, frames: Sequence[zmq.Frame]) -> list[bytes]:
        """Return the parts of a message received with `copy=False`."""
        self._guard.explain(frames[-1], sum(len(frame) for frame in frames), parts=len(frames))
        return [frame.bytes for frame in frames]

    def conflate(self) -> None:
        """Keep only the newest message in sockets created from now on."""
        self._options[zmq.CONFLATE] = 1

    def subscribe(
        self, addresses: Sequence[str], topics: Sequence[str], events: str | None = None
    ) -> list[zmq.Socket[Any]]:
        """Return a SUB socket and, with `events`, a second one just for the states, events and ends.

        Raises:
            ConfigError: an address is malformed.
        """
        if events is None:
            return [self._subscribed(addresses, topics)]
        main, apart = split_topics(topics, ON_EVENTS)
        wanted = [((events,), apart), (addresses, main)]
        return [self._subscribed(each, prefixes) for each, prefixes in wanted if prefixes]

    def dealer(self, address: str) -> zmq.Socket[Any]:
        """Return a socket for snapshot requests."""
        return self._connected(zmq.DEALER, (address,))

    def close(self) -> None:
        """Close all sockets at once."""
        self._guard.close()
        self._context.destroy(linger=0)

    def _subscribed(self, addresses: Sequence[str], topics: Sequence[str]) -> zmq.Socket[Any]:
        socket = self._connected(zmq.SUB, addresses)
        for topic in topics:
            socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
        return socket

    def _connected(self, kind: int, addresses: Sequence[str]) -> zmq.Socket[Any]:
        socket: zmq.Socket[Any] = self._context.socket(kind)
        try:
            for option, value in self._options.items():
                socket.setsockopt(option, value)
            if zmq.CONFLATE not in self._options:  # else it keeps nothing
                self._guard.watch(
                    self._context,
                    socket,
                    ", ".join(addresses),
                    limit=NO_LIMIT,
                    allowance=WAITING_BYTES,
                    remembers=not self._is_async,
                )
            for address in addresses:
                socket.connect(prepare(socket, address))
        except zmq.ZMQError as error:
            self.close()
            message = f"cannot subscribe to {', '.join(addresses)}: {error}: give tcp://host:port or ipc://path"
            raise ConfigError(message) from error
        return socket


def curve_options(server_key: str, keys: KeyPair | None) -> dict[int, bytes]:
    """Return the socket options of a client that encrypts; new keys are made if none are given."""
    public, secret = zmq.curve_keypair() if keys is None else (keys.public.encode(), keys.secret.encode())
    return {zmq.CURVE_SERVERKEY: server_key.encode(), zmq.CURVE_PUBLICKEY: public, zmq.CURVE_SECRETKEY: secret}


def split_topics(topics: Sequence[str], on_events: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the prefixes for the main socket and those for the events socket, which carries the kinds `on_events`.

    >>> split_topics(["v1/event/gate/", "v1/frame/"], frozenset({"event"}))
    (['v1/frame/'], ['v1/event/gate/'])
    """
    main: list[str] = []
    events: list[str] = []
    for kind in TOPIC_KINDS:
        root = f"{TOPIC_ROOT}/{kind}/"
        wanted = [max(topic, root, key=len) for topic in topics if topic.startswith(root) or root.startswith(topic)]
        (events if kind in on_events else main).extend(wanted)
    return main, events
