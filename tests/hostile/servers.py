"""Cameras that attack: HTTP servers on loopback whose every answer the test chooses. Every loop ends."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

from tests.media import served_by

LONGEST_S = 60.0
MULTIPART = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n"


@cache
def jpeg(width: int, height: int) -> bytes:
    """Return a grey JPEG of a size."""
    image = np.full((height, width, 3), 128, np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 1])[1].tobytes()


def claiming(width: int, height: int) -> bytes:
    """Return a small JPEG whose header claims another size, with no data after it."""
    forged = bytearray(jpeg(64, 48))
    at = forged.find(b"\xff\xc0")
    forged[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(forged)


@dataclass
class Seen:
    """A request that arrived."""

    port: int
    path: str
    authorization: str | None


@dataclass
class HostileCamera:
    """Answers every GET by `answer(handler)`, which a test may replace while it serves.

    Attributes:
        answer: writes the response.
        seen: requests so far.
        ended: set when the server must end; loops check it.
    """

    answer: Callable[[Any], None]
    seen: list[Seen] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def url(self, path: str = "cam.mjpg", credentials: str = "") -> str:
        """Return an address on this server."""
        return f"http://{credentials}{'@' if credentials else ''}127.0.0.1:{self.port}/{path}"


@contextmanager
def hostile_camera(answer: Callable[[Any], None], *, context: Any = None) -> Iterator[HostileCamera]:
    """Serve until the block ends; `context` is an `ssl.SSLContext` for https."""
    camera = HostileCamera(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.camera = camera
            self.close_connection = True
            camera.seen.append(Seen(camera.port, self.path, self.headers.get("Authorization")))
            with suppress(OSError):
                camera.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hangs up, or does not trust the certificate, is expected here."""

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    camera.port = server.server_address[1]
    with served_by(server, camera.ended):
        yield camera


def send_jpegs(next_jpeg: Callable[[], bytes], fps: float = 10.0) -> Callable[[Any], None]:
    """Return an answer: MJPEG whose frames `next_jpeg` chooses one by one, for as long as the stream runs."""

    def answer(handler: Any) -> None:
        handler.wfile.write(MULTIPART)
        deadline = time.monotonic() + 10 * LONGEST_S
        while time.monotonic() < deadline and not handler.camera.ended.wait(1 / fps):
            image = next_jpeg()
            head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
            handler.wfile.write(head.encode() + image + b"\r\n")

    return answer


def flood(head: bytes, block: bytes) -> Callable[[Any], None]:
    """Return an answer: `head`, then `block` repeatedly."""

    def answer(handler: Any) -> None:
        handler.wfile.write(head)
        deadline = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline and not handler.camera.ended.is_set():
            handler.wfile.write(block)

    return answer


def fixed(body: bytes, content_type: str = "application/octet-stream", status: str = "200 OK") -> Callable[[Any], None]:
    """Return an answer: one document."""

    def answer(handler: Any) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        handler.wfile.write(head.encode() + body)

    return answer


def redirect(location: str) -> Callable[[Any], None]:
    """Return an answer: 302 to `location`."""

    def answer(handler: Any) -> None:
        handler.wfile.write(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())

    return answer


def playlist(*lines: str) -> Callable[[Any], None]:
    """Return an answer: an HLS playlist with these lines."""
    body = "\n".join(["#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXT-X-VERSION:3", *lines, ""])
    return fixed(body.encode(), "application/vnd.apple.mpegurl")
