from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from engine.clock import FakeClock
from pipelines.logs import BURST, RateLimit
from pipelines.web.access import Exposure, Gate, GateRules, Listen, RateLimiter, ServerLimits, TokenFile
from pipelines.web.access.headers import is_origin_allowed
from tests.web_server import PATIENCE_S, ask, echo, running, talk

HERE = Exposure(Listen("127.0.0.1", 0))
LIMITS = ServerLimits(head_s=0.4, per_client=12)
TOKEN = "a-token-of-more-than-24-characters"
RULES = GateRules(HERE, max_body=1000, body_s=0.4)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running(Gate(echo, RULES), limits=LIMITS) as port:
        yield port


def test_a_request_on_loopback_is_served_with_the_headers_of_every_answer(port: int) -> None:
    status, headers, said = ask(port, "/some", "POST", b"x" * 1000)
    assert (status, said) == (200, {"path": "/some", "size": 1000, "client": "127.0.0.1", "name": "local"})
    assert headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in headers["content-security-policy"]
    assert "server" not in headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "10.0.0.7", "["])
def test_a_host_that_is_not_ours_is_refused(port: int, host: str) -> None:
    assert ask(port, headers={"Host": host})[0] == 421


def test_two_hosts_are_refused(port: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert b" 421 " in talk(port, request).splitlines()[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_may_not_post(port: int, headers: dict[str, str]) -> None:
    assert ask(port, "/", "POST", b"x", headers)[0] == 403


def test_our_own_page_may_post(port: int) -> None:
    headers = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    assert ask(port, "/", "POST", b"x", headers)[0] == 200


def test_named_origins_may_use_it_and_default_ports_do_not_matter() -> None:
    assert is_origin_allowed("POST", {"origin": "https://gate.lan", "host": "gate.lan:443"}, ())
    assert is_origin_allowed("WEBSOCKET", {"origin": "https://ha.lan"}, ["https://ha.lan"])
    assert not is_origin_allowed("WEBSOCKET", {"origin": "https://ha.lan", "host": "gate.lan"}, ())


def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(port: int) -> None:
    assert ask(port, "/", "POST", b"x" * 1001)[0] == 413
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 413 " in talk(port, head, b"3e9\r\n" + b"x" * 1001 + b"\r\n").splitlines()[0]


def test_slow_clients_are_sent_away_and_others_are_served(port: int) -> None:
    slow_head = b"GET / HTTP/1.1\r\nHost: local"
    slow_body = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx"
    silent = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) for _ in range(3)]
    try:
        assert ask(port)[0] == 200
        assert b" 408 " in talk(port, slow_head)
        assert b" 408 " in talk(port, slow_body)
        assert all(b" 408 " in client.recv(1000) for client in silent)
    finally:
        for client in silent:
            client.close()


def test_a_drip_of_bytes_does_not_keep_a_head_alive(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        client.settimeout(0.05)
        sent = 0
        for byte in b"GET /" + b"a" * 10_000:
            try:
                client.sendall(bytes([byte]))
                if b" 408 " in client.recv(1000):
                    break
            except TimeoutError:
                sent += 1
        assert sent < 10_000


def test_an_endless_head_is_cut(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        sent = 0
        with suppress(ConnectionError):
            while sent < 200:
                client.sendall(b"a" * 65536)
                sent += 1
        assert sent < 200
    assert ask(port)[0] == 200


def test_whole_requests_in_one_piece_are_no_head() -> None:
    size = 2 * ServerLimits().head_bytes
    request = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(size)
    with running(Gate(echo, replace(RULES, max_body=size))) as port:
        assert talk(port, request * 5 + b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").count(b"HTTP/1.1 200 ") == 6


def test_a_body_that_was_answered_is_forgotten_but_not_endlessly() -> None:
    limits = ServerLimits(rest_bytes=1_000_000, head_s=0.4)
    with running(Gate(echo, RULES), limits=limits) as port:
        assert ask(port, "/", "POST", bytes(900_000))[0] == 413
        head = b"POST /leave HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
            client.sendall(head)
            sent = 0
            with suppress(ConnectionError):
                while sent < 500:
                    client.sendall(bytes(65536))
                    sent += 1
            assert sent < 500
        assert b" 413 " in talk(port, head + b"x").splitlines()[0]


def test_a_client_that_leaves_within_its_body_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    left = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") != "/leave":
            await echo(scope, receive, send)
            return
        try:
            await Request(scope, receive).body()
        finally:
            left.set()

    with running(Gate(app, RULES)) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
            client.sendall(b"POST /leave HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n123")
        assert left.wait(PATIENCE_S)
        assert ask(port)[0] == 200  # by now, a traceback of the first request would be in the log
    assert [record.exc_info for record in caplog.records if record.exc_info] == []


def test_refused_requests_with_ever_new_names_fill_no_log(port: int, caplog: pytest.LogCaptureFixture) -> None:
    limit = RateLimit()
    caplog.handler.addFilter(limit)
    try:
        for number in range(3 * BURST):
            assert ask(port, headers={"Host": f"evil-{number}.example"})[0] == 421
            assert ask(port, "/", "POST", b"x", {"Origin": f"https://evil-{number}.example"})[0] == 403
    finally:
        caplog.handler.removeFilter(limit)
    assert BURST <= len(caplog.records) <= 2 * BURST


def test_connections_of_one_client_are_limited(port: int) -> None:
    held = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) for _ in range(LIMITS.per_client + 3)]
    try:
        held[-1].settimeout(PATIENCE_S)
        assert b" 503 " in held[-1].recv(1000)
    finally:
        for client in held:
            client.close()


@pytest.fixture(scope="module")
def token_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path: Path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(f"# ours\ngate-pc {TOKEN}\n")
    path.chmod(0o600)
    rules = GateRules(replace(HERE, has_login=True), authority=TokenFile(path), open_paths=("/health", "/static/"))
    with running(Gate(echo, rules)) as port:
        yield port


def test_a_token_opens_the_gate_and_guessing_is_slowed_down(token_port: int) -> None:
    assert ask(token_port)[0] == 401
    assert ask(token_port, "/health")[2]["name"] is None
    assert ask(token_port, "/static/page.js")[0] == 200
    assert ask(token_port, headers={"Authorization": f"Bearer {TOKEN}"})[2]["name"] == "gate-pc"
    guesses = [ask(token_port, headers={"Authorization": f"Bearer {guess}"}) for guess in range(6)]
    assert [status for status, _, _ in guesses] == [401] * 5 + [429]
    assert int(guesses[-1][1]["retry-after"]) > 0
    assert ask(token_port, headers={"Authorization": f"Bearer {TOKEN}"})[0] == 429


def test_a_client_that_asks_too_often_is_told_when_to_come_back() -> None:
    rate = RateLimiter(0.001, burst=2, clock=FakeClock())
    with running(Gate(echo, replace(RULES, rate=rate))) as port:
        assert [ask(port)[0] for _ in range(3)] == [200, 200, 429]
        assert ask(port)[1]["retry-after"] == "1000"
