"""A TCP proxy on loopback that misbehaves on command: delays, throttles, freezes, cuts, corrupts."""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import suppress

_CHUNK = 16384


class FaultProxy:
    """Forwards connections to `target_port`; its treatment of the returned bytes can change while it runs.

    Attributes:
        jitter_s: each piece waits a random time up to this; the order is kept.
        bytes_per_s: rate limit, None for none.
        corrupt: probability that a byte is replaced.
    """

    def __init__(self, target_port: int, seed: int = 0) -> None:
        self.target_port = target_port
        self.jitter_s = 0.0
        self.bytes_per_s: float | None = None
        self.corrupt = 0.0
        self._rng = random.Random(seed)
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lost: set[socket.socket] = set()
        self._refuses = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Hold back everything from the server; connections stay open."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let it flow again."""
        self._flowing.set()

    def lose(self) -> None:
        """Forget the connections without closing them (half-open TCP); new ones work."""
        with self._lock:
            self._lost.update(upstream for _, upstream in self._pairs)

    def cut(self) -> None:
        """Close all connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def refuse(self, refuses: bool) -> None:
        """Close new connections at once."""
        self._refuses = refuses

    def close(self) -> None:
        """End everything."""
        self._closed.set()
        self._flowing.set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:
                continue
            try:
                if self._refuses:
                    raise ConnectionRefusedError
                upstream = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
            except OSError:
                client.close()
                continue
            upstream.settimeout(None)
            with self._lock:
                self._pairs.append((client, upstream))
            threading.Thread(target=self._pump, args=(client, upstream, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(upstream, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_downstream: bool) -> None:
        try:
            while data := source.recv(_CHUNK):
                if is_downstream:
                    data = self._mistreat(data)
                    if source in self._lost:
                        continue
                sink.sendall(data)
        except OSError:
            pass
        if not (is_downstream and source in self._lost):  # a side that has lost the connection reports nothing
            with suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)
        source.close()
        with self._lock:
            self._pairs = [pair for pair in self._pairs if source not in pair]
            self._lost.discard(source)

    def _mistreat(self, data: bytes) -> bytes:
        self._flowing.wait()
        if self.jitter_s:
            time.sleep(self._rng.uniform(0, self.jitter_s))
        if self.bytes_per_s:
            time.sleep(len(data) / self.bytes_per_s)
        if not self.corrupt:
            return data
        damaged = bytearray(data)
        for index in range(len(damaged)):
            if self._rng.random() < self.corrupt:
                damaged[index] = self._rng.randrange(256)
        return bytes(damaged)
