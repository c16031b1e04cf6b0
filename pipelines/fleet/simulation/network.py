"""Links to simulated engines, with delays, partitions, frozen machines and late messages."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from itertools import count
from typing import Any

from engine.clock import NS_PER_S, FakeClock
from pipelines.fleet.simulation.engine import SimulatedEngine
from pipelines.running.control_links import AHEAD, FIRST, Answer

ANSWER_S = 2.0


class SimulatedNetwork:
    """Carries requests and answers. Messages to a frozen engine wait in its buffer, and are read when it thaws.

    As on real links, few requests are on their way to an engine at a time, and renewals overtake those that wait.

    Args:
        clock: of the simulation.
        delay_s: returns how long the next message takes.
        ahead: requests on their way to one engine.
    """

    def __init__(self, clock: FakeClock, delay_s: Callable[[], float] = lambda: 0.001, ahead: int = AHEAD) -> None:
        self._clock, self._delay_s, self._order, self._ahead = clock, delay_s, count(), ahead
        self.engines: dict[str, SimulatedEngine] = {}
        self.cut: set[str] = set()
        self.frozen: set[str] = set()
        self._due: list[tuple[int, int, str, str, int, Any]] = []
        self._buffers: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        self._last_ns: dict[tuple[str, str], int] = {}
        self._answers: list[Answer] = []
        self._unanswered: dict[int, tuple[int, str, dict[str, Any]]] = {}
        self._under_way: Counter[str] = Counter()
        self._waiting: dict[str, deque[dict[str, Any]]] = defaultdict(deque)

    def send(self, engine_id: str, request: dict[str, Any]) -> None:
        """Send a request, at once if few are on their way to this engine."""
        if self._under_way[engine_id] < self._ahead:
            self._send(engine_id, request, self._clock.monotonic_ns())
        elif request["command"] in FIRST:
            self._waiting[engine_id].appendleft(request)
        else:
            self._waiting[engine_id].append(request)

    def _send(self, engine_id: str, request: dict[str, Any], now_ns: int) -> None:
        """Send a request, and set the deadline for its answer."""
        self._under_way[engine_id] += 1
        number = next(self._order)
        self._unanswered[number] = now_ns + int(ANSWER_S * NS_PER_S), engine_id, request
        if engine_id not in self.cut and engine_id in self.engines:
            self._put("request", engine_id, number, (request, self.engines[engine_id]), now_ns)

    def _put(self, kind: str, engine_id: str, number: int, payload: Any, sent_ns: int) -> None:
        at_ns = sent_ns + int(self._delay_s() * NS_PER_S)
        key = kind, engine_id  # one link preserves the order
        at_ns = self._last_ns[key] = max(at_ns, self._last_ns.get(key, 0))
        heapq.heappush(self._due, (at_ns, next(self._order), kind, engine_id, number, payload))

    def pass_time(self, seconds: float) -> None:
        """Move the clock forward, stopping at each message, so that an engine reads it when it arrives."""
        end_ns = self._clock.monotonic_ns() + int(seconds * NS_PER_S)
        while self._due and self._due[0][0] <= end_ns:
            self._clock.advance_to(self._due[0][0])
            self.deliver()
        self._clock.advance_to(end_ns)

    def receive(self) -> list[Answer]:
        """Return the answers that have arrived, and empty ones for expired requests."""
        self.deliver()
        answers, self._answers = self._answers, []
        return answers

    def deliver(self) -> None:
        """Deliver what is due, requests in the order of sending, and give up on those that waited too long."""
        now_ns = self._clock.monotonic_ns()
        while self._due and self._due[0][0] <= now_ns:
            at_ns, _, kind, engine_id, number, payload = heapq.heappop(self._due)
            self._give_up(at_ns)
            if kind == "request":
                if engine_id in self.frozen:
                    self._buffers[engine_id].append((number, payload[0]))
                elif self.engines.get(engine_id) is payload[1]:
                    self._handle(engine_id, number, payload[0], at_ns)
            elif number in self._unanswered and engine_id not in self.cut:
                self._answer(number, payload, at_ns)
        self._give_up(now_ns)

    def _answer(self, number: int, reply: dict[str, Any] | None, now_ns: int) -> None:
        """Hand over an answer, and send the next request that waits for it."""
        _, engine_id, request = self._unanswered.pop(number)
        self._answers.append(Answer(engine_id, request, reply))
        self._under_way[engine_id] -= 1
        if self._waiting[engine_id]:
            self._send(engine_id, self._waiting[engine_id].popleft(), now_ns)

    def _give_up(self, now_ns: int) -> None:
        while self._unanswered:
            number = next(iter(self._unanswered))
            until_ns = self._unanswered[number][0]
            if until_ns > now_ns:
                return
            self._answer(number, None, until_ns)

    def reconnect(self) -> None:
        """Let another controller take over: requests of the previous one still arrive, but its answers are not read."""
        for left in (self._answers, self._unanswered, self._under_way, self._waiting):
            left.clear()
        self._due = [each for each in self._due if each[2] == "request"]
        heapq.heapify(self._due)

    def _handle(self, engine_id: str, number: int, request: dict[str, Any], at_ns: int) -> None:
        """Handle a request; its answer is sent at that time, even if the clock has made a longer step."""
        reply = self.engines[engine_id].handle(request)
        if engine_id not in self.cut and number in self._unanswered:
            self._put("answer", engine_id, number, reply, at_ns)

    def freeze(self, engine_id: str) -> None:
        """Freeze an engine."""
        self.frozen.add(engine_id)

    def thaw(self, engine_id: str) -> None:
        """Thaw an engine: it first reads what has arrived in the meantime."""
        self.frozen.discard(engine_id)
        for number, request in self._buffers.pop(engine_id, []):
            self._handle(engine_id, number, request, self._clock.monotonic_ns())

    def kill(self, engine_id: str) -> None:
        """End an engine, dropping everything that waits for it."""
        self.engines.pop(engine_id, None)
        self._buffers.pop(engine_id, None)
        self.frozen.discard(engine_id)
