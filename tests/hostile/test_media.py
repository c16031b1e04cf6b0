"""Attacks by what a camera sends: sizes, floods, killed and stopped readers. The healthy camera must not notice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.hostile.lab import Engine, Lab, played, wait_until
from tests.hostile.servers import flood, hostile_camera, jpeg, send_jpegs

EVIL = "evil"


def lab(url: str, *settings: str, ready: bool = True) -> Callable[[], Lab]:
    return lambda: Lab({EVIL: url}, *settings, ready=[EVIL] if ready else [])


def has_more_than(engine: Engine, published: int) -> bool:
    return bool(engine.source(EVIL)["published"] > published)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(flood(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"a" * 8000 + b"\r\n"), id="endless headers"),
        pytest.param(flood(b"HTTP/1.1 200 OK\r\nX-A: ", b"a" * 65536), id="one endless header"),
        pytest.param(
            flood(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n", b"\x47" * 65536), id="endless nothing"
        ),
    ],
)
@pytest.mark.timeout(300)
def test_a_server_without_an_end_harms_no_other_camera(answer: Callable[[Any], None]) -> None:
    with hostile_camera(answer) as camera:
        verdict = played(lambda engine: time.sleep(6), lab(camera.url(), ready=False))
    print(verdict)
    assert not verdict.faults(memory_mb=40)  # the reader of an unfinished connection is a part of it


@pytest.mark.timeout(300)
def test_killed_readers_are_replaced() -> None:
    with hostile_camera(send_jpegs(lambda: jpeg(320, 240))) as camera:

        def kill(engine: Engine) -> None:
            for _ in range(5):
                for reader in engine.readers():
                    os.kill(reader.pid, signal.SIGKILL)
                published = engine.source(EVIL)["published"]
                wait_until(partial(has_more_than, engine, published), 20)

        verdict = played(kill, lab(camera.url()))
    print(verdict)
    assert not verdict.faults()
    assert verdict.summary["sources"][EVIL]["reconnects"] >= 5
