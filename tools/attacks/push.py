"""Media servers that attack the engine while it pushes annotated video to them, over RTSP and RTMP."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.hostile.lab import Lab
from tests.hostile.peers.media_servers import (
    FLOOD,
    PLAYS,
    STARTS,
    Peer,
    answers,
    hostile_server,
    refuses,
    shakes_hands,
)
from tools.attacks.damage import mutated
from tools.attacks.live import Attack, Starting, nothing
from tools.attacks.progress import Progress

CAMERAS = 3
CAMERA = "synthetic://?realtime=1&fps=10&width=160&height=120&seed={}"
PLACES = ("rtsp://127.0.0.1:9/x", "file:///etc/passwd", "http://127.0.0.1:9/", "rtsp://me@other/x", "x" * 3000, "")
STATUSES = ("301 Moved", "302 Found", "305 Use Proxy", "401 Unauthorized", "453 No", "500 Error", "999 ?", "200 OK")
MOST_FLOODED = 200
MEMORY_MB = 40.0
"""Of all push processes: which of them are connected, and so hold FFmpeg's buffers, differs from moment to moment."""


@contextmanager
def push(rng: random.Random, progress: Progress, folder: Path) -> Starting:
    """Answers of media servers: damaged, missing, endless, and leading elsewhere."""
    attacking = threading.Event()
    plays = {kind: _play(kind, rng, progress, attacking) for kind in ("rtsp", "rtmp")}
    with hostile_server(plays["rtsp"]) as rtsp, hostile_server(plays["rtmp"]) as rtmp:
        settings = [
            f"publish.{kind}={kind}://me:opensesame@127.0.0.1:{server.port}/live/{{source_id}}"
            for kind, server in (("rtsp", rtsp), ("rtmp", rtmp))
        ]
        cameras = {f"camera{number}": CAMERA.format(number) for number in range(CAMERAS)}

        def turn(engine: Any) -> None:
            attacking.set()
            nothing(engine)
            for server in (rtsp, rtmp):
                del server.heard[:-10]

        with Lab(cameras, *settings, ready=tuple(cameras)) as lab:
            yield Attack(lab, turn, MEMORY_MB, attacking.clear)


def _play(kind: str, rng: random.Random, progress: Progress, attacking: threading.Event) -> Callable[[Peer], None]:
    """Return a play that attacks each connection in another way, once the attack has begun."""
    known = [(name, play) for name, (of, play) in PLAYS.items() if of == kind and "refuses" not in name]

    def play(peer: Peer) -> None:
        if not attacking.is_set():
            return
        peer.socket.settimeout(5.0)
        if rng.random() < 0.3:
            name, known_play = rng.choice(known)
            progress.tried(f"{kind}: {name}")
            peer = Peer(peer.socket, threading.Event(), peer.heard)
            ending = threading.Timer(rng.choice((0.5, 2.0, 6.0)), peer.over.set)
            ending.daemon = True
            ending.start()
            known_play(peer)
        elif kind == "rtsp":
            _damaged_rtsp(peer, rng, progress)
        else:
            _damaged_rtmp(peer, rng, progress)

    return play


def _damaged_rtsp(peer: Peer, rng: random.Random, progress: Progress) -> None:
    """Answer as a server does, until one answer is damaged; then keep sending things that no one asked for."""
    share = rng.choice((0.1, 0.5, 1.0))

    def also(method: str, cseq: str) -> bytes | None:
        if rng.random() > share:
            return None
        body = _answer(method, cseq, rng)
        progress.tried(body)
        return body

    until = rng.choice(("", "RECORD", "RECORD", "SETUP"))
    answers(peer, until, also)
    for _ in range(rng.randrange(MOST_FLOODED)):
        body = mutated(rng, rng.choice((b"$\0\0\x0c" + bytes(12), _answer("OPTIONS", "9", rng), FLOOD[:3000])))
        progress.tried(body)
        peer.socket.sendall(body)


def _answer(method: str, cseq: str, rng: random.Random) -> bytes:
    """Return an answer to an RTSP request with other fields than it should have."""
    if rng.random() < 0.02:  # rarely: after that, the engine leaves the server alone for half a minute
        return refuses(cseq)
    usual = f"RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{STARTS.get(method, '')}\r\n".encode()
    if rng.random() < 0.5:
        return mutated(rng, usual)
    status = rng.choice([each for each in STATUSES if not each.startswith("401")])
    fields = rng.choice(
        (
            f"Location: {rng.choice(PLACES)}",
            f"Content-Length: {rng.choice(('-1', '99999999999', '5', 'x'))}",
            f"Session: {'7' * rng.choice((1, 5000))};timeout={rng.choice(('0', '-1', '1e9', 'x'))}",
            f"Transport: RTP/AVP;unicast;client_port=0-{rng.choice((1, 70000))};server_port=22-23;source=10.0.0.1",
            "Transport: RTP/AVP/TCP;interleaved=255-999",
            "WWW-Authenticate: " + rng.choice(("Basic", "Digest ", 'Digest realm="' + "x" * 3000, "x=" * 2000)),
        )
    )
    return f"RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{fields}\r\n\r\nhello".encode()


def _damaged_rtmp(peer: Peer, rng: random.Random, progress: Progress) -> None:
    """Shake hands, often badly, and send chunks of every type with other sizes than they claim."""
    if rng.random() < 0.2:
        body = mutated(rng, b"\x03" + bytes(3072))
        progress.tried(body)
        peer.socket.sendall(body)
    else:
        shakes_hands(peer)
    for _ in range(rng.randrange(1, MOST_FLOODED)):
        payload = rng.randbytes(rng.choice((0, 4, 128)))
        size = rng.choice((len(payload), len(payload), 0xFFFFFF, 1))
        kind = rng.choice((1, 2, 3, 4, 5, 6, 8, 9, 17, 18, 20, 20, 22))
        if kind == 20:
            payload = mutated(rng, b"\x02\0\x07_result\0?\xf0\0\0\0\0\0\0\x03\0\0\x09\x05")
            size = len(payload)
        head = (
            bytes([rng.choice((2, 3, 3, 4, 0x40, 0xC3))])
            + bytes(3)
            + size.to_bytes(3, "big")
            + bytes([kind, 0, 0, 0, 0])
        )
        progress.tried(head + payload)
        peer.socket.sendall(head + payload)
