"""A simulated engine at a real control socket, on the real clock."""

from __future__ import annotations

import json
import threading

import zmq

from engine.clock import SYSTEM_CLOCK, boot_ns
from pipelines.fleet.simulation.engine import SimulatedEngine


class SimulatedServer:
    """Answers as an engine does, on a thread, by the machine's clock."""

    def __init__(self, address: str, engine_id: str = "n1", incarnation: str = "process 1") -> None:
        self.engine = SimulatedEngine(engine_id, SYSTEM_CLOCK, incarnation)
        self.engine._offset_ns = boot_ns() - SYSTEM_CLOCK.monotonic_ns()
        self.over, self.address = threading.Event(), address
        self._is_frozen, self._rests = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(self.address)
            while not self.over.is_set():
                if not self._is_frozen.is_set() and socket.poll(20):
                    who, empty, body = socket.recv_multipart()
                    request = json.loads(body)
                    number = request.pop("request_id", None)
                    reply = self.engine.handle(request) | ({} if number is None else {"request_id": number})
                    socket.send_multipart([who, empty, json.dumps(reply).encode()])
                elif self._is_frozen.is_set():
                    self._rests.set()
                    self.over.wait(0.01)

    def freeze(self) -> None:
        """Read nothing until `thaw`."""
        self._rests.clear()
        self._is_frozen.set()
        assert self._rests.wait(60)

    def thaw(self) -> None:
        """Read what has arrived, and continue."""
        self._is_frozen.clear()

    def close(self) -> None:
        self.over.set()
        self._thread.join()

    def until_ns(self, camera: str) -> int:
        run = self.engine._runs[camera]
        return self.engine._until(run)
