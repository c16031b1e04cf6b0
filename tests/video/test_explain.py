"""What a user reads about a camera that answers with something else than a stream."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from engine.errors import SourceError
from engine.sources.open import open_source


@pytest.fixture
def camera() -> Iterator[Callable[[str], str]]:
    """Start an RTSP camera that answers DESCRIBE with a status line and nothing else; return its address."""
    listeners: list[socket.socket] = []

    def start(status: str) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            try:
                while True:
                    with listener.accept()[0] as client:
                        while request := client.recv(4096).decode():
                            number = request.partition("CSeq: ")[2].split("\r\n")[0]
                            line = "200 OK" if request.startswith("OPTIONS") else status
                            client.sendall(f"RTSP/1.0 {line}\r\nCSeq: {number}\r\nContent-Length: 0\r\n\r\n".encode())
            except OSError:
                return  # closed by the test

        threading.Thread(target=serve, daemon=True).start()
        return f"rtsp://127.0.0.1:{listener.getsockname()[1]}/stream"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("503 Service Unavailable", "reports a fault of its own .5xx.: close other viewers, or restart the camera"),
        ("453 Not Enough Bandwidth", "refuses this request .4xx.: close other viewers"),
        ("404 Not Found", "no such stream .404.: check the path"),
        ("200 OK", "the answer is not a stream that FFmpeg can read: check the path"),
    ],
)
def test_a_camera_without_a_stream_is_named_with_the_remedy(
    camera: Callable[[str], str], status: str, reason: str
) -> None:
    source = open_source(camera(status), reconnect=False)
    with pytest.raises(SourceError, match=reason):
        next(iter(source))
