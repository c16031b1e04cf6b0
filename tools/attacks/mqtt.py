"""A broker that sends damaged commands and packets to the bridge of an engine."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGINT
from subprocess import TimeoutExpired
from typing import Any

import psutil

from tests.hostile.lab import Lab
from tests.hostile.peers.media_servers import Peer, hostile_server
from tests.pipelines.stream.bridges.peers import packet
from tools.attacks.damage import mutated
from tools.attacks.live import Attack, Starting, nothing
from tools.attacks.progress import Progress
from tools.attacks.victims import Victim

COMMANDED = "synthetic://?realtime=1&fps=5&width=160&height=120&seed=3"
PAYLOADS = (
    b"pause", b"resume", b"snooze 30m", b"snooze 9999999999h", b"snooze -1s", b"snooze nan", b"snooze 1e400d",
    b"snooze " + b"9" * 60, b"remove", b"", b"\0", b"\xff" * 64, b"x" * 65, b"x" * 300_000, b'{"command": "stop"}',
    b"pause\nresume", b"${HOME}", b"[/red]", b"\x1b[2J",
)  # fmt: skip
TOPICS = (b"framewire/evil/command",) * 4 + (
    b"framewire/healthy/command", b"framewire/+/command", b"framewire/evil/command/result", b"#", b"", b"\xff\xfe",
    b"framewire/evil/command" + b"/x" * 3000,
)  # fmt: skip
VALID = 6
BETWEEN_S = 0.02
WARM_TRIES = 100
KEPT_MB = 20.0


def message(topic: bytes, payload: bytes, flags: int = 0) -> bytes:
    """Return a packet that publishes a message; `flags` are those of its first byte."""
    number = b"\0\x07" if flags & 6 else b""
    return packet(0x30 | flags, struct.pack(">H", len(topic)) + topic + number + payload)


def acknowledged(data: bytes) -> Iterator[bytes]:
    """Yield an acknowledgement for each complete message with QoS 1 in the data of a client."""
    at = 0
    while at + 2 <= len(data):
        size, shift, start = 0, 0, at + 1
        while start < len(data):
            size |= (data[start] & 127) << shift
            shift, start = shift + 7, start + 1
            if data[start - 1] < 128:
                break
        if data[at] & 0xF6 == 0x32 and start + 2 <= len(data):
            after = start + 2 + int.from_bytes(data[start : start + 2], "big")
            yield b"\x40\x02" + data[after : after + 2].ljust(2, b"\0")
        at = start + size


@contextmanager
def mqtt(rng: random.Random, progress: Progress, folder: Path) -> Starting:
    """Command topics of the MQTT bridge, and every other packet of a broker."""
    attacking = threading.Event()
    with hostile_server(_broker(rng, progress, attacking)) as broker, Lab({"evil": COMMANDED}, ready=("evil",)) as lab:
        to = f"mqtt://127.0.0.1:{broker.port}"
        words = ["bridge", lab.engine.publish, to, "--command", "evil", "--control", lab.engine.control, "--json"]
        bridge = Victim(words, "")
        try:
            base_mb: list[float] = []

            def turn(engine: Any) -> None:
                if not base_mb and progress.tries >= WARM_TRIES:  # until then, it may still be starting
                    base_mb.append(_held_mb(bridge))
                attacking.set()
                nothing(engine)
                del broker.heard[:-10]
                if not bridge.alive:
                    progress.failed(f"the bridge ended: {bridge.errors()[-1000:]}")
                    threading.Event().wait(1.0)

            def over() -> None:
                attacking.clear()
                _end(bridge, base_mb[0] if base_mb else None, progress)

            yield Attack(lab, turn, over=over)
        finally:
            bridge.close()


def _held_mb(bridge: Victim) -> float:
    return float(psutil.Process(bridge.pid).memory_full_info().uss) / 1e6


def _end(bridge: Victim, base_mb: float | None, progress: Progress) -> None:
    """End the bridge as Ctrl-C does; what it should not do counts as a fault."""
    if not bridge.alive:
        return
    grown_mb = 0.0 if base_mb is None else _held_mb(bridge) - base_mb
    if grown_mb > KEPT_MB:
        progress.failed(f"the bridge kept {grown_mb:.0f} MB")
    bridge.process.send_signal(SIGINT)
    with suppress(TimeoutExpired):
        bridge.process.wait(20)
    if bridge.process.poll() != 0 or "Traceback" in bridge.errors():
        progress.failed(f"the bridge ended with {bridge.process.poll()}: {bridge.errors()[-1000:]}")


def _broker(rng: random.Random, progress: Progress, attacking: threading.Event) -> Callable[[Peer], None]:
    """Return a broker that accepts every client; once the attack has begun, it sends what no broker should."""

    def play(peer: Peer) -> None:
        peer.hears()
        peer.socket.sendall(b"\x20\x02\0\0" if rng.random() < 0.95 else mutated(rng, b"\x20\x02\0\0"))
        peer.socket.settimeout(BETWEEN_S)
        while not peer.over.is_set():
            with suppress(TimeoutError, socket.timeout):
                if not (heard := peer.hears()):
                    return
                peer.socket.sendall(b"".join(acknowledged(heard)))
            if not attacking.is_set():
                continue
            body = _packet(rng)
            peer.socket.settimeout(5.0)
            peer.socket.sendall(body)
            peer.socket.settimeout(BETWEEN_S)
            progress.tried(body)

    return play


def _packet(rng: random.Random) -> bytes:
    """Return a command; one in fifty is a packet for which the client hangs up, after which it waits."""
    if rng.random() < 0.98:
        payload = rng.choice(PAYLOADS) if rng.random() < 0.6 else mutated(rng, rng.choice(PAYLOADS[:4]))
        return message(rng.choice(TOPICS[:VALID]), payload, rng.choice((0, 0, 0, 1, 2)))
    good = message(rng.choice(TOPICS), rng.choice(PAYLOADS), rng.randrange(16))
    others = (packet(rng.randrange(256), rng.randbytes(rng.randrange(20))), b"\x90\x03\0\x01\x00", b"\xd0\0", good)
    return mutated(rng, rng.choice(others))
