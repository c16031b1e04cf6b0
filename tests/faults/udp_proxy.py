"""A proxy for RTSP cameras that send RTP over UDP; it loses and reorders packets on command.

The RTSP conversation is forwarded over TCP with the client's ports replaced by the proxy's, so that the camera sends
its packets here.
"""

from __future__ import annotations

import random
import re
import socket
import threading
from contextlib import suppress

_PORTS = re.compile(rb"client_port=(\d+)-(\d+)")
_BUFFER = 65536
_FIRST_PORT, _LAST_PORT = 20000, 60000


class UdpProxy:
    """Forwards one camera at a time to one client; its treatment of the RTP packets can change while it runs.

    Attributes:
        loss: share of the packets that get lost.
        late: share of the packets that arrive after the `late_by` packets that followed them.
        late_by: number of those packets.
    """

    def __init__(self, target_port: int, seed: int = 0) -> None:
        self.loss = 0.0
        self.late = 0.0
        self.late_by = 3
        self.reordered = self.lost = 0
        self._target_port = target_port
        self._rng = random.Random(seed)
        self._ends: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._rtp, self._rtcp = self._pair()
        self._client: tuple[int, int] | None = None
        for work in (self._accept, lambda: self._forward(self._rtp, 0), lambda: self._forward(self._rtcp, 1)):
            threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        """End everything."""
        for end in (self._server, self._rtp, self._rtcp, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        """Return sockets on an even port and the next one, as RTP requires."""
        while True:
            port = self._rng.randrange(_FIRST_PORT, _LAST_PORT, 2)
            pair = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
            try:
                for number, end in enumerate(pair):
                    end.bind(("127.0.0.1", port + number))
            except OSError:
                for end in pair:
                    end.close()
                continue
            return pair[0], pair[1]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                upstream = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
                upstream.settimeout(None)
                self._ends += [client, upstream]
                threading.Thread(target=self._pump, args=(client, upstream, self._to_camera), daemon=True).start()
                threading.Thread(target=self._pump, args=(upstream, client, self._to_client), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, rewrite: object) -> None:
        with suppress(OSError):
            while data := source.recv(_BUFFER):
                sink.sendall(rewrite(data))  # type: ignore[operator]
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _to_camera(self, data: bytes) -> bytes:
        found = _PORTS.search(data)
        if found is None:
            return data
        self._client = int(found[1]), int(found[2])
        mine = self._rtp.getsockname()[1]
        return _PORTS.sub(f"client_port={mine}-{mine + 1}".encode(), data)

    def _to_client(self, data: bytes) -> bytes:
        if self._client is None:
            return data
        return _PORTS.sub("client_port={}-{}".format(*self._client).encode(), data)

    def _forward(self, inlet: socket.socket, number: int) -> None:
        held: list[tuple[int, bytes]] = []
        with suppress(OSError):
            while True:
                packet = inlet.recv(_BUFFER)
                for due in [packet] if number else self._mistreat(packet, held):
                    if self._client is not None:
                        inlet.sendto(due, ("127.0.0.1", self._client[number]))

    def _mistreat(self, packet: bytes, held: list[tuple[int, bytes]]) -> list[bytes]:
        """Return the packets to send now; `held` are the late ones, with the packets that go before them."""
        if self._rng.random() < self.loss:
            self.lost += 1
            return []
        waiting = [(left - 1, late) for left, late in held]
        held[:] = [row for row in waiting if row[0] > 0]
        due = [late for left, late in waiting if left <= 0]
        if self._rng.random() < self.late:
            self.reordered += 1
            held.append((self.late_by, packet))
            return due
        return [packet, *due]
