"""The server of metrics and health answers GET, and is not held up by peers that do not behave."""

from __future__ import annotations

import contextlib
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from engine.errors import ConfigError, SinkError
from pipelines.metrics.server import MAX_CONNECTIONS, MAX_REQUEST_BYTES, MetricsServer, Reply, host_and_port


def failing() -> Reply:
    raise ValueError("secret detail")


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with MetricsServer("127.0.0.1:0") as made:
        made.start({"/metrics": lambda: Reply("up 1\n"), "/bad": failing, "/readyz": lambda: Reply("no\n", 503)})
        yield made


def exchange(server: MetricsServer, request: bytes) -> bytes:
    with socket.create_connection(host_and_port(server.address), timeout=20) as peer:
        peer.sendall(request)
        return b"".join(iter(lambda: peer.recv(65536), b""))


def test_a_route_is_answered_with_its_body_and_status(server: MetricsServer) -> None:
    with urllib.request.urlopen(f"http://{server.address}/metrics?name=x", timeout=20) as reply:
        assert reply.read() == b"up 1\n"
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(f"http://{server.address}/readyz", timeout=20)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"\x16\x03\x01\n\n", b"405"),
        (b"GET /bad HTTP/1.1\r\n\r\n", b"500"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200"),
    ],
)
def test_other_requests_get_an_error_that_tells_nothing(server: MetricsServer, request_: bytes, status: bytes) -> None:
    reply = exchange(server, request_)
    assert reply.split(b" ", 2)[1] == status
    assert b"secret" not in reply
    if request_.startswith(b"HEAD"):
        assert reply.endswith(b"\r\n\r\n")


def test_a_request_without_end_is_cut_off(server: MetricsServer) -> None:
    with contextlib.suppress(ConnectionError):  # it was cut off while we were sending
        assert exchange(server, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * (3 * MAX_REQUEST_BYTES)) == b""


def test_peers_that_say_nothing_hold_up_the_others_only_for_a_moment(server: MetricsServer) -> None:
    silent = [socket.create_connection(host_and_port(server.address)) for _ in range(MAX_CONNECTIONS + 4)]
    try:
        assert exchange(server, b"GET /metrics HTTP/1.0\r\n\r\n").endswith(b"up 1\n")
    finally:
        for peer in silent:
            peer.close()


def test_a_port_in_use_is_an_error_with_a_remedy(server: MetricsServer) -> None:
    with pytest.raises(SinkError, match=r"cannot serve metrics on .*use another port"):
        MetricsServer(server.address)


@pytest.mark.parametrize("address", ["9464", "127.0.0.1", "http://127.0.0.1:9464", "127.0.0.1:99999", "a b:1", ":9464"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        host_and_port(address)
