"""ONVIF: a camera on loopback that checks the password as real ones do, and cameras that answer nonsense."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from typing import Any
from xml.etree import ElementTree

import pytest

from engine.clock import SYSTEM_CLOCK
from engine.errors import SourceError
from engine.sources.discover import camera_from_answer, streams_of
from engine.sources.onvif import CameraStream, camera_streams
from tests.patience import AT_ONCE_S

SCHEMA = 'xmlns:tt="http://www.onvif.org/ver10/schema"'
SECURITY = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd}"
UTILITY = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd}"
PASSWORD = "lilac-2&3"
URIS = {
    "main": "rtsp://10.9.9.9:554/main?a=1",  # its own idea of its address, behind NAT
    "sub": "rtsp://127.0.0.1:8554/sub",
    "evil": "file:///etc/passwd",
}


class Camera(ThreadingHTTPServer):
    """A camera whose clock is a day behind."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.now = datetime.now(timezone.utc) - timedelta(days=1)
        self.answer: bytes | None = None
        self.piece_s = 0.0
        self.drips_head = False
        self.pause_s = 0.0
        self.requests: list[str] = []

    @property
    def service(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/onvif/device_service"


class Handler(BaseHTTPRequestHandler):
    server: Camera

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        root = ElementTree.fromstring(body)
        kind = root[1][0].tag.partition("}")[2]
        self.server.requests.append(kind)
        threading.Event().wait(self.server.pause_s)
        if self.server.answer is not None:
            return self.reply(200, self.server.answer)
        if kind != "GetSystemDateAndTime" and not self.is_known(root):
            return self.reply(400, b"<s>ter:NotAuthorized</s>")
        return self.reply(200, getattr(self, kind)(root).encode())

    def reply(self, status: int, body: bytes) -> None:
        if self.server.drips_head:
            self.drip(b"HTTP/1.0 200 OK\r\nX-Padding: " + b"x" * 1000)
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.piece_s:
            self.drip(body)
        else:
            self.wfile.write(body)

    def drip(self, data: bytes) -> None:
        for at in range(len(data)):
            threading.Event().wait(self.server.piece_s)
            try:
                self.wfile.write(data[at : at + 1])
            except OSError:
                return

    def is_known(self, root: Any) -> bool:
        token = root.find(f".//{SECURITY}UsernameToken")
        nonce = base64.b64decode(token.findtext(f"{SECURITY}Nonce"))
        created = token.findtext(f"{UTILITY}Created")
        age = abs(datetime.fromisoformat(created.replace("Z", "+00:00")) - self.server.now)
        digest = hashlib.sha1(nonce + created.encode() + PASSWORD.encode()).digest()
        is_fresh = age < timedelta(minutes=5)
        return is_fresh and token.findtext(f"{SECURITY}Password") == base64.b64encode(digest).decode()

    def GetSystemDateAndTime(self, root: Any) -> str:
        now = self.server.now
        groups = {"Date": ("Year", "Month", "Day"), "Time": ("Hour", "Minute", "Second")}
        text = ""
        for group, parts in groups.items():
            values = "".join(f"<tt:{part}>{getattr(now, part.lower())}</tt:{part}>" for part in parts)
            text += f"<tt:{group}>{values}</tt:{group}>"
        return f"<r {SCHEMA}><tt:UTCDateTime>{text}</tt:UTCDateTime></r>"

    def GetCapabilities(self, root: Any) -> str:
        return f"<r {SCHEMA}><tt:Media><tt:XAddr>http://10.9.9.9/onvif/media</tt:XAddr></tt:Media></r>"

    def GetProfiles(self, root: Any) -> str:
        sizes = {"main": (1920, 1080), "sub": (640, 360), "evil": (100000000, 1)}
        found = "".join(
            f'<m:Profiles token="{name}"><tt:Name>{name}</tt:Name><tt:VideoEncoderConfiguration><tt:Encoding>H264'
            f"</tt:Encoding><tt:Resolution><tt:Width>{w}</tt:Width><tt:Height>{h}</tt:Height></tt:Resolution>"
            "</tt:VideoEncoderConfiguration></m:Profiles>"
            for name, (w, h) in sizes.items()
        )
        return f'<r {SCHEMA} xmlns:m="http://www.onvif.org/ver10/media/wsdl">{found}</r>'

    def GetStreamUri(self, root: Any) -> str:
        token = root.findtext(".//{http://www.onvif.org/ver10/media/wsdl}ProfileToken")
        return f"<r {SCHEMA}><tt:Uri>{URIS[token]}</tt:Uri></r>"

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def camera() -> Iterator[Camera]:
    with Camera() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_streams_of_a_camera_with_a_wrong_clock_are_found_on_its_own_host(camera: Camera) -> None:
    assert camera_streams(camera.service, "admin", PASSWORD) == [
        CameraStream("rtsp://127.0.0.1:554/main?a=1", "main", "H264", 1920, 1080),
        CameraStream("rtsp://127.0.0.1:8554/sub", "sub", "H264", 640, 360),
    ]


def test_a_wrong_password_is_said_plainly(camera: Camera) -> None:
    with pytest.raises(SourceError, match="refuses the user and password") as failure:
        camera_streams(camera.service, "admin", "wrong-password")
    assert "wrong-password" not in str(failure.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"no xml", "not XML"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "document type"),
        (b"<x>" + b" " * 300_000 + b"</x>", "too long"),
        (b"<x/>", None),
    ],
)
def test_nonsense_is_refused_or_finds_nothing(camera: Camera, answer: bytes, message: str | None) -> None:
    camera.answer = answer
    if message is None:
        assert camera_streams(camera.service, "admin", PASSWORD) == []
        return
    with pytest.raises(SourceError, match=message):
        camera_streams(camera.service, "admin", PASSWORD)


@pytest.mark.parametrize("year", [1, 9999])
def test_a_clock_at_the_end_of_all_times_is_not_followed(camera: Camera, year: int) -> None:
    camera.now = datetime(year, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
    with pytest.raises(SourceError, match="refuses"):
        camera_streams(camera.service, "admin", PASSWORD)


@pytest.mark.parametrize("drips_head", [False, True])
def test_an_answer_that_drips_ends_in_time(camera: Camera, drips_head: bool) -> None:
    camera.answer, camera.piece_s, camera.drips_head = b"<x/>" + b" " * 1000, 0.05, drips_head
    began_ns = SYSTEM_CLOCK.monotonic_ns()
    with pytest.raises(SourceError, match="no complete answer"):
        camera_streams(camera.service, "admin", PASSWORD, timeout_s=0.5)
    assert SYSTEM_CLOCK.monotonic_ns() - began_ns < (0.5 + AT_ONCE_S) * 1e9


def test_all_requests_to_a_slow_camera_share_one_deadline(camera: Camera) -> None:
    camera.pause_s = 0.2
    with pytest.raises(SourceError, match="no complete answer"):
        camera_streams(camera.service, "admin", PASSWORD, exchange_s=0.5)
    assert 1 < len(camera.requests) < 6


@contextmanager
def device(pieces: Iterable[bytes], piece_s: float = 0.0) -> Iterator[str]:
    """Serve one request with raw bytes, and yield the address of the service."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError), listener.accept()[0] as client:
                client.recv(65536)
                for piece in pieces:
                    client.sendall(piece)
                    threading.Event().wait(piece_s)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/onvif/device_service"
        thread.join(AT_ONCE_S)


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n"]
)
def test_a_head_or_chunk_that_drips_ends_in_time(head: bytes) -> None:
    began_ns = SYSTEM_CLOCK.monotonic_ns()
    with device(chain([head], repeat(b"a", 100_000)), 0.02) as service:
        with pytest.raises(SourceError, match="no complete answer in time"):
            camera_streams(service, "admin", PASSWORD, timeout_s=0.5)
    assert SYSTEM_CLOCK.monotonic_ns() - began_ns < (0.5 + AT_ONCE_S) * 1e9


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 500 Fault\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n", id="chunks of an error"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", id="a cut chunk"),
        pytest.param(b"\x15\x03\x01\x00\x02\x02", id="TLS"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200, id="many headers"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_an_answer_that_is_not_http_is_a_camera_that_does_not_answer(answer: bytes) -> None:
    with device([answer]) as service, pytest.raises(SourceError, match="does not answer ONVIF"):
        camera_streams(service, "admin", PASSWORD)


def test_a_redirect_is_not_followed(camera: Camera) -> None:
    answer = f"HTTP/1.1 302 Found\r\nLocation: {camera.service}\r\nContent-Length: 0\r\n\r\n"
    with device([answer.encode()]) as service, pytest.raises(SourceError, match="with status 302"):
        camera_streams(service, "admin", PASSWORD)
    assert camera.requests == []


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8",
        "127.0.0.1",
        "[::1]",
        "localhost",
        "camera.example",
        "0.0.0.0",
        "[::ffff:8.8.8.8]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_a_found_camera_elsewhere_gets_no_proof_of_the_password(camera: Camera, host: str) -> None:
    found = camera_from_answer([f"http://{host}:{camera.server_port}/onvif"], [])
    assert found is not None
    with pytest.raises(SourceError, match="is not asked"):
        streams_of(found, "admin", PASSWORD)
    assert camera.requests == []


def test_nobody_there_is_an_error_with_a_remedy() -> None:
    with pytest.raises(SourceError, match="does not answer ONVIF"):
        camera_streams("http://127.0.0.1:1/onvif", "admin", PASSWORD)
    with pytest.raises(SourceError, match="expected http"):
        camera_streams("ftp://127.0.0.1/", "admin", PASSWORD)


@pytest.mark.parametrize("service", ["http://[::1/onvif", "http://127.0.0.1:99999/", "http://h/\n", "http://"])
def test_addresses_that_are_none_are_refused(service: str) -> None:
    with pytest.raises(SourceError, match="expected http"):
        camera_streams(service, "admin", PASSWORD)
