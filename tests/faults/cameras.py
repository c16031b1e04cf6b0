"""Odd cameras that GStreamer's server cannot imitate: streams that change mid-stream, served over plain TCP."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_TS_PACKET = 188


@contextmanager
def transport_stream(clips: Sequence[Path], seconds_each: float) -> Iterator[int]:
    """Serve MPEG-TS clips in sequence, once, each paced over `seconds_each`; yields the port."""
    ended = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.1)
    begun = time.monotonic()

    def play(client: socket.socket) -> None:
        with client, suppress(OSError):
            for part, clip in enumerate(clips):
                data = clip.read_bytes()
                if time.monotonic() > begun + seconds_each * (part + 1):
                    continue
                for start in range(0, len(data), _TS_PACKET):
                    due = begun + seconds_each * (part + start / len(data))
                    wait_s = due - time.monotonic()
                    if wait_s > 0.005 and ended.wait(wait_s):
                        return
                    client.sendall(data[start : start + _TS_PACKET])

    def accept() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                client, _ = server.accept()
                threading.Thread(target=play, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield int(server.getsockname()[1])
    finally:
        ended.set()
        thread.join()
        server.close()
