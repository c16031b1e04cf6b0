"""A camera whose stream is damaged in a different place each time."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.clock import pause
from tests.hostile.lab import Lab
from tests.hostile.servers import MULTIPART, hostile_camera, jpeg, playlist, redirect
from tools.attacks.damage import mutated
from tools.attacks.live import Attack, Starting, nothing
from tools.attacks.progress import Progress

SETTINGS = ("sources.1.backoff_max_s=0.2", "sources.1.open_timeout_s=2")


@contextmanager
def streams(rng: random.Random, progress: Progress, folder: Path) -> Starting:
    """MJPEG, playlists and redirects of a camera."""
    with hostile_camera(_answers(rng, progress)) as camera:
        with Lab({"evil": camera.url()}, *SETTINGS, ready=("evil",)) as lab:  # the baseline includes its reader
            yield Attack(lab, nothing)


def _answers(rng: random.Random, progress: Progress) -> Callable[[Any], None]:
    """Return an answer that damages a different part of the camera's data each time."""
    goods = [jpeg(64, 48), jpeg(320, 240)]

    def answer(handler: Any) -> None:
        kind = rng.random()
        if kind < 0.1:
            body = mutated(rng, MULTIPART)
            progress.tried(body)
            handler.wfile.write(body)
        elif kind < 0.2:
            lines = [mutated(rng, b"#EXTINF:2,\nfile:///etc/passwd").decode("latin-1") for _ in range(5)]
            progress.tried("playlist: " + "\n".join(lines))
            playlist(*lines)(handler)
        elif kind < 0.25:
            place = rng.choice(("file:///etc/passwd", handler.path, "http://127.0.0.1:9/", "gopher://x"))
            progress.tried(f"redirect to {place}")
            redirect(place)(handler)
        else:
            progress.tried("multipart")
            handler.wfile.write(MULTIPART)
            for _ in range(rng.randrange(1, 60)):
                body = _part(rng, goods)
                progress.tried(body)
                handler.wfile.write(body)
                pause(0.01)

    return answer


def _part(rng: random.Random, goods: list[bytes]) -> bytes:
    """Return one image of a multipart stream; image and header are often damaged."""
    image = mutated(rng, rng.choice(goods)) if rng.random() < 0.7 else rng.choice(goods)
    head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n".encode()
    return (mutated(rng, head) if rng.random() < 0.1 else head) + image + b"\r\n"
