"""Attacks through what a camera sends: sizes, floods, killed and stopped readers. The healthy camera is unaffected."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.hostile.lab import SHARE, Engine, Lab, played, wait_until
from tests.hostile.servers import flood, hostile_camera, jpeg, send_jpegs

pytestmark = pytest.mark.alone

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


def in_lock(pid: int) -> bool:
    """Return whether a process holds a POSIX lock, which its ring has for microseconds."""
    held = [line for line in Path("/proc/locks").read_text().splitlines() if "POSIX" in line and "->" not in line]
    return any(f" {pid} " in line for line in held)


@pytest.mark.timeout(300)
def test_a_reader_stopped_inside_the_lock_of_its_ring_is_replaced() -> None:
    """Attack 12: the camera was `live` without frames permanently."""
    with hostile_camera(send_jpegs(lambda: jpeg(160, 120), fps=120)) as camera:

        def stop_in_lock(engine: Engine) -> int:
            [reader] = engine.readers()
            deadline, caught = time.monotonic() + 60, False
            while not caught and time.monotonic() < deadline:
                reader.suspend()
                wait_until(lambda: reader.status() == psutil.STATUS_STOPPED, 5, every_s=0)
                caught = in_lock(reader.pid)
                if not caught:
                    reader.resume()
                    time.sleep(0.0007)
            if not caught:
                reader.suspend()  # outside of it, then: this machine never stops it inside
            published = engine.source(EVIL)["published"]
            wait_until(partial(has_more_than, engine, published + 5), 40)
            assert not reader.is_running() or reader.status() == psutil.STATUS_ZOMBIE
            return int(caught)

        verdict = played(stop_in_lock, lab(camera.url()))
    print(verdict, "caught in the lock:", verdict.notes)
    assert not verdict.faults()


@dataclass
class Changing:
    """A camera whose sizes a test changes while it serves; each size is sent for a frame, the last one continues."""

    sizes: list[tuple[int, int]]

    def next_jpeg(self) -> bytes:
        return jpeg(*(self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]))


GROWING = [(640 + 16 * step, 360 + 9 * step) for step in range(100)]


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(GROWING, id="growing"),
        pytest.param(GROWING[::-1] + GROWING, id="shrinking and growing"),
        pytest.param([(64, 48), (1920, 1080), (1, 1), (33, 17)] * 20, id="jumping"),
        pytest.param([(8000, 8000)] * 6, id="as large as allowed"),
    ],
)
@pytest.mark.timeout(400)
def test_a_camera_that_changes_its_size_gives_the_memory_back(sizes: list[tuple[int, int]]) -> None:
    """Attack 27: each size kept its shared memory, 1.9 GB in all."""
    for size in {*sizes}:
        jpeg(*size)
    camera_of = Changing([(320, 240)])
    with hostile_camera(send_jpegs(camera_of.next_jpeg, fps=25)) as camera:

        def change(engine: Engine) -> None:
            camera_of.sizes = [*sizes, (320, 240)]
            wait_until(lambda: len(camera_of.sizes) == 1, 120)

        verdict = played(change, lab(camera.url()), settle_s=40)
    print(verdict)
    is_large = max(width * height for width, height in sizes) > 16_000_000
    assert not verdict.faults(share=0.6 if is_large else SHARE)  # decoding 192 MB a frame takes a core for the while
    assert verdict.peak_mb - verdict.base.memory_mb < 1900  # seven frames of 192 MB, and decoding one or two
    assert verdict.summary["sources"][EVIL]["published"] > 20


@pytest.mark.timeout(300)
def test_cameras_that_start_while_descriptors_are_out_come_when_there_are_some() -> None:
    with hostile_camera(send_jpegs(lambda: jpeg(160, 120))) as camera:

        def starve(engine: Engine) -> None:
            limits = resource.prlimit(engine.pid, resource.RLIMIT_NOFILE)
            now = psutil.Process(engine.pid).num_fds()
            resource.prlimit(engine.pid, resource.RLIMIT_NOFILE, (now + 2, limits[1]))
            engine.ask({"command": "add", "source": {"uri": camera.url(), "source_id": "late"}})
            time.sleep(3)
            resource.prlimit(engine.pid, resource.RLIMIT_NOFILE, limits)
            wait_until(lambda: engine.source("late")["published"] > 3, 30)
            engine.ask({"command": "remove", "source_id": "late"})

        verdict = played(starve, lambda: Lab({}))
    print(verdict)
    assert not verdict.faults()
