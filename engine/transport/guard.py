"""Limits what strangers can do to a socket: connections, and bytes that do not belong to a message.

libzmq limits neither. It accepts connections until the process runs out of descriptors, and it keeps the parts of a
message until the last one has arrived. This guard learns of every connection through libzmq's monitor, reads from the
kernel how many bytes it received, and shuts down a connection that sent more than its complete messages and pings
account for. This works with any encryption, because the bytes are counted below it.

It has its own thread, which sleeps while nothing is connected: a limit that is checked only when the socket's thread
has time is not a limit.
"""

from __future__ import annotations

import logging
import math
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import zmq

from engine.transport.release import release_memory

logger = logging.getLogger(__name__)

NO_LIMIT = 1 << 30
"""Of connections, for sockets that connect instead of being bound."""
LOOK_MS = 50
IDLE_MS = 1_000
PING_BYTES_PER_S = 32.0  # an encrypted ping every two seconds takes 22
HANDSHAKE_BYTES = 1024
UNEXPLAINED_BYTES = 32 * 1024  # per connection, for its subscriptions; in memory they take fifty times as much
ALL_UNEXPLAINED_BYTES = 512 * 1024
GREETING_BYTES = 70  # with fewer bytes received, not even the greeting is complete
YOUNG_S = 1.0
RELEASE_AFTER_S = 2.0  # by then libzmq and the socket have dropped the remains of the connection
HANDSHAKE_MS = 5_000
MAX_CONNECTIONS = 500
SHARE_OF_DESCRIPTORS = 4
PART_BYTES = 64  # upper bound for framing and encryption per part
_EVENT = struct.Struct("=Hi")  # as in zmq_socket_monitor(3); pyzmq's parser imports asyncio
_BYTES_RECEIVED = 128  # offset in struct tcp_info, Linux 4.1
_SO_COOKIE = 57
_LOST = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_BEGUN = zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED
_EVENTS = _BEGUN | _LOST | _FAILED | zmq.EVENT_MONITOR_STOPPED


@dataclass(eq=False)
class _Peer:
    """One connection of libzmq's, which owns the descriptor; `cookie` shows whether it is still the same socket."""

    fd: int
    cookie: bytes
    since: float
    received: int = 0
    explained: float = 0.0
    is_cut: bool = False

    def excess(self, now: float) -> float:
        return self.received - HANDSHAKE_BYTES - self.explained - PING_BYTES_PER_S * (now - self.since)


@dataclass(eq=False)
class _Watched:
    """A socket and its connections, by descriptor."""

    name: str
    limit: int
    allowance: int
    socket: zmq.Socket[Any]
    monitor: zmq.Socket[Any]
    remembers: bool
    peers: dict[int, _Peer] = field(default_factory=dict)
    left: float = 0.0  # bytes that closed connections may have left in the queue of the socket

    def leave(self, peer: _Peer, now: float) -> None:
        """Note what a connection that has ended may have left."""
        if self.remembers:
            self.left += max(peer.excess(now), 0.0)


class SocketGuard:
    """Bounds the memory and descriptors that the peers of some sockets can use.

    Use it on the thread that creates the sockets: `watch` each before it is bound or connected, and call `start`; call
    `close` before closing the sockets. `explain` may be called on their thread for every complete message.

    Args:
        clock: for tests.
        most_unexplained: bytes that all connections together may send beyond their messages and pings.

    Attributes:
        cut: connections shut down because of a limit.
        failed: aborted handshakes, as from plain clients on an encrypted socket.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, most_unexplained: int = ALL_UNEXPLAINED_BYTES
    ) -> None:
        self.cut = 0
        self.failed = 0
        self._clock = clock
        self._most_unexplained = most_unexplained
        self._watched: list[_Watched] = []
        self._added: list[_Watched] = []
        self._lock = threading.Lock()
        self._is_started = False
        self._thread: threading.Thread | None = None
        self._wakes: tuple[socket.socket, socket.socket] | None = None  # while the thread runs
        self._count = 0
        self._last_logged = -60.0
        self._release_at = math.inf

    def watch(
        self,
        context: zmq.Context[Any],
        watched: zmq.Socket[Any],
        name: str,
        *,
        limit: int | None = None,
        allowance: int = UNEXPLAINED_BYTES,
        remembers: bool = False,
    ) -> None:
        """Watch a socket until it is closed; call this before it is bound or connected.

        Args:
            context: of the socket.
            watched: the socket.
            name: for the log.
            limit: maximum number of connections; None: a share of the descriptors that this process may open.
            allowance: bytes that a connection may send beyond its messages and pings.
            remembers: complete messages outlive their connection in the queue of the socket; count them, until
                `drained` says that the queue is empty.
        """
        self._count += 1
        endpoint = f"inproc://framewire.guard.{id(self)}.{self._count}"
        watched.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        watched.monitor(endpoint, _EVENTS)
        monitor: zmq.Socket[Any] = zmq.Context.shadow(context.underlying).socket(
            zmq.PAIR
        )  # the context may be one of asyncio
        monitor.setsockopt(zmq.RCVHWM, 0)  # libzmq would wait on a full queue
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.connect(endpoint)
        new = _Watched(name, limit or _share_of_descriptors(), allowance, watched, monitor, remembers)
        with self._lock:
            self._watched.append(new)
            self._added.append(new)
            if self._is_started:
                self._run_or_wake()

    def start(self) -> None:
        """Start the thread; it ends when no watched socket is open any longer."""
        with self._lock:
            self._is_started = True
            if self._added:
                self._run_or_wake()

    def _run_or_wake(self) -> None:
        if self._wakes is not None:
            self._wakes[1].send(b"\0")
            return
        self._wakes = socket.socketpair()
        self._thread = threading.Thread(target=self._run, args=self._wakes, name="socket-guard", daemon=True)
        self._thread.start()

    def explain(self, message: zmq.Frame | None, size: int, parts: int = 1) -> None:
        """Account for a complete message; `message` is one of its frames, received with `copy=False`."""
        if message is None:
            return
        with suppress(zmq.ZMQError, ValueError):
            fd = message.get(zmq.SRCFD)
            for watched in tuple(self._watched):
                peer = watched.peers.get(int(fd))
                if peer is not None:
                    peer.explained += size + parts * PART_BYTES
                    return

    def drained(self) -> None:
        """Record that no message waits in the queues of the sockets."""
        for watched in tuple(self._watched):
            watched.left = 0.0

    def close(self) -> None:
        """End the thread and release the sockets; harmless when repeated."""
        with self._lock:
            watched, thread = tuple(self._watched), self._thread
            if thread is None:
                self._watched, self._added = [], []
        for each in watched:
            with suppress(zmq.ZMQError):
                each.socket.disable_monitor()
            if thread is None:
                each.monitor.close(linger=0)
        if thread is not None:
            thread.join(timeout=1.0)

    def _run(self, wakes: socket.socket, writer: socket.socket) -> None:
        poller = zmq.Poller()
        poller.register(wakes, zmq.POLLIN)
        live: dict[Any, _Watched] = {}
        try:
            self._watch_all(live, poller, wakes)
        except zmq.ContextTerminated:  # the context waits until the monitors are closed
            with self._lock:
                ended, self._watched, self._added = self._watched, [], []
            for watched in ended:
                watched.monitor.close(linger=0)
            self._take_added({}, poller)

    def _watch_all(self, live: dict[Any, _Watched], poller: zmq.Poller, wakes: socket.socket) -> None:
        while self._take_added(live, poller):
            is_idle = not any(watched.peers for watched in live.values()) and self._release_at == math.inf
            for monitor, _ in poller.poll(IDLE_MS if is_idle else LOOK_MS):
                if monitor == wakes.fileno():
                    wakes.recv(64)
                elif not self._take_events(live[monitor]):
                    poller.unregister(monitor)
                    monitor.close(linger=0)
                    self._watched.remove(live.pop(monitor))
            self._look(list(live.values()))
            if self._release_at < self._clock():
                self._release_at = math.inf
                release_memory()

    def _take_added(self, live: dict[Any, _Watched], poller: zmq.Poller) -> bool:
        """Begin to watch new sockets; return whether any are left to watch."""
        with self._lock:
            for watched in self._added:
                live[watched.monitor] = watched
                poller.register(watched.monitor, zmq.POLLIN)
            self._added.clear()
            if not live and self._wakes is not None:
                for each in self._wakes:
                    each.close()
                self._wakes = self._thread = None
        return bool(live)

    def _take_events(self, watched: _Watched) -> bool:
        """Process libzmq's reports; return False once the socket is closed."""
        while watched.monitor.poll(0):
            kind, value = _EVENT.unpack(watched.monitor.recv_multipart(zmq.NOBLOCK)[0])
            if kind == zmq.EVENT_MONITOR_STOPPED:
                return False
            if kind & _BEGUN:
                self._take_in(watched, value)
            elif kind & _LOST:
                if (peer := watched.peers.pop(value, None)) is not None:
                    watched.leave(peer, self._clock())
                self._release_soon()  # the connection may have left much in the queues
            else:
                self.failed += 1
        return True

    def _take_in(self, watched: _Watched, fd: int) -> None:
        cookie = _cookie(fd)
        if cookie is None:
            return  # it has already gone
        watched.peers[fd] = _Peer(fd, cookie, self._clock())
        if len(watched.peers) > watched.limit:
            self._cut(watched, self._least_useful(watched), f"more than {watched.limit} connections")

    def _least_useful(self, watched: _Watched) -> _Peer:
        """Return the connection to drop: the oldest without a greeting, otherwise the newest."""
        now = self._clock()
        silent = (p for p in watched.peers.values() if now - p.since > YOUNG_S and p.received < GREETING_BYTES)
        return next(silent, next(reversed(watched.peers.values())))

    def _look(self, all_watched: list[_Watched]) -> None:
        now, total = self._clock(), 0.0
        worst: tuple[float, _Watched, _Peer] | None = None
        for watched in all_watched:
            for peer in list(watched.peers.values()):
                peer.received = _bytes_received(peer)
                excess = peer.excess(now)
                total += max(excess, 0.0)
                if excess + watched.left > watched.allowance:
                    self._cut(watched, peer, "more bytes than its messages have")
                elif worst is None or excess > worst[0]:
                    worst = excess, watched, peer
        if worst is not None and total > self._most_unexplained:
            self._cut(worst[1], worst[2], "many bytes that belong to no message")

    def _release_soon(self) -> None:
        if self._release_at == math.inf:
            self._release_at = self._clock() + RELEASE_AFTER_S

    def _cut(self, watched: _Watched, peer: _Peer, why: str) -> None:
        watched.peers.pop(peer.fd, None)
        watched.leave(peer, self._clock())
        self.cut += 1
        _shut_down(peer)
        if peer.received > UNEXPLAINED_BYTES // 2:
            self._release_soon()
        if self._clock() - self._last_logged > 60.0:
            self._last_logged = self._clock()
            logger.warning("%s: connections are closed (%s); %d so far", watched.name, why, self.cut)


def _share_of_descriptors() -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(min(MAX_CONNECTIONS, soft // SHARE_OF_DESCRIPTORS), 16)


def _option(fd: int, level: int, name: int, size: int) -> bytes:
    """Read an option of a descriptor that is not ours, without affecting the descriptor."""
    try:
        borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    except OSError:
        return b""  # closed by now
    try:
        return borrowed.getsockopt(level, name, size)
    except OSError:
        return b""
    finally:
        borrowed.detach()


def _cookie(fd: int) -> bytes | None:
    """Return an identity of the socket behind a descriptor, unique until the machine restarts."""
    if fd < 0:
        return None
    return _option(fd, socket.SOL_SOCKET, _SO_COOKIE, 8) or None


def _bytes_received(peer: _Peer) -> int:
    """Return the bytes that the kernel received for a connection; the previous count if it cannot tell (`ipc://`)."""
    if _cookie(peer.fd) != peer.cookie:
        return peer.received
    facts = _option(peer.fd, socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
    if len(facts) < _BYTES_RECEIVED + 8:
        return peer.received
    return int(struct.unpack_from("=Q", facts, _BYTES_RECEIVED)[0])


def _shut_down(peer: _Peer) -> None:
    """Shut a connection down, so that libzmq closes it; never another one that now has the same descriptor."""
    with suppress(OSError):
        copy = os.dup(peer.fd)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=copy) as ours:
            if ours.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8) == peer.cookie:
                ours.shutdown(socket.SHUT_RDWR)
