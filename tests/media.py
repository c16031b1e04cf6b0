"""Videos, images and servers that source tests create on the fly. All servers listen only on loopback."""

from __future__ import annotations

import base64
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from engine.data import SourceStatus
from engine.sources.synthetic import Scene, SyntheticSource


def encode_clip(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rate: int = 25,
    container: str | None = None,
    options: dict[str, str] | None = None,
    first_pts: int = 0,
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Write BGR images as a video."""
    flags = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", format=container, options=flags) as output:
        stream: Any = output.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixel_format
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
            frame.pts = first_pts + number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def numbered_images(count: int, width: int = 320, height: int = 240, seed: int = 0) -> list[np.ndarray]:
    """Return images that carry their number (`number_in_image`) and moving boxes."""
    source = SyntheticSource(Scene(width=width, height=height, seed=seed))
    return [source.image(number) for number in range(count)]


def rotate_mp4(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix (a, b, c, d) into the track header of an MP4."""
    data = bytearray(path.read_bytes())
    offset = data.find(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[offset : offset + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


class Recorder:
    """A listener that stores everything it receives."""

    def __init__(self) -> None:
        self.statuses: list[SourceStatus] = []
        self.losses: Counter[str] = Counter()
        self.changed = threading.Condition()

    def status(self, status: SourceStatus) -> None:
        with self.changed:
            self.statuses.append(status)
            self.changed.notify_all()

    def lost(self, count: int, cause: str) -> None:
        with self.changed:
            self.losses[cause] += count
            self.changed.notify_all()

    @property
    def states(self) -> list[str]:
        return [status.state for status in self.statuses]

    def wait_for(self, state: str, count: int = 1, timeout_s: float = 20.0) -> SourceStatus:
        """Wait until `state` was reported `count` times, and return the last report of it."""

        def found() -> list[SourceStatus]:
            return [status for status in self.statuses if status.state == state]

        with self.changed:
            assert self.changed.wait_for(lambda: len(found()) >= count, timeout_s), f"no {state}: {self.states}"
            return found()[-1]


@dataclass
class Camera:
    """A camera that serves MJPEG over HTTP, and misbehaves on command."""

    images: Sequence[bytes]
    fps: float = 50.0
    user: str = ""
    password: str = ""
    frozen: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    requests: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video.mjpg"

    def url_as(self, user: str, password: str) -> str:
        return f"http://{user}:{password}@127.0.0.1:{self.port}/video.mjpg"

    def is_allowed(self, header: str | None) -> bool:
        wanted = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return not self.user or header == f"Basic {wanted}"


def _handler(camera: Camera) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            camera.requests += 1
            if not camera.is_allowed(self.headers.get("Authorization")):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            number = 0
            while not camera.hung_up.is_set() and not camera.ended.wait(1 / camera.fps):
                if camera.frozen.is_set():
                    continue
                image = camera.images[number % len(camera.images)]
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + image + b"\r\n")
                except OSError:
                    return
                number += 1

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def mjpeg_camera(images: Sequence[np.ndarray], *, port: int = 0, **facts: Any) -> Iterator[Camera]:
    """Serve the images repeatedly until the block ends."""
    with served(Camera([cv2.imencode(".jpg", image)[1].tobytes() for image in images], **facts), port) as camera:
        yield camera


@contextmanager
def served(camera: Camera, port: int = 0) -> Iterator[Camera]:
    """Let a camera serve until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(camera))
    server.daemon_threads = True
    camera.port = server.server_address[1]
    with served_by(server, camera.ended):
        yield camera


@contextmanager
def served_by(server: ThreadingHTTPServer, ended: threading.Event) -> Iterator[None]:
    """Run a server until the block ends; `ended` then tells its handlers to stop."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve the files of a folder; yields the base URL."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            with suppress(OSError):  # the reader has seen enough
                super().copyfile(source, outputfile)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
