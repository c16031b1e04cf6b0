"""An RTSP server on loopback, GStreamer's under the system's Python; without it, tests are skipped with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.rtsp_server import RtspServer, missing_server

collect_ignore = ["record_server.py"]  # imports `gi`, which only the system's Python has


@pytest.fixture(scope="session")
def rtsp_available() -> None:
    """Skip if the server is not installed."""
    reason = missing_server()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def serve(rtsp_available: None) -> Iterator[Callable[..., RtspServer]]:
    """Start servers by `serve(codec="h264", ...)`; all are ended after the test."""
    servers: list[RtspServer] = []

    def start(**arguments: object) -> RtspServer:
        server = RtspServer(**arguments)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.kill()
