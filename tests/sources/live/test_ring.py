"""The mailbox between two processes: the newest frame wins, sizes may change, and nothing in it is taken on trust."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from engine.sources.live.ring import (
    RING_BYTES,
    SHRINK_AFTER,
    Layout,
    Meta,
    Ring,
    RingError,
    anonymous_file,
    layout_for,
)

META = Meta(4, 2, 12, 0, 1_000, 1_000, None, 0)


@pytest.fixture
def pair() -> Iterator[tuple[Ring, Ring]]:
    layout = layout_for(24, 4)
    fd = anonymous_file(layout)
    engine, reader = Ring(fd, layout, lock_s=0.2), Ring(os.dup(fd), layout)
    yield engine, reader
    engine.close()
    reader.close()


def put(ring: Ring, level: int) -> bool:
    return ring.put(META, bytes([level]) * 24)


def test_the_newest_frame_is_taken_and_the_others_are_stale(pair: tuple[Ring, Ring]) -> None:
    engine, reader = pair
    assert [put(reader, level) for level in (1, 2, 3)] == [True, False, False]
    taken = engine.take()
    assert taken is not None
    assert taken.memory[taken.offset] == 3
    assert (engine.take(), engine.losses()) == (None, (2, 0))


def test_a_frame_in_use_is_not_overwritten(pair: tuple[Ring, Ring]) -> None:
    engine, reader = pair
    put(reader, 1)
    held = engine.take()
    assert held is not None
    for level in range(2, 20):
        put(reader, level)
    assert held.memory[held.offset] == 1
    held.release()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux seals shared memory")
@pytest.mark.parametrize("size", [0, 1, 1 << 30])
def test_its_size_is_sealed(pair: tuple[Ring, Ring], size: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(pair[1].fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(pair[1].fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"width": 0}, id="no width"),
        pytest.param({"height": -1}, id="negative height"),
        pytest.param({"width": 5}, id="rows overlap"),
        pytest.param({"stride": 1 << 40}, id="stride beyond the slot"),
        pytest.param({"stride": -12}, id="negative stride"),
        pytest.param({"height": 1 << 40}, id="height beyond the slot"),
        pytest.param({"width": 1 << 62, "height": 1 << 62}, id="overflow"),
        pytest.param({"orientation": 8}, id="orientation"),
        pytest.param({"captured_ns": -1}, id="before the clock"),
        pytest.param({"captured_ns": (1 << 62)}, id="in the future"),
        pytest.param({"captured_utc_ns": -5}, id="before 1970"),
    ],
)
def test_a_frame_that_cannot_be_is_refused(pair: tuple[Ring, Ring], change: dict[str, int]) -> None:
    engine, reader = pair
    put(reader, 1)
    start = mmap.PAGESIZE
    reader.memory[start : start + 64] = replace(META, **change).pack()
    with pytest.raises(RingError, match="an impossible frame"):
        engine.take()


@pytest.mark.parametrize("latest", [-1, 5, 1 << 62, -(1 << 63)])
def test_a_slot_that_does_not_exist_is_refused(pair: tuple[Ring, Ring], latest: int) -> None:
    engine, reader = pair
    reader.memory[:8] = latest.to_bytes(8, sys.byteorder, signed=True)
    with pytest.raises(RingError, match="slot"):
        engine.take()


@pytest.mark.parametrize("count", [-1, 1 << 62])
def test_counters_that_cannot_be_are_refused(pair: tuple[Ring, Ring], count: int) -> None:
    engine, reader = pair
    reader.memory[8:16] = count.to_bytes(8, sys.byteorder, signed=True)
    with pytest.raises(RingError, match="stale"):
        engine.losses()


def holder(ring: Ring) -> subprocess.Popen[str]:
    """Return a process that holds the lock of a ring until it ends."""
    code = f"import fcntl, time; fcntl.lockf({ring.fd}, fcntl.LOCK_EX); print('held', flush=True); time.sleep(100)"
    process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[ring.fd], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("ask", [Ring.take, Ring.losses], ids=["take", "losses"])
def test_a_lock_that_is_not_released_is_waited_for_with_a_limit(
    pair: tuple[Ring, Ring], ask: Callable[[Ring], object]
) -> None:
    engine, reader = pair
    process = holder(reader)
    with process:
        os.kill(process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(RingError, match="not released within 0.2 s"):
            ask(engine)
        assert time.monotonic() - begun >= 0.2
        process.kill()
        process.wait()
    assert engine.take() is None  # the kernel released it


def test_large_frames_get_fewer_slots_and_small_ones_all() -> None:
    assert layout_for(640 * 480 * 3, 8).slots == 8
    assert layout_for(8000 * 8000 * 3, 8).slots == 4
    for side in (500, 1000, 2000, 4000):
        assert layout_for(side * side * 3, 8).size <= RING_BYTES + mmap.PAGESIZE * 10 or side == 4000


def test_frames_that_are_far_too_small_for_a_while_no_longer_fit() -> None:
    ring = Ring(anonymous_file(Layout(4, 1 << 20)), Layout(4, 1 << 20))
    assert all(ring.fits(1000) for _ in range(SHRINK_AFTER - 1))
    assert not ring.fits(1000)
    assert all(ring.fits(size) for size in [1 << 19, 1000] * SHRINK_AFTER)
    assert not ring.fits(1 << 20)
    ring.close()
