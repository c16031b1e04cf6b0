"""What a webhook, a web page and a redirect can extract from a bridge."""

from __future__ import annotations

import asyncio
import http.server
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine.transport.post import MAX_REDIRECTS
from engine.wire import frame_message
from pipelines.stream.bridges.base import RejectedError, TargetError
from pipelines.stream.bridges.webhook import WebhookOutput
from pipelines.stream.bridges.websocket import WebSocketBridge
from tests.wire.samples import packet

FRAME = frame_message(packet())
SECRET = "Bearer S3CRET-0123"


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, str, int, str | None]] = []
        self.target = ""
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are the point of these tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(("POST", self.path, len(body), self.headers.get("Authorization")))
        if self.path == "/drip":
            self._drip()
            return
        is_redirect = self.path.startswith("/redirect/")
        self.send_response(int(self.path.rpartition("/")[2]) if is_redirect else 200)
        if is_redirect:
            self.send_header("Location", self.server.target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.seen.append(("GET", self.path, 0, self.headers.get("Authorization")))
        self.send_response(200)
        self.end_headers()

    def _drip(self) -> None:
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            for _ in range(600):
                self.wfile.write(b"a")
                self.wfile.flush()
                threading.Event().wait(0.05)
        except OSError:
            return


@pytest.fixture
def servers() -> Iterator[tuple[_Server, _Server]]:
    first, second = _Server(), _Server()
    yield first, second
    for server in (first, second):
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_on_one_host_keeps_method_body_and_credentials(
    servers: tuple[_Server, _Server], status: int
) -> None:
    first, _ = servers
    first.target = "/there"
    WebhookOutput(f"{first.url}/redirect/{status}", headers={"Authorization": SECRET}).send(FRAME)
    (_, _, length, _), (method, path, length_there, credentials) = first.seen
    assert (method, path, length_there, credentials) == ("POST", "/there", length, SECRET)
    assert length > 0


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_carries_no_credentials_to_another_port(servers: tuple[_Server, _Server], status: int) -> None:
    first, second = servers
    first.target = f"{second.url}/there"
    WebhookOutput(f"{first.url}/redirect/{status}", headers={"Authorization": SECRET}, private_redirects=True).send(
        FRAME
    )
    ((method, _, length, credentials),) = second.seen
    assert (method, credentials) == ("POST", None)
    assert length > 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "2130706433"])
def test_a_redirect_reaches_no_other_address_inside(servers: tuple[_Server, _Server], host: str) -> None:
    first, second = servers
    first.target = f"http://{host}:{second.server_port}/internal"
    with pytest.raises((RejectedError, TargetError)):
        WebhookOutput(f"{first.url}/redirect/307").send(FRAME)
    assert second.seen == []


@pytest.mark.parametrize("target", ["", "ftp://x/", "http://", "http://x:99999/", "http://[", "gopher:x", "\x01"])
def test_a_redirect_to_no_url_is_a_refusal(servers: tuple[_Server, _Server], target: str) -> None:
    first, _ = servers
    first.target = target
    with pytest.raises((RejectedError, TargetError)):
        WebhookOutput(f"{first.url}/redirect/302").send(FRAME)


def test_redirects_in_a_circle_end(servers: tuple[_Server, _Server]) -> None:
    first, _ = servers
    first.target = "/redirect/307"
    with pytest.raises(RejectedError, match="more than"):
        WebhookOutput(f"{first.url}/redirect/307").send(FRAME)
    assert len(first.seen) == MAX_REDIRECTS + 1


def test_see_other_is_not_taken_for_delivery(servers: tuple[_Server, _Server]) -> None:
    first, _ = servers
    first.target = "/there"
    with pytest.raises(RejectedError, match="303"):
        WebhookOutput(f"{first.url}/redirect/303").send(FRAME)


def test_a_server_that_drips_has_no_more_time_than_any_other(servers: tuple[_Server, _Server]) -> None:
    first, _ = servers
    begin = time.monotonic()
    with pytest.raises(TargetError, match="in time|timed out"):
        WebhookOutput(f"{first.url}/drip", timeout_s=0.5).send(FRAME)
    assert time.monotonic() - begin < 15.0  # it drips for thirty


def test_an_interrupt_ends_the_wait_for_a_server_that_drips(servers: tuple[_Server, _Server]) -> None:
    first, _ = servers
    output = WebhookOutput(f"{first.url}/drip", timeout_s=25.0)
    before = signal.signal(signal.SIGUSR1, lambda *_: output.interrupt())
    threading.Timer(0.5, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)).start()
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            output.send(FRAME)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - begin < 20.0


def test_a_false_certificate_gets_no_message(tmp_path: Path) -> None:
    key, certificate = tmp_path / "k.pem", tmp_path / "c.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=evil"]
    made = subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("openssl is not installed: apt-get install openssl")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = _Server(tls)
    try:
        with pytest.raises(TargetError, match="not trusted"):
            WebhookOutput(f"https://127.0.0.1:{server.server_port}/", headers={"Authorization": SECRET}).send(FRAME)
        assert server.seen == []
    finally:
        server.shutdown()
        server.server_close()


def test_user_and_password_of_the_url_become_credentials(servers: tuple[_Server, _Server]) -> None:
    first, _ = servers
    WebhookOutput(f"http://user:p%40ss@127.0.0.1:{first.server_port}/x").send(FRAME)
    assert first.seen[0][3] == "Basic dXNlcjpwQHNz"


@pytest.mark.parametrize(
    ("origin", "allowed", "connects"),
    [
        pytest.param(None, None, True, id="a program"),
        pytest.param("http://localhost:3000", None, True, id="a page of this machine"),
        pytest.param("https://evil.example", None, False, id="a page of another site"),
        pytest.param("http://127.0.0.1.evil.example", None, False, id="a name that begins like this machine"),
        pytest.param("null", None, False, id="a frame without an origin"),
        pytest.param("http://[", None, False, id="not an origin"),
        pytest.param("https://board.example", ["https://board.example"], True, id="a page that is listed"),
        pytest.param("http://localhost:3000", ["https://board.example"], False, id="a page that is not listed"),
        pytest.param("https://evil.example", ["*"], True, id="any page"),
    ],
)
def test_pages_of_other_sites_do_not_read_the_stream(
    origin: str | None, allowed: list[str] | None, connects: bool
) -> None:
    client = pytest.importorskip("websockets.asyncio.client")
    invalid = pytest.importorskip("websockets.exceptions").InvalidStatus

    async def connect() -> bool:
        bridge = WebSocketBridge("tcp://127.0.0.1:1", port=0, origins=allowed)
        serving = asyncio.ensure_future(bridge.run())
        await bridge.serving.wait()
        try:
            async with client.connect(f"ws://127.0.0.1:{bridge.port}/", origin=origin):
                return True
        except invalid:
            return False
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    assert asyncio.run(connect()) is connects


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x16\x03\x01" + bytes(300), id="TLS"),
        pytest.param(b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000 + b"\r\n\r\n", id="a long header"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123456789", id="a form"),
    ],
)
def test_a_failed_handshake_fills_no_log(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    client = pytest.importorskip("websockets.asyncio.client")
    invalid = pytest.importorskip("websockets.exceptions").InvalidStatus

    async def attack() -> None:
        bridge = WebSocketBridge("tcp://127.0.0.1:1", port=0)
        serving = asyncio.ensure_future(bridge.run())
        await bridge.serving.wait()
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
            writer.write(data)
            writer.write_eof()
            with suppress(OSError):
                await reader.read()
            writer.close()
            with pytest.raises(invalid):
                await client.connect(f"ws://127.0.0.1:{bridge.port}/", origin="https://evil.example")
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    with caplog.at_level("INFO"):
        asyncio.run(attack())
    assert [record for record in caplog.records if record.exc_info] == []
    assert [record.getMessage().count("evil.example") for record in caplog.records] == [1]
