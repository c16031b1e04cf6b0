"""A server of this project in a thread, and clients for it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPSConnection
from typing import Any

from pipelines.web.access.limits import ServerLimits
from pipelines.web.access.listen import Listen
from pipelines.web.access.server import bind, serve
from pipelines.web.access.tls import TlsFiles

PATIENCE_S = 30.0


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what arrived, as JSON."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    identity = scope.get("framewire.identity")
    said = {"path": scope["path"], "size": size, "client": scope.get("framewire.client")}
    body = json.dumps({**said, "name": getattr(identity, "name", None)}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def running(
    app: Any, *, tls: TlsFiles | None = None, limits: ServerLimits | None = None, port: int = 0
) -> Iterator[int]:
    """Serve an application in a thread; yield its port."""
    listening = bind(Listen("127.0.0.1", port))
    port = listening.getsockname()[1]
    end = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(serve(app, listening, tls=tls, limits=limits, stopping=end.is_set))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield port
    finally:
        end.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert failures == []


def ask(
    port: int,
    path: str = "/",
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    context: Any = None,
) -> tuple[int, dict[str, str], Any]:
    """Return status, headers and JSON of an answer."""
    make = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    if context is not None:
        make = HTTPSConnection("127.0.0.1", port, timeout=PATIENCE_S, context=context)
    try:
        make.request(method, path, body, headers or {})
        answer = make.getresponse()
        text = answer.read()
    finally:
        make.close()
    found = {name.lower(): value for name, value in answer.getheaders()}
    return answer.status, found, json.loads(text) if text.startswith(b"{") else text


def talk(port: int, *pieces: bytes) -> bytes:
    """Send pieces over a plain socket and return everything until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        for piece in pieces:
            client.sendall(piece)
        got = b""
        while piece := client.recv(65536):
            got += piece
    return got
