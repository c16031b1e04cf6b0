"""The sockets of an engine: control, snapshot and publish."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from pathlib import Path
from typing import Any

import zmq

from tests.hostile.lab import Lab
from tools.attacks.damage import mutated, replaced
from tools.attacks.live import Attack, Starting
from tools.attacks.progress import Progress

REQUESTS: list[dict[str, Any]] = [
    {"command": "status"},
    {"command": "pause", "source_id": "gone"},
    {"command": "remove", "source_id": "gone"},
    {"command": "set", "key": "detector.score_threshold", "value": 2},
    {"command": "set", "key": "detector.model", "value": "/nowhere"},
    {"command": "add", "source": {"uri": "nowhere://x", "source_id": "x" * 300}},
    {"command": "snooze", "source_id": "gone", "for_s": 60},
    {"command": "places"},
    {"command": "set_places", "source_id": "gone", "zones": {"a": {"points": [[0, 0], [1, 0], [1, 1]]}}, "lines": {}},
    {"command": "rules"},
    {"command": "set_rules", "rules": [{"name": "a", "kind": "nothing", "zone": "a"}], "version": "x", "by": "y"},
    {"command": "recordings"},
]
MESSAGES = 50
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
HELLOS = (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", GREETING, GREETING + b"\x04\x19\x05READY")


def spelled(tree: object) -> bytes:
    """Return plain values as JSON; half a character stays escaped."""
    return json.dumps(tree).encode()


@contextlib.contextmanager
def control(rng: random.Random, progress: Progress, folder: Path) -> Starting:
    """Requests to the control socket, in one part and in several."""

    def turn(engine: Any) -> None:
        good = rng.choice(REQUESTS)
        bodies = [
            mutated(rng, spelled(good)) if rng.random() < 0.7 else spelled(replaced(rng, good)) for _ in range(MESSAGES)
        ]
        send(engine.control, rng, bodies, progress)

    with Lab({}) as lab:
        yield Attack(lab, turn)


@contextlib.contextmanager
def snapshot(rng: random.Random, progress: Progress, folder: Path) -> Starting:
    """Requests to the snapshot socket."""
    address = f"ipc://{folder}/snapshot"

    def turn(engine: Any) -> None:
        send(address, rng, [mutated(rng, b"v1/snapshot") for _ in range(MESSAGES)], progress)

    with Lab({}, f"publish.snapshot={address}") as lab:
        yield Attack(lab, turn)


@contextlib.contextmanager
def publish(rng: random.Random, progress: Progress, folder: Path) -> Starting:
    """HTTP, half a handshake, and odd subscriptions at the publishing port."""

    def turn(engine: Any) -> None:
        at_port(engine.publish, zmq.XSUB, rng, progress)

    with Lab({}) as lab:
        yield Attack(lab, turn)


def send(address: str, rng: random.Random, bodies: list[bytes], progress: Progress) -> None:
    """Send messages of one part and of several, with and without REQ framing."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 100)
        dealer.setsockopt(zmq.SNDTIMEO, 1000)
        dealer.connect(address)
        for body in bodies:
            frames = [b"", body] if rng.random() < 0.7 else [body] * rng.randint(1, 5)
            try:
                dealer.send_multipart(frames)
            except zmq.Again:
                return
            progress.tried(body)
        dealer.poll(50)


def at_port(address: str, kind: int, rng: random.Random, progress: Progress) -> None:
    """Talk to a TCP port of ZeroMQ as HTTP, as half a handshake, and as a subscriber to odd topics, or a publisher."""
    port = int(address.rpartition(":")[2])
    for good in HELLOS:
        body = mutated(rng, good)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as client:
            client.sendall(body)
            progress.tried(body)
    with zmq.Context() as context, context.socket(kind) as peer:
        peer.setsockopt(zmq.LINGER, 0)
        peer.setsockopt(zmq.SNDTIMEO, 1000)
        peer.connect(address)
        for _ in range(20):
            body = bytes([rng.choice((0, 1, 1, 2))]) + rng.randbytes(rng.randrange(200))
            try:
                peer.send(body)
            except zmq.Again:
                return
            progress.tried(body)
        peer.poll(20)
