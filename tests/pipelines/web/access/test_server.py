from __future__ import annotations

import gc
import socket
import warnings
from typing import Any

from pipelines.web.access.limits import ServerLimits
from tests.web_server import echo, running

BODY = bytes(50_000_000)


async def large(scope: Any, receive: Any, send: Any) -> None:
    """Answer with more than the buffers of a socket hold."""
    if scope["type"] == "lifespan":
        await echo(scope, receive, send)
    else:
        length = (b"content-length", str(len(BODY)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": BODY})


def test_a_client_that_does_not_read_is_closed_when_the_server_ends() -> None:
    with running(large, limits=ServerLimits(stop_s=1)) as port:
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert client.recv(8).startswith(b"HTTP/1.1")
    with client, warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always", ResourceWarning)
        gc.collect()
    assert [str(warning.message) for warning in left] == []
