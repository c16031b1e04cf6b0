"""`framewire serve`: bodies of images and of the Open Inference Protocol, and everything around them."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import socket
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np

from tests.hostile.test_models import detector_file
from tests.serving import encoded
from tools.attacks.damage import mutated, replaced
from tools.attacks.live import Attack, Starting
from tools.attacks.progress import Progress
from tools.attacks.victims import ProcessLab, Victim

HEADER = "Inference-Header-Content-Length"
SIDE = 64
WAIT_S, WARM_WAIT_S = 5.0, 60.0
MEMORY_MB = 25.0
"""More than of an engine: Python returns the memory of many small objects only where all of a megabyte are gone."""
ZEROS = [0.0] * (3 * SIDE * SIDE)
LARGE = (b"[" * 3_000_000, b'{"inputs":[' + b"{}," * 190_000, bytes(60_000_000), bytes(90_000_000), b'{"a":' * 100_000)
WARM_ROUNDS, WARM_THREADS = 5, 16
PATHS = (
    "/v1/detect",
    "/v1/classify",
    "/v2/models/m/infer",
    "/v2/models/m/versions/1/infer",
    "/v2/models/%00/infer",
    "/v2/models/../../etc/passwd/infer",
    "/static/../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/app.py",
    "/v2/repository/index",
    "/",
)
TYPES = ("application/json", "application/octet-stream", "image/jpeg", "multipart/form-data; boundary=b", "x" * 3000)


@contextlib.contextmanager
def serve(rng: random.Random, progress: Progress, folder: Path) -> Starting:
    """Requests to a server of images."""
    model = detector_file(folder / "m.onnx")
    words = ["serve", "--json", "--model", f"m={model}", "--http", "127.0.0.1:0", "--max-wait-ms", "30000"]

    def turn(victim: Victim) -> None:
        rng.choice(TURNS)(victim.port, rng, progress)

    with ProcessLab(words, "serving m at http://127.0.0.1:", _is_healthy) as lab:
        _warm_up(lab.engine.port)
        yield Attack(lab, turn, MEMORY_MB, has_sources=False, exit_code=0)


def _warm_up(port: int) -> None:
    """Use every thread and buffer of the server before its memory is compared.

    Large requests too: Python keeps some of the memory of 300,000 objects for the next ones (50 MB, which do not grow).
    On a busy machine they take longer than those of the attack may; without them, 90 MB would count as a leak.
    """
    good = json.dumps({"inputs": [{"name": "images", "shape": [1, 3, SIDE, SIDE], "datatype": "FP32", "data": ZEROS}]})
    with ThreadPoolExecutor(WARM_THREADS) as pool:
        for _ in range(WARM_ROUNDS):
            for path, body in (("/v2/models/m/infer", good.encode()), ("/v1/detect", encoded(".png"))):
                ask = partial(_ask, port, "POST", path, body, {}, WARM_WAIT_S)
                list(pool.map(lambda _, ask=ask: ask(), range(WARM_THREADS)))
        for _ in range(WARM_ROUNDS):
            for body in map(zlib.compress, LARGE):
                with contextlib.suppress(OSError, HTTPException):
                    _ask(port, "POST", "/v2/models/m/infer", body, {"Content-Encoding": "deflate"}, WARM_WAIT_S)


def _is_healthy(port: int) -> bool:
    """Return whether the server finds what it should in a good image."""
    return _ask(port, "POST", "/v1/detect", encoded(".jpg"), {"Content-Type": "image/jpeg"}) == 200


def _ask(port: int, method: str, path: str, body: bytes, headers: dict[str, str], timeout_s: float = WAIT_S) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def _tried(
    progress: Progress, port: int, path: str, body: bytes, headers: dict[str, str], method: str = "POST"
) -> None:
    with contextlib.suppress(OSError, HTTPException, ValueError):  # it may refuse a body before it has arrived
        status = _ask(port, method, path, body, headers)
        if status == 500:
            progress.failed(f"{method} {path} was answered with 500: {body[:200]!r}")
    progress.tried(body)


def _tensors(port: int, rng: random.Random, progress: Progress) -> None:
    """Send tensors as JSON whose values are of other types, sizes and ranges."""
    shape = rng.choice(([1, 3, SIDE, SIDE], [1, 3, 2, 2], [2**40, 3, 2, 2], [-1, 3, 64, 64], [0], [1, 3, SIDE]))
    data = [rng.choice((0.5, 1, 1e308, -0.0))] * rng.choice((12, 3 * SIDE * SIDE, 100))
    tensor = {"name": "images", "datatype": rng.choice(("FP32", "INT8", "BYTES", "FP16", "x")), "shape": shape}
    tree = {"id": "7", "inputs": [{**tensor, "data": data}], "outputs": [{"name": "o"}], "parameters": {}}
    body = json.dumps(replaced(rng, tree, 0.05) if len(data) < 200 else tree).encode()
    if rng.random() < 0.5:
        body = mutated(rng, body)
    _tried(progress, port, "/v2/models/m/infer", body, {"Content-Type": "application/json"})


def _binary(port: int, rng: random.Random, progress: Progress) -> None:
    """Send tensors as bytes after their JSON, with lengths that do not fit."""
    count = 3 * SIDE * SIDE
    tail = rng.choice((np.full(count, np.nan, np.float32).tobytes(), bytes(4 * count), rng.randbytes(4 * count), b"x"))
    size = rng.choice((len(tail), len(tail), 0, -1, 2**63, len(tail) + 1, "many"))
    wanted: dict[str, object] = {"name": "o", "parameters": {"binary_data": rng.choice((True, False, "yes"))}}
    tensor = {"name": "images", "shape": [1, 3, SIDE, SIDE], "datatype": "FP32"}
    tree = {"inputs": [{**tensor, "parameters": {"binary_data_size": size}}], "outputs": [wanted]}
    head = json.dumps(replaced(rng, tree, 0.02)).encode()
    length = rng.choice((str(len(head)), str(len(head)), "0", "-1", "9" * 30, "x", str(len(head) + len(tail) + 1)))
    body = head + tail if rng.random() < 0.7 else mutated(rng, head + tail)
    _tried(progress, port, "/v2/models/m/infer", body, {HEADER: length, "Content-Type": "application/octet-stream"})


def _image(port: int, rng: random.Random, progress: Progress) -> None:
    good = encoded(rng.choice((".jpg", ".png", ".bmp", ".webp")))
    boundary = b'--b\r\nContent-Disposition: form-data; name="image"; filename="../a"\r\n\r\n' + good + b"\r\n--b--\r\n"
    as_json = json.dumps({"image": good.hex(), "instances": [[1]]}).encode()
    body = mutated(rng, rng.choice((good, good, boundary, as_json)))
    path = rng.choice(PATHS) + rng.choice(("", "", "?score=nan", "?score=1e999&model=m", "?" + "a=b&" * 500))
    _tried(progress, port, path, body, {"Content-Type": rng.choice(TYPES)}, rng.choice(("POST", "POST", "PUT", "GET")))


def _packed(port: int, rng: random.Random, progress: Progress) -> None:
    """Send bodies that grow when they are unpacked, and damaged ones."""
    plain = rng.choice(LARGE)
    body, encoding = (gzip.compress(plain, 1), "gzip") if rng.random() < 0.5 else (zlib.compress(plain), "deflate")
    body = mutated(rng, body) if rng.random() < 0.3 else body
    headers = {"Content-Encoding": rng.choice((encoding, encoding, "br", "gzip, gzip")), "Content-Type": TYPES[0]}
    _tried(progress, port, "/v2/models/m/infer", body, headers)


def _raw(port: int, rng: random.Random, progress: Progress) -> None:
    """Send what is no HTTP, or only half of it, and leave."""
    heads = (
        b"POST /v1/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000000\r\n\r\n" + bytes(1000),
        b"POST /v1/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5_000,
        struct.pack(">HI", 0x1603, 0) * 50,
    )
    body = mutated(rng, rng.choice(heads))
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), WAIT_S) as client:
        client.sendall(body)
        if rng.random() < 0.5:
            client.settimeout(0.2)
            client.recv(1000)
    progress.tried(body)


Turn = Callable[[int, random.Random, Progress], None]
TURNS: tuple[Turn, ...] = (_tensors, _tensors, _binary, _binary, _image, _image, _raw, _packed)
