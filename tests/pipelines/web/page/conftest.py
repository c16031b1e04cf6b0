"""One engine with its page, shared by the tests of a worker; those that end it start their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.pipelines.web.page.site import Site
from tests.rtsp_server import RtspServer, missing_server

for package in ("uvicorn", "httptools"):
    pytest.importorskip(package, reason='needs the extra "web": pip install "framewire[web]"')


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


@pytest.fixture
def serve() -> Iterator[Callable[..., RtspServer]]:
    """Start RTSP cameras by `serve(codec="h264", ...)`; all are ended after the test."""
    reason = missing_server()
    if reason:
        pytest.skip(reason)
    servers: list[RtspServer] = []

    def start(**arguments: object) -> RtspServer:
        servers.append(RtspServer(**arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
