"""Measure `framewire serve`: its throughput compared with the bare backend, or its behaviour when overloaded.

    python tools/measure/bench_serve.py --model yolo11n.onnx --image street.jpg
    python tools/measure/bench_serve.py --model yolo11n.onnx --image street.jpg --overload 60

Throughput: 8 clients in a separate process send a JPEG repeatedly; alternating with that, this process decodes the same
JPEG and runs the same model on the same backend, with as many inferences in flight. Both are medians over rounds, so
the ratio holds on a shared machine. Overload: 32 clients against a queue of 8; every request must get an answer, and
the memory must not grow.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from engine.clock import pause
from engine.detection.load import load_detector
from engine.video.read_image import decode_image

CLIENTS = 8
OVERLOADING, PLACES = 32, 8
TIMEOUT_S = 60.0
SETTLED = 0.25


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--image", type=Path, required=True, help="a JPEG")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overload", type=float, help="overload for this many seconds instead")
    parser.add_argument("--send", nargs=3, metavar=("PORT", "SECONDS", "CLIENTS"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, and print one line of JSON."""
    given = _options()
    if given.send:
        port, seconds, clients = given.send
        print(json.dumps(_send(int(port), given.image.read_bytes(), float(seconds), int(clients))))
        return
    print(json.dumps(_overload(given) if given.overload else _throughput(given)))


def _throughput(given: argparse.Namespace) -> dict[str, Any]:
    data = given.image.read_bytes()
    bare, served = [], []
    with _served(given.model, given.backend, 64) as server:
        alone = _Bare(given.model, given.backend)
        for _ in range(given.rounds):
            bare.append(alone.per_s(data, given.seconds))
            answers = _clients(given.image, server.port, given.seconds, CLIENTS)
            served.append(answers["200"] / answers["wall_s"])
        alone.close()
    figures = {"bare_per_s": statistics.median(bare), "served_per_s": statistics.median(served)}
    figures["ratio"] = statistics.median(s / b for s, b in zip(served, bare, strict=True))
    return {key: round(value, 3) for key, value in figures.items()}


def _overload(given: argparse.Namespace) -> dict[str, Any]:
    with _served(given.model, given.backend, PLACES) as server:
        _clients(given.image, server.port, max(given.overload * SETTLED, 1.0), OVERLOADING)
        before = server.resident_mb()
        answers = _clients(given.image, server.port, given.overload, OVERLOADING)
        after = server.resident_mb()
    return {**answers, "resident_mb_before": before, "resident_mb_after": after}


class _Bare:
    """Decoding and the backend, with nothing between them."""

    def __init__(self, model: str, backend: str) -> None:
        self._detector = load_detector(model, backend=backend)
        self._detector.open()
        self._backend = self._detector.inference
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def per_s(self, data: bytes, seconds: float) -> float:
        """Return images per second."""
        encoded = np.frombuffer(data, np.uint8)
        first = self._backend.inputs[0]
        shape, depth = [size or 1 for size in first.shape], self._backend.depth
        canvases = [self._backend.empty(shape, np.uint8) for _ in range(depth)]
        decoding: deque[Future[Any]] = deque(self._pool.submit(decode_image, encoded) for _ in range(CLIENTS))
        in_flight: deque[Any] = deque()
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            decoding.popleft().result()
            decoding.append(self._pool.submit(decode_image, encoded))
            if len(in_flight) == depth:
                _finish(in_flight.popleft())
                done += 1
            in_flight.append(self._backend.submit({first.name: canvases[done % len(canvases)]}))
        wall = time.perf_counter() - began
        for pending in in_flight:
            _finish(pending)
        return done / wall

    def close(self) -> None:
        """Free the model."""
        self._pool.shutdown(cancel_futures=True)
        self._detector.close()


class _Server:
    """A server in a separate process."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def resident_mb(self) -> float:
        """Return its memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@contextmanager
def _served(model: str, backend: str, queue: int) -> Iterator[_Server]:
    words = ["serve", "--model", f"model={model}", "--backend", backend, "--http", "127.0.0.1:0", "--queue", str(queue)]
    command = [sys.executable, "-m", "pipelines", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        port = int(line.split("127.0.0.1:")[1].split()[0])
        threading.Thread(target=process.stderr.read, daemon=True).start()
        _wait_until_ready(port)
        yield _Server(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _wait_until_ready(port: int) -> None:
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        client = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        client.request("GET", "/v2/health/ready")
        if client.getresponse().status == 200:
            return
        pause(0.1)
    sys.exit("the server did not become ready")


def _clients(image: Path, port: int, seconds: float, clients: int) -> dict[str, Any]:
    """Send an image from a separate process; return the number of answers by status."""
    words = ["--image", str(image), "--send", str(port), str(seconds), str(clients)]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _send(port: int, data: bytes, seconds: float, clients: int) -> dict[str, Any]:
    answers: Counter[str] = Counter()
    until = time.monotonic() + seconds

    def client() -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        while time.monotonic() < until:
            answers["sent"] += 1
            try:
                connection.request("POST", "/v1/detect", data)
                answer = connection.getresponse()
                answer.read()
                answers[str(answer.status)] += 1
            except (OSError, HTTPException) as error:
                print(repr(error), file=sys.stderr)
                answers["lost"] += 1
                connection.close()

    began = time.monotonic()
    _run_together([threading.Thread(target=client) for _ in range(clients)])
    return {"200": 0, "lost": 0, **answers, "wall_s": round(time.monotonic() - began, 2)}


def _run_together(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _finish(pending: Any) -> None:
    pending.result()
    pending.release()


if __name__ == "__main__":
    main()
