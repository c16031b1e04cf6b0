"""Links to control sockets that a controller keeps open: requests are sent, answers arrive later, and nothing waits."""

from __future__ import annotations

import json
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import zmq

from engine.clock import NS_PER_S, Clock, pause
from engine.transport.connect import curve_options
from engine.transport.guard import NO_LIMIT, SocketGuard
from engine.transport.ipv6 import prepare
from pipelines.running.control_client import reply_from

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

MAX_REPLY_BYTES = 4 << 20
MAX_QUEUED = 5000
AHEAD = 8
"""Requests on their way to one engine: its control socket drops those of a client that sends many at once."""
UNREADABLE = {"ok": False, "error": "the answer is not a JSON object"}
FIRST = ("renew",)
"""Commands that overtake others that have not been sent yet: leases must not wait for many cameras to start."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one request.

    Attributes:
        engine_id: the engine that was asked.
        request: as sent.
        reply: its reply; None: no reply arrived in time, and the engine may or may not have acted on the request.
    """

    engine_id: str
    request: dict[str, Any]
    reply: dict[str, Any] | None


@dataclass(slots=True)
class _Link:
    """One engine: its address, its socket, its unanswered requests, oldest first, and those that are not sent yet."""

    address: str
    socket: zmq.Socket[Any] | None = None
    due: deque[tuple[int, int, dict[str, Any]]] = field(default_factory=deque)
    first: deque[dict[str, Any]] = field(default_factory=deque)
    waiting: deque[dict[str, Any]] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self.due) + len(self.first) + len(self.waiting)


class ControlLinks:
    """Carries requests to control sockets. An engine answers the requests of one socket in their order.

    Only a few requests are on their way to an engine at a time. After a missing answer the socket is replaced, so that
    a late answer cannot be mistaken for another.

    Args:
        clock: for time limits.
        answer_s: how long an answer may take.
        server_key: public key of the engines, if they encrypt.
        keys: of the controller, if they encrypt.
    """

    def __init__(
        self, clock: Clock, answer_s: float = 2.0, *, server_key: str | None = None, keys: KeyPair | None = None
    ) -> None:
        self._clock, self._answer_ns = clock, int(answer_s * NS_PER_S)
        self._context: zmq.Context[Any] = zmq.Context()
        self._links: dict[str, _Link] = {}
        self._answers: list[Answer] = []
        self._numbers = count(1)
        self.keys: dict[str, Any] = {"server_key": server_key, "keys": keys}
        self._options = curve_options(server_key, keys) if server_key else {}
        self._guard = SocketGuard(most_unexplained=16 * MAX_REPLY_BYTES)
        self._guard.start()

    def connect(self, engine_id: str, address: str) -> None:
        """Set the address of an engine; requests sent to its old address count as unanswered."""
        self.disconnect(engine_id)
        self._links[engine_id] = _Link(address)

    def disconnect(self, engine_id: str) -> None:
        """Forget an engine."""
        link = self._links.pop(engine_id, None)
        if link is not None:
            self._give_up(engine_id, link)

    def send(self, engine_id: str, request: dict[str, Any]) -> None:
        """Send a request. Exactly one `Answer` follows, possibly without a reply."""
        link = self._links.get(engine_id)
        if link is None or len(link) >= MAX_QUEUED:
            self._answers.append(Answer(engine_id, request, None))
            return
        (link.first if request.get("command") in FIRST else link.waiting).append(request)
        self._send_waiting(link)

    def _send_waiting(self, link: _Link) -> None:
        while len(link.due) < AHEAD and (queue := link.first or link.waiting):
            request, number = queue.popleft(), next(self._numbers)
            if link.socket is None:
                link.socket = self._opened(link.address)
            link.due.append((self._clock.monotonic_ns(), number, request))
            body = json.dumps({**request, "request_id": number}).encode()
            with suppress(zmq.Again):  # the request counts as unanswered after its time limit
                link.socket.send_multipart([b"", body], zmq.NOBLOCK)

    def receive(self) -> list[Answer]:
        """Return the answers since the last call, in order for each engine."""
        for engine_id, link in self._links.items():
            self._read(engine_id, link)
            if link.due and self._clock.monotonic_ns() - link.due[0][0] > self._answer_ns:
                self._give_up(engine_id, link)
        answers, self._answers = self._answers, []
        return answers

    def _read(self, engine_id: str, link: _Link) -> None:
        while link.socket is not None:
            try:
                frames = link.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._guard.explain(frames[-1], sum(len(frame) for frame in frames), parts=len(frames))
            if not link.due:  # an answer that nobody asked for: this peer may not be the engine
                self._give_up(engine_id, link)
                return
            self._take(engine_id, link, reply_from(frames[-1].bytes) or dict(UNREADABLE))
            self._send_waiting(link)

    def _take(self, engine_id: str, link: _Link, reply: dict[str, Any]) -> None:
        """Record an answer; requests before the one that it answers were dropped on the way."""
        answered = reply.pop("request_id", None)  # an engine of an earlier version does not say
        while link.due:
            _, number, request = link.due.popleft()
            is_it = answered in (None, number)
            self._answers.append(Answer(engine_id, request, reply if is_it else None))
            if is_it:
                return

    def _give_up(self, engine_id: str, link: _Link) -> None:
        if link.socket is not None:
            link.socket.close(linger=0)
            link.socket = None
        left = [request for _, _, request in link.due]
        for queue in (link.first, link.waiting):
            left += queue
            queue.clear()
        link.due.clear()
        self._answers += [Answer(engine_id, request, None) for request in left]

    def wait(self, seconds: float) -> None:
        """Wait for an answer, up to a timeout."""
        poller = zmq.Poller()
        for link in self._links.values():
            if link.socket is not None:
                poller.register(link.socket, zmq.POLLIN)
        if not poller.sockets:  # polling nothing would not wait
            pause(seconds)
            return
        poller.poll(int(1000 * seconds))

    def close(self) -> None:
        """Hang up; safe to call again."""
        for engine_id in list(self._links):
            self.disconnect(engine_id)
        self._guard.close()
        self._context.term()

    def _opened(self, address: str) -> zmq.Socket[Any]:
        socket: zmq.Socket[Any] = self._context.socket(zmq.DEALER)
        for option, value in self._options.items():
            socket.setsockopt(option, value)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_REPLY_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        self._guard.watch(self._context, socket, f"engine {address}", limit=NO_LIMIT, allowance=4 * MAX_REPLY_BYTES)
        socket.connect(prepare(socket, address))
        return socket
