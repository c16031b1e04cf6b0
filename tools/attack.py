#!/usr/bin/env python3
"""Attack every input of Framewire with damaged and random data, and print a table of the results.

usage: tools/attack.py [--minutes 60] [--only SURFACE ...] [--seed 1] [--json]

Inputs of a running engine (control, snapshot, publish, streams) are attacked as in `tests/hostile`, on an engine with a
healthy camera and a subscriber. Inputs for parsers (wire, config, images, models) are parsed in a worker process.
An *end* is a process that died or raised an undocumented error, a *freeze* is more than a second without a frame of the
healthy camera or inside one attempt, a *leak* is memory or descriptors that were not released. Exit code 1 if any.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from engine.clock import pause

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

FREEZE_S = 1.0
LEAK_MB = 50
LIVE_LEAK_MB = 10
TOKENS = (
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"{",
    b"[",
    b'"',
    b"${HOME}",
    b"\x1b[2J",
    b"-1",
    b"1e999",
)


@dataclasses.dataclass
class Result:
    """The result of the attack on one surface."""

    surface: str
    tries: int = 0
    ends: int = 0
    freezes: int = 0
    leaks: int = 0
    longest_s: float = 0.0
    notes: str = ""

    @property
    def is_good(self) -> bool:
        """Whether something was tried, and nothing ended, froze or leaked."""
        return self.tries > 0 and not (self.ends or self.freezes or self.leaks)

    def row(self) -> str:
        """Return the line of the table."""
        counts = f"{self.tries:,} | {self.ends} | {self.freezes} | {self.leaks} | {self.longest_s:.2f} s"
        return f"| {self.surface} | {counts} | {self.notes} |"


HEAD = "| surface | tries | ends | freezes > 1 s | leaks | longest | notes |\n|---|---|---|---|---|---|---|"


def mutated(rng: random.Random, good: bytes) -> bytes:
    """Return data that is random, truncated, or changed in a few places."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(400))
    data = bytearray(good)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, how = rng.randrange(len(data) + 1), rng.random()
        if how < 0.5 and data:
            data[at % len(data)] = rng.randrange(256)
        elif how < 0.7:
            data[at:at] = rng.choice(TOKENS) * rng.choice((1, 1, 8))
        elif how < 0.85:
            del data[at : at + rng.randrange(1, 64)]
        else:
            data = data[:at]
    return bytes(data)


# Parsers to attack in a worker process.


def wire(rng: random.Random, folder: Path) -> Iterator[Callable[[], object]]:
    """Messages of the stream."""
    from engine.errors import WireError
    from engine.wire import decode, encode
    from tests.wire.samples import SAMPLES

    bodies = [encode(message, encoding) for message in SAMPLES.values() for encoding in ("json", "msgpack")]
    while True:
        body = mutated(rng, rng.choice(bodies))
        yield partial(promised, WireError, partial(decode, body))


def config(rng: random.Random, folder: Path) -> Iterator[Callable[[], object]]:
    """Configuration files."""
    from engine.errors import ConfigError
    from pipelines.config.file import load_config

    goods = [path.read_bytes() for path in sorted((CHECKOUT / "configs").glob("*.yaml"))]
    place = folder / "config.yaml"
    while True:
        place.write_bytes(mutated(rng, rng.choice(goods)))
        yield partial(promised, ConfigError, partial(load_config, str(place), {}))


def images(rng: random.Random, folder: Path) -> Iterator[Callable[[], object]]:
    """Image files of every supported format."""
    import cv2
    import numpy as np

    from engine.video.read_image import read_image

    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    goods = [
        (s, cv2.imencode(f".{s}", pixels)[1].tobytes()) for s in ("jpg", "png", "bmp", "tif", "webp", "jp2", "ppm")
    ]
    while True:
        suffix, good = rng.choice(goods)
        place = folder / f"image.{suffix}"
        place.write_bytes(mutated(rng, good))
        yield partial(promised, (ValueError, OSError), partial(read_image, place))


def _load(model: Path) -> None:
    """Load a model in a child process, and wait for its end."""
    from engine.backends.base import BackendOptions
    from engine.backends.trial import Trial

    trial = Trial("openvino", model, BackendOptions())
    while not trial.poll(1.0):
        pass


def models(rng: random.Random, folder: Path) -> Iterator[Callable[[], object]]:
    """Model files: parsed by the engine, and loaded by the library in the child that tries them."""
    from engine.backends.files.base import read_model_file
    from engine.errors import ModelError
    from tests.hostile.test_models import detector_file

    good = detector_file(folder / "good.onnx").read_bytes()[:2000]  # the graph; a truncated weight is damage too
    whole = (folder / "good.onnx").read_bytes()
    for number in itertools.count():
        place = folder / "model.onnx"
        place.write_bytes(mutated(rng, good) + whole[2000:])
        yield partial(promised, ModelError, partial(read_model_file, place))
        if number % 500 == 0:
            yield partial(_load, place)


def promised(kinds: Any, act: Callable[[], object]) -> None:
    """Run `act`; errors of these kinds are valid answers to bad input."""
    try:
        act()
    except kinds:
        return


READ: dict[str, Callable[[random.Random, Path], Iterator[Callable[[], object]]]] = {
    "wire": wire, "config": config, "images": images, "models": models,
}  # fmt: skip


def _try(act: Callable[[], object], result: Result) -> None:
    """Perform an attack, and record how long it took and whether it failed."""
    begun = time.monotonic()
    try:
        act()
    except Exception as error:  # noqa: BLE001 - whatever it is, it was not promised
        result.ends, result.notes = result.ends + 1, f"{type(error).__name__}: {error}"[:200]
    spent_s = time.monotonic() - begun
    result.tries, result.longest_s = result.tries + 1, max(result.longest_s, spent_s)
    result.freezes += spent_s > FREEZE_S and result.surface != "models"  # a trial waits for its child


def work(surface: str, seconds: float, seed: int) -> Result:
    """Attack one surface in this process until the time is up."""
    from engine.process import peak_memory_mb

    result, deadline = Result(surface), time.monotonic() + seconds
    warm_mb = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for act in READ[surface](random.Random(seed), Path(folder)):
            _try(act, result)
            if result.tries == 200:
                warm_mb = peak_memory_mb()
            if time.monotonic() > deadline:
                break
    grown_mb = peak_memory_mb() - warm_mb if warm_mb else 0.0
    result.leaks = int(grown_mb > LEAK_MB)
    result.notes = result.notes or f"memory grew by {grown_mb:.0f} MB"
    return result


def in_worker(surface: str, seconds: float, seed: int) -> Result:
    """Attack one surface in worker processes; one that dies is an end, and the next continues with another seed."""
    total, deadline = Result(surface), time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0.5:
        command = [sys.executable, __file__, "--worker", surface, "--minutes", str(left_s / 60), "--seed", str(seed)]
        with tempfile.TemporaryFile("w+", errors="replace") as errors:  # OpenCV logs every damaged file
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
            errors.seek(max(errors.seek(0, 2) - 300, 0))
            last_words = errors.read()
        if done.returncode == 0:
            part = Result(**json.loads(done.stdout.splitlines()[-1]))
            for name in ("tries", "ends", "freezes", "leaks"):
                setattr(total, name, getattr(total, name) + getattr(part, name))
            total.longest_s, total.notes = max(total.longest_s, part.longest_s), part.notes
        else:
            total.ends += 1
            total.notes = f"seed {seed}: worker ended with {done.returncode}: {last_words[-200:]}"
        seed += 1
    return total


# Inputs of a running engine.


def on_engine(surface: str, seconds: float, seed: int) -> Result:
    """Attack a running engine for this long, and judge it."""
    from tests.hostile.lab import Lab
    from tests.hostile.servers import hostile_camera

    rng, tries = random.Random(seed), [0]
    with tempfile.TemporaryDirectory() as folder:
        snapshot = f"ipc://{folder}/snapshot"
        attack = {"control": _control, "publish": _publish, "snapshot": _snapshot}.get(surface, _nothing)

        def play(engine: Any) -> None:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and engine.alive:
                tries[0] += attack(engine, rng, snapshot)

        if surface == "streams":
            with hostile_camera(_streams(rng, tries)) as camera:
                settings = ("sources.1.backoff_max_s=0.2", "sources.1.open_timeout_s=2")
                with Lab({"evil": camera.url()}, *settings, ready=("evil",)) as lab:  # the baseline includes its reader
                    verdict = lab.play(play)
        else:
            with Lab({}, f"publish.snapshot={snapshot}") as lab:
                verdict = lab.play(play)
    return _judged(surface, tries[0], verdict)


def _judged(surface: str, tries: int, verdict: Any) -> Result:
    """Return a verdict as the result of an attack."""
    faults = verdict.faults(memory_mb=LIVE_LEAK_MB, share=0.0, freeze_s=FREEZE_S)
    leaks = sum(name in faults for name in ("memory", "descriptors", "threads", "left behind"))
    ends = sum(name in faults for name in ("alive", "exit code", "summary", "accounting", "traceback"))
    notes = f"{verdict} {faults or ''}"[:600]
    return Result(surface, tries, ends, int("freeze" in faults), leaks, verdict.longest_gap_s, notes)


def _nothing(engine: Any, rng: random.Random, snapshot: str) -> int:
    pause(0.2)
    return 0


REQUESTS = [
    {"command": "status"},
    {"command": "pause", "source_id": "gone"},
    {"command": "remove", "source_id": "gone"},
    {"command": "set", "key": "detector.score_threshold", "value": 2},
    {"command": "set", "key": "detector.model", "value": "/nowhere"},
    {"command": "add", "source": {"uri": "nowhere://x", "source_id": "x" * 300}},
]


def _control(engine: Any, rng: random.Random, snapshot: str) -> int:
    good = json.dumps(rng.choice(REQUESTS)).encode()
    _send(engine.control, rng, [mutated(rng, good) for _ in range(50)])
    return 50


def _snapshot(engine: Any, rng: random.Random, snapshot: str) -> int:
    _send(snapshot, rng, [mutated(rng, b"v1/snapshot") for _ in range(50)])
    return 50


def _send(address: str, rng: random.Random, bodies: list[bytes]) -> None:
    """Send messages of one part and of several, with and without REQ framing."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 100)
        socket.setsockopt(zmq.SNDTIMEO, 1000)
        socket.connect(address)
        for body in bodies:
            frames = [b"", body] if rng.random() < 0.7 else [body] * rng.randint(1, 5)
            try:
                socket.send_multipart(frames)
            except zmq.Again:
                return
        socket.poll(50)


def _publish(engine: Any, rng: random.Random, snapshot: str) -> int:
    """Talk to the publishing port as HTTP, as half a handshake, and as a subscriber to odd topics."""
    import contextlib
    import socket

    import zmq

    port = int(engine.publish.rpartition(":")[2])
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    for good in (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", greeting, greeting + b"\x04\x19\x05READY"):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as client:
            client.sendall(mutated(rng, good))
    with zmq.Context() as context, context.socket(zmq.XSUB) as subscriber:
        subscriber.setsockopt(zmq.LINGER, 0)
        subscriber.connect(engine.publish)
        for _ in range(20):
            subscriber.send(bytes([rng.choice((0, 1, 1, 2))]) + rng.randbytes(rng.randrange(200)))
        subscriber.poll(20)
    return 23


def _part(rng: random.Random, goods: list[bytes]) -> bytes:
    """Return one image of a multipart stream; image and header are often damaged."""
    image = mutated(rng, rng.choice(goods)) if rng.random() < 0.7 else rng.choice(goods)
    head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n".encode()
    return (mutated(rng, head) if rng.random() < 0.1 else head) + image + b"\r\n"


def _streams(rng: random.Random, tries: list[int]) -> Callable[[Any], None]:
    """Return an answer that damages a different part of the camera's data each time."""
    from tests.hostile.servers import MULTIPART, jpeg, playlist, redirect

    goods = [jpeg(64, 48), jpeg(320, 240)]

    def answer(handler: Any) -> None:
        tries[0] += 1
        kind = rng.random()
        if kind < 0.1:
            handler.wfile.write(mutated(rng, MULTIPART))
        elif kind < 0.2:
            playlist(*[mutated(rng, b"#EXTINF:2,\nfile:///etc/passwd").decode("latin-1") for _ in range(5)])(handler)
        elif kind < 0.25:
            redirect(rng.choice(("file:///etc/passwd", handler.path, "http://127.0.0.1:9/", "gopher://x")))(handler)
        else:
            handler.wfile.write(MULTIPART)
            for _ in range(rng.randrange(1, 60)):
                tries[0] += 1
                handler.wfile.write(_part(rng, goods))
                pause(0.01)

    return answer


LIVE = ("control", "snapshot", "publish", "streams")
SURFACES = (*READ, *LIVE)


def _options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="time for all surfaces together")
    parser.add_argument("--only", nargs="*", choices=SURFACES, default=SURFACES, help="surfaces to attack")
    parser.add_argument("--seed", type=int, default=1, help="of the damages")
    parser.add_argument("--json", action="store_true", help="print one JSON line instead of the table")
    parser.add_argument("--worker", choices=tuple(READ), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Attack, print the table, and return 1 if anything ended, froze or leaked."""
    args = _options()
    if args.worker:
        print(json.dumps(dataclasses.asdict(work(args.worker, args.minutes * 60, args.seed))))
        return 0
    seconds = args.minutes * 60 / len(args.only)
    results = []
    print(HEAD, file=sys.stderr if args.json else sys.stdout)
    for surface in args.only:
        attack = in_worker if surface in READ else on_engine
        results.append(attack(surface, seconds, args.seed))
        print(results[-1].row(), flush=True, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps([dataclasses.asdict(result) for result in results]))
    return 0 if all(result.is_good for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
