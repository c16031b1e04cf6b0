"""A real HTTP server on loopback that keeps what is posted, and can fail."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Hook:
    """What the server has received.

    Attributes:
        url: where it listens.
        requests: headers and body of each accepted or refused request, in order.
        answers: statuses of the next requests; afterwards 200.
    """

    url: str = ""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    accepted: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)

    def bodies(self) -> list[dict[str, Any]]:
        """Return the accepted messages."""
        return [json.loads(body) for _, body in self.accepted]

    def keys(self) -> list[str]:
        """Return the idempotency keys of the accepted requests."""
        return [headers["Idempotency-Key"] for headers, _ in self.accepted]


@contextmanager
def hook() -> Iterator[Hook]:
    """Serve until the block ends."""
    kept = Hook()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = (dict(self.headers), body)
            kept.requests.append(request)
            status = kept.answers.pop(0) if kept.answers else 200
            if status == 200:
                kept.accepted.append(request)
            kept.arrived.set()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"http://127.0.0.1:{elsewhere.getsockname()[1]}/other")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    elsewhere = socket.create_server(("127.0.0.1", 0))  # where redirects lead
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        elsewhere.close()
        thread.join()
