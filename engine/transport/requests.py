"""Requests that wait at a ROUTER socket, taken fairly from its clients, with a limit for each.

libzmq keeps the memory of a connection (20 to 30 kB) until the last of its messages has been read, even after the
client has gone. If they were read only as they are answered, clients that send a thousand requests and leave would hold
memory for minutes. So all messages are read at once, a few of each client are kept, and the others are dropped. A
client that waits for its replies, as REQ sockets do, has one at a time.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import zmq

from engine.transport.guard import SocketGuard

logger = logging.getLogger(__name__)

PER_CLIENT = 16
MOST = 256
TAKEN_AT_ONCE = 500
LOG_EVERY_S = 60.0


class RequestQueue:
    """The waiting requests of a ROUTER socket; use it on the thread of the socket.

    Args:
        socket: the socket.
        guard: accounts for complete messages; None: nothing does.
        name: of the socket, for the log.
        clock: for tests.

    Attributes:
        dropped: requests of clients that sent many without waiting for the replies.
    """

    def __init__(
        self,
        socket: zmq.Socket[Any],
        guard: SocketGuard | None,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dropped = 0
        self._socket, self._guard, self._name, self._clock = socket, guard, name, clock
        self._waiting: OrderedDict[bytes, deque[list[bytes]]] = OrderedDict()
        self._count = 0
        self._last_logged = -LOG_EVERY_S

    def __len__(self) -> int:
        return self._count

    def take(self) -> None:
        """Read what has arrived; never blocks."""
        for _ in range(TAKEN_AT_ONCE):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if self._guard is not None:
                self._guard.explain(frames[-1], sum(len(frame) for frame in frames[1:]), parts=len(frames))
            self._keep([frame.bytes for frame in frames])

    def next(self) -> list[bytes] | None:
        """Return the parts of one request, client first, each client in turn; None if no request waits."""
        if not self._waiting:
            return None
        client, requests = self._waiting.popitem(last=False)
        request = requests.popleft()
        if requests:
            self._waiting[client] = requests
        self._count -= 1
        return request

    def _keep(self, request: list[bytes]) -> None:
        waiting = self._waiting.setdefault(request[0], deque())
        if len(waiting) >= PER_CLIENT:
            self._drop()
            return
        waiting.append(request)
        self._count += 1
        if self._count > MOST:
            self._make_room()

    def _make_room(self) -> None:
        """Drop the newest request of the client with most, or that of the client which has waited longest."""
        client = max(self._waiting, key=lambda each: len(self._waiting[each]))  # the first of equals
        requests = self._waiting[client]
        requests.pop()
        if not requests:
            del self._waiting[client]
        self._count -= 1
        self._drop()

    def _drop(self) -> None:
        self.dropped += 1
        if self._clock() - self._last_logged > LOG_EVERY_S:
            self._last_logged = self._clock()
            logger.warning(
                "%s: requests are dropped, because a client sends many without waiting for the replies; %d so far",
                self._name,
                self.dropped,
            )
