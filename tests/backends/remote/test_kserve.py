"""A backend on an inference server: ours, and one that gives wrong answers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from engine.backends.base import BackendOptions
from engine.backends.files.base import read_model_file
from engine.backends.remote.address import RemoteModel
from engine.backends.remote.backend import AWAY, LATE, KServeBackend
from engine.backends.remote.window import Window
from engine.backends.select import select_backend
from engine.errors import ConfigError, LostInferenceError, ModelError
from tests.patience import AT_ONCE_S

SPEC = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
METADATA = {"name": "m", "inputs": [SPEC], "outputs": [{**SPEC, "name": "y"}], "parameters": {"task": "detect"}}
FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
Answer = Callable[["Server"], tuple[int, dict[str, str], bytes] | None]


class Server(ThreadingHTTPServer):
    """Answers as a test says: `answers` in turn for inferences, the last one again and again."""

    daemon_threads = True

    def __init__(self, *answers: Answer, metadata: Any = METADATA, port: int = 0) -> None:
        self.answers, self.metadata, self.asked = list(answers), metadata, 0
        self.over = threading.Event()
        self.out: Any = None  # of the latest request
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: clients hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *words: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        body = (
            self.server.metadata
            if isinstance(self.server.metadata, bytes)
            else json.dumps(self.server.metadata).encode()
        )
        self._send(200, {}, body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        self.server.out = self.wfile
        answers = self.server.answers
        answer = (answers.pop(0) if len(answers) > 1 else answers[0])(self.server)
        if answer is None:
            self.close_connection = True
        else:
            self._send(*answer)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)


def tensors(rows: Any, data: bytes, **headers: str) -> Answer:
    head = json.dumps({"outputs": rows}).encode()
    return lambda _: (200, {"Inference-Header-Content-Length": str(len(head)), **headers}, head + data)


def row(**changes: Any) -> dict[str, Any]:
    return {"name": "y", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}, **changes}


DATA = np.full((2, 3), 5, np.float32)
GOOD = tensors([row()], DATA.tobytes())


def hangs(server: Server) -> None:
    server.over.wait(AT_ONCE_S * 4)


@contextmanager
def running(*answers: Answer, **options: Any) -> Iterator[Server]:
    with serving(Server(*answers, **options)) as server:
        yield server


S = TypeVar("S", bound=Server)


@contextmanager
def serving(server: S) -> Iterator[S]:
    """Let a server answer on a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def opened(*servers: Server, deadline_ms: float = 20_000, depth: int = 2) -> Iterator[KServeBackend]:
    hosts = ",".join(server.address for server in servers)
    backend = KServeBackend(Path(f"kserve+http://{hosts}/m"), BackendOptions(deadline_ms=deadline_ms, depth=depth))
    backend.open()
    try:
        yield backend
    finally:
        backend.close()


def ask(backend: KServeBackend) -> np.ndarray:
    pending = backend.submit(FEEDS)
    try:
        return pending.result()[0].copy()
    finally:
        pending.release()


@pytest.mark.parametrize(
    "address",
    [
        "kserve+http://host",
        "kserve+http://host/",
        "kserve+ftp://host/m",
        "kserve+http://user:secret@host/m",
        "kserve+http://host:99999/m",
        "kserve+http://::1/m",
        "kserve+http://a,,b/m",
        "kserve+http://host/m/versions/x",
        "kserve+http://host/m?x=1",
    ],
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        RemoteModel.parse(address)


def test_an_address_names_servers_model_and_version() -> None:
    model = RemoteModel.parse(Path("kserve+https://[::1]:1,b/yolo.v8/versions/3"))
    assert str(model) == "kserve+https://[::1]:1,b:443/yolo.v8"
    assert (model.version, model.hosts[0].name) == ("3", "::1")


def test_only_its_own_backend_runs_a_remote_model() -> None:
    path = Path("kserve+http://host/m")
    assert select_backend(path)[0] == "kserve"
    with pytest.raises(ConfigError, match="needs kserve"):
        select_backend(path, "openvino")
    with pytest.raises(ConfigError, match="only kserve"):
        select_backend(path, without={"kserve"})


def test_the_server_describes_the_model() -> None:
    with running(GOOD) as server:
        file = read_model_file(f"kserve+http://{server.address}/m")
    assert str(file.inputs[0]) == "x (?, 3) float32"
    assert (file.format, file.metadata) == ("kserve", {"task": "detect"})


@pytest.mark.parametrize(
    "metadata",
    [
        b"no json",
        b"[1]",
        {},
        {"inputs": [], "outputs": []},
        {"inputs": [{"name": "x"}], "outputs": [SPEC]},
        {"inputs": [{**SPEC, "datatype": "BYTES"}], "outputs": [SPEC]},
        {"inputs": [{**SPEC, "shape": [1] * 20}], "outputs": [SPEC]},
        {"inputs": [{**SPEC, "name": "x" * 300}], "outputs": [SPEC]},
        {"inputs": [SPEC] * 100, "outputs": [SPEC]},
        b"[" * 100_000,
        b" " * 2_000_000,
    ],
    ids=range(11),
)
def test_a_server_that_describes_no_model_is_refused(metadata: Any) -> None:
    with running(GOOD, metadata=metadata) as server:
        with pytest.raises(ModelError):
            read_model_file(f"kserve+http://{server.address}/m")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(tensors([row(shape=[9, 9])], b"", Connection="close"), id="wrong shape"),
        pytest.param(lambda _: (400, {"Connection": "close"}, b"no"), id="refused"),
    ],
)
def test_the_last_answer_of_a_connection_leaves_no_socket_open_when_it_fails(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a connection belongs to its answer, and the error stored here keeps both alive."""
    sockets: list[socket.socket] = []
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: sockets.append(connect(*a, **k)) or sockets[-1])
    with running(answer, GOOD) as server, opened(server) as backend:
        with pytest.raises(ModelError):
            ask(backend)
        assert sum(one.fileno() >= 0 for one in sockets) == 0
        np.testing.assert_array_equal(ask(backend), DATA)


def test_a_server_that_is_not_there_is_named() -> None:
    with running(GOOD) as server:
        address = server.address
    with pytest.raises(ModelError, match=f"no server answers .*{address}"):
        read_model_file(f"kserve+http://{address}/m")


@pytest.mark.parametrize(
    "answer",
    [
        tensors([row(shape=[2, 4])], bytes(32)),
        tensors([row(shape=[-2, 3])], b""),
        tensors([row(shape=[10**9, 3])], b""),
        tensors([row(shape="23")], bytes(24)),
        tensors([row(datatype="FP64")], bytes(48)),
        tensors([row(name="z")], bytes(24)),
        tensors([], b""),
        tensors("none", b""),
        tensors([row(parameters={"binary_data_size": 23})], bytes(24)),
        tensors([row(parameters={})], bytes(24)),
        tensors([row(parameters="x")], bytes(24)),
        tensors([row()], bytes(24), **{"Inference-Header-Content-Length": "-1"}),
        lambda _: (200, {}, b'{"outputs": []}'),
        lambda _: (400, {}, b'{"error": "wrong \\u001b[2J"}'),
    ],
    ids=range(14),
)
def test_an_answer_that_does_not_fit_fails_and_the_next_one_counts(answer: Answer) -> None:
    with running(answer, GOOD) as server, opened(server) as backend:
        with pytest.raises(ModelError) as failed:
            ask(backend)
        assert not isinstance(failed.value, LostInferenceError)
        assert "\x1b" not in str(failed.value)
        assert np.array_equal(ask(backend), DATA)


@pytest.mark.parametrize(
    "trouble",
    [
        lambda _: None,
        lambda _: (500, {}, b"oops"),
        lambda _: (503, {}, b"{}"),
        lambda _: (429, {"Retry-After": "0"}, b"{}"),
        tensors([row()], bytes(5), **{"Content-Length": "500", "Connection": "close"}),
    ],
    ids=["breaks off", "fails", "not ready", "busy", "cut"],
)
def test_a_server_in_trouble_is_asked_again(trouble: Answer) -> None:
    with running(trouble, trouble, GOOD) as server, opened(server) as backend:
        assert np.array_equal(ask(backend), DATA)
        assert server.asked >= 3


def test_an_answer_that_is_late_is_lost_and_never_taken_later() -> None:
    late = tensors([row()], np.full((2, 3), 9, np.float32).tobytes())

    def slow(server: Server) -> Any:
        server.over.wait(0.5)
        return late(server)

    with running(slow, GOOD) as server, opened(server, deadline_ms=100) as backend:
        with pytest.raises(LostInferenceError) as lost:
            ask(backend)
        assert lost.value.cause == LATE
        deadline = time.monotonic() + AT_ONCE_S
        while time.monotonic() < deadline:
            with suppress(LostInferenceError):
                assert np.array_equal(ask(backend), DATA)
                break


@pytest.mark.parametrize(
    "begin",
    [
        b"HTTP/1.1 200 OK\r\nX-Padding: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nInference-Header-Content-Length: 900\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["head", "body", "error"],
)
def test_an_answer_that_drips_does_not_extend_the_deadline(begin: bytes) -> None:
    """The timeout of a socket is for each read, and a byte every 50 ms would never exceed it."""
    dripped: list[bytes] = []

    def drip(server: Server) -> None:
        with suppress(OSError):
            server.out.write(begin)
            while len(dripped) < 400:
                server.over.wait(0.05)
                server.out.write(b"x")
                dripped.append(b"x")

    with running(drip, GOOD) as server, opened(server, deadline_ms=300) as backend:
        with pytest.raises(LostInferenceError) as lost:
            ask(backend)
        assert lost.value.cause == LATE
        assert len(dripped) < 100


def test_fewer_requests_are_under_way_when_answers_are_late() -> None:
    window = Window(4)
    for _ in range(4):
        window.enter(0.0)
    window.late()
    window.late()
    assert window.size == 1
    window.late()
    assert window.size == 1
    for _ in range(4):
        window.leave()
    window.enter(AT_ONCE_S)
    entered = threading.Event()
    waiting = threading.Thread(target=lambda: (window.enter(AT_ONCE_S), entered.set()))
    waiting.start()
    assert not entered.wait(0.05)
    window.leave()
    assert entered.wait(AT_ONCE_S)
    waiting.join()
    for _ in range(20):
        window.in_time()
    assert window.size == 4


def test_a_server_that_can_do_one_thing_at_a_time_gets_one_at_a_time() -> None:
    turn = threading.Lock()

    def alone(server: Server) -> Any:
        if not turn.acquire(blocking=False):
            server.over.wait(AT_ONCE_S * 4)
            return None
        try:
            server.over.wait(0.02)
            return GOOD(server)
        finally:
            turn.release()

    with running(alone) as server, opened(server, deadline_ms=500, depth=4) as backend:
        in_flight = [backend.submit(FEEDS) for _ in range(4)]
        in_a_row = most = 0
        for _ in range(60):
            pending = in_flight.pop(0)
            try:
                pending.result()
                in_a_row += 1
            except LostInferenceError:
                in_a_row = 0
            most = max(most, in_a_row)
            pending.release()
            if most >= 3:
                break
            in_flight.append(backend.submit(FEEDS))
        for pending in in_flight:
            pending.release()
    assert most >= 3


@pytest.mark.parametrize("status", [404, 400])
def test_a_server_that_starts_again_and_does_not_know_the_model_yet_is_asked_again(status: int) -> None:
    def starting(server: Server) -> Any:
        return status, {}, b'{"error": "Request for unknown model: m is not found"}'

    with running(starting, starting, GOOD) as server, opened(server) as backend:
        assert np.array_equal(ask(backend), DATA)


def test_a_server_that_went_away_is_a_loss_with_its_own_cause() -> None:
    with running(GOOD) as server:
        with opened(server, deadline_ms=300) as backend:
            assert np.array_equal(ask(backend), DATA)
            server.shutdown()
            server.socket.close()
            server.answers = [lambda _: None]
            with pytest.raises(LostInferenceError) as lost:
                ask(backend)
            assert lost.value.cause == AWAY
            server.socket = socket.socket()  # for server_close


@pytest.mark.parametrize("trouble", [lambda _: None, lambda _: (500, {}, b"")], ids=["breaks off", "fails"])
def test_the_second_server_is_asked_after_a_failure_and_never_both(trouble: Answer) -> None:
    with running(trouble) as first, running(GOOD) as second, opened(first, second) as backend:
        for _ in range(5):
            assert np.array_equal(ask(backend), DATA)
        assert first.asked in (1, 2)  # once more on a new connection, if the kept one may just have been closed
        assert second.asked == 5
        assert backend.device == second.address


def test_the_second_server_describes_the_model_when_the_first_is_away() -> None:
    with running(GOOD) as gone:
        address = gone.address
    with running(GOOD) as second:
        assert read_model_file(f"kserve+http://{address},{second.address}/m").inputs


def test_closing_does_not_wait_for_a_server_that_hangs() -> None:
    with running(hangs) as server, ExitStack() as stack:
        backend = stack.enter_context(opened(server, deadline_ms=60_000))
        pending = backend.submit(FEEDS)
        while not server.asked:
            time.sleep(0.001)
        began = time.monotonic()
        backend.close()
        assert time.monotonic() - began < AT_ONCE_S
        with pytest.raises(LostInferenceError):
            pending.result()
        pending.release()


def test_a_token_comes_from_the_environment_and_stays_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEWIRE_KSERVE_TOKEN", "a-secret-of-many-characters")
    seen = []

    def look(server: Server) -> Any:
        return GOOD(server)

    class Looking(_Handler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            super().do_GET()

    with running(look) as server:
        server.RequestHandlerClass = Looking
        with opened(server) as backend:
            assert np.array_equal(ask(backend), DATA)
            assert "a-secret" not in repr(vars(backend))
    assert set(seen) == {"Bearer a-secret-of-many-characters"}
