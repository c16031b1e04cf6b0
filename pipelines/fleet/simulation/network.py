"""Links to simulated engines, with delays, partitions, frozen machines and late messages."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from typing import Any

from engine.clock import NS_PER_S, Clock
from pipelines.fleet.control.links import Answer
from pipelines.fleet.simulation.engine import SimulatedEngine

ANSWER_S = 2.0


class SimulatedNetwork:
    """Carries requests and answers. What goes to a frozen engine waits in its buffer, and is read when it thaws.

    Args:
        clock: of the simulation.
        delay_s: returns how long the next message takes.
    """

    def __init__(self, clock: Clock, delay_s: Callable[[], float] = lambda: 0.001) -> None:
        self._clock, self._delay_s, self._order = clock, delay_s, count()
        self.engines: dict[str, SimulatedEngine] = {}
        self.cut: set[str] = set()
        self.frozen: set[str] = set()
        self._due: list[tuple[int, int, str, str, dict[str, Any], Any]] = []
        self._buffers: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._last_ns: dict[tuple[str, str], int] = {}
        self._answers: list[Answer] = []
        self._given_up: set[int] = set()
        self._first = 0

    def send(self, engine_id: str, request: dict[str, Any]) -> None:
        """Send a request on its way, and a time after which nobody waits for its answer."""
        request = {**request, "#": next(self._order)}
        if engine_id in self.cut or engine_id not in self.engines:
            self._put("silence", engine_id, request, None, ANSWER_S)
            return
        self._put("request", engine_id, request, self.engines[engine_id], self._delay_s())
        self._put("silence", engine_id, request, None, ANSWER_S)

    def _put(
        self, kind: str, engine_id: str, request: dict[str, Any], payload: Any, delay_s: float, sent_ns: int = 0
    ) -> None:
        at_ns = (sent_ns or self._clock.monotonic_ns()) + int(delay_s * NS_PER_S)
        if kind != "silence":  # one link keeps the order
            at_ns = self._last_ns[kind, engine_id] = max(at_ns, self._last_ns.get((kind, engine_id), 0))
        heapq.heappush(self._due, (at_ns, next(self._order), kind, engine_id, request, payload))

    def receive(self) -> list[Answer]:
        """Return the answers that have come, and those that nobody waits for any more."""
        self.deliver()
        answers, self._answers = self._answers, []
        return answers

    def deliver(self) -> None:
        """Deliver what is due."""
        while self._due and self._due[0][0] <= self._clock.monotonic_ns():
            at_ns, _, kind, engine_id, request, payload = heapq.heappop(self._due)
            if kind == "request":
                if engine_id in self.frozen:
                    self._buffers[engine_id].append(request)
                elif self.engines.get(engine_id) is payload:
                    self._handle(engine_id, request, at_ns)
            elif request["#"] not in self._given_up:
                if kind == "silence" or engine_id not in self.cut:
                    self._given_up.add(request["#"])
                    self._answers.append(Answer(engine_id, request, payload))
            elif kind == "silence":
                self._given_up.discard(request["#"])

    def reconnect(self) -> None:
        """Let another controller take over: what the one before sent still arrives, and nobody reads the answers."""
        self._first = next(self._order)
        self._answers.clear()
        self._due = [each for each in self._due if each[2] == "request"]
        heapq.heapify(self._due)

    def _handle(self, engine_id: str, request: dict[str, Any], at_ns: int) -> None:
        """Handle a request; its answer is under way from then on, also where the clock has made a longer step."""
        reply = self.engines[engine_id].handle(request)
        if engine_id not in self.cut and request["#"] >= self._first:
            self._put("answer", engine_id, request, reply, self._delay_s(), at_ns)

    def freeze(self, engine_id: str) -> None:
        """Stop an engine in its tracks."""
        self.frozen.add(engine_id)

    def thaw(self, engine_id: str) -> None:
        """Let it go on: first it reads what has come meanwhile."""
        self.frozen.discard(engine_id)
        for request in self._buffers.pop(engine_id, []):
            self._handle(engine_id, request, self._clock.monotonic_ns())

    def kill(self, engine_id: str) -> None:
        """End an engine with all that waits for it."""
        self.engines.pop(engine_id, None)
        self._buffers.pop(engine_id, None)
        self.frozen.discard(engine_id)
