"""A server of live HLS whose playlist the test changes."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import av
import numpy as np

from tests.media import numbered_images

TICKS = 90_000


def segments_of(count: int, per_segment: int, fps: float, first_number: int = 0) -> list[bytes]:
    """Return numbered frames in MPEG-TS segments, each with its own keyframe and packet counters."""
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 320, 240, "yuv420p", Fraction(1, TICKS)
    encoder.options = {"g": str(per_segment), "keyint_min": str(per_segment), "sc_threshold": "0", "bf": "0"}
    packets = []
    for number, image in enumerate(numbered_images(first_number + count)[first_number:]):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        frame.pts, frame.time_base = round((first_number + number) / fps * TICKS), Fraction(1, TICKS)
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return [_file_of(packets[at : at + per_segment]) for at in range(0, count, per_segment)]


def _file_of(packets: Sequence[Any]) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as output:
        stream: Any = output.add_stream("libx264")
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 320, 240, "yuv420p", Fraction(1, TICKS)
        for packet in packets:
            packet.stream, packet.time_base = stream, Fraction(1, TICKS)
            output.mux(packet)
    return file.getvalue()


@dataclass
class LiveList:
    """What the server shows.

    Attributes:
        segments: all segments, by name.
        shown: names of the segments in the playlist.
        first: number of the first one.
        segment_s: the declared duration of each.
        is_complete: whether the playlist says that nothing follows.
        refused: requests to answer with 503 before the next one succeeds.
        asked: paths requested.
    """

    segments: dict[str, bytes]
    shown: list[str]
    first: int = 0
    segment_s: float = 1.0
    is_complete: bool = False
    refused: int = 0
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def playlist(self) -> bytes:
        """Return the playlist."""
        head = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{round(self.segment_s)}\n"
        lines = "".join(f"#EXTINF:{self.segment_s:.3f},\n{name}.ts\n" for name in self.shown)
        end = "#EXT-X-ENDLIST\n" if self.is_complete else ""
        return f"{head}#EXT-X-MEDIA-SEQUENCE:{self.first}\n{lines}{end}".encode()


@contextmanager
def live_list(shown: LiveList) -> Iterator[LiveList]:
    """Serve a playlist and its segments; `url` is its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            shown.asked.append(self.path)
            name = self.path.partition("?")[0].strip("/").removesuffix(".m3u8").removesuffix(".ts")
            content = shown.playlist() if name == "live" else shown.segments.get(name)
            code = 200 if content is not None else 404
            if shown.refused:
                shown.refused, code, content = shown.refused - 1, 503, b""
            self.send_response(code)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(content or b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    shown.url = f"http://127.0.0.1:{server.server_address[1]}/live.m3u8"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
