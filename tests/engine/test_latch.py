"""A latch wakes every thread that waits for it, and a signal handler may set it."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Empty

import pytest

import engine.latch
from engine.latch import MAIN_THREAD_S, Latch, wait_for_any
from engine.stats import SourceStats
from tests.patience import AT_ONCE_S

PATIENCE_S = 60.0


def test_every_waiting_thread_is_woken_by_whichever_latch_is_set() -> None:
    ended, over = Latch(), Latch()
    with ThreadPoolExecutor(8) as pool:
        waits = [pool.submit(wait_for_any, ended, over, timeout_s=PATIENCE_S) for _ in range(8)]
        while len(over._waiting) < 8:
            time.sleep(0.001)
        over.set()
        assert all(wait.result(AT_ONCE_S) for wait in waits)
    assert not ended.is_set()
    assert not ended._waiting
    assert not over._waiting


def test_no_set_is_missed_however_it_meets_the_wait() -> None:
    for n in range(500):
        latch = Latch()
        setter = threading.Thread(target=latch.set)
        setter.start()
        began = time.monotonic()
        assert wait_for_any(latch, timeout_s=PATIENCE_S if n % 2 else float("inf"))
        assert time.monotonic() - began < PATIENCE_S / 2
        setter.join()


def test_a_wait_for_nothing_ends_in_time_and_a_cleared_latch_is_not_set() -> None:
    latch = Latch()
    latch.set()
    latch.clear()
    assert not wait_for_any(latch, timeout_s=0.01)
    assert not wait_for_any(latch, timeout_s=-1)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers, which Windows lacks")
def test_a_signal_handler_wakes_the_thread_that_it_interrupts() -> None:
    latch = Latch()
    before = signal.signal(signal.SIGALRM, lambda number, frame: latch.set())
    try:
        for n in range(50):
            latch.clear()
            signal.setitimer(signal.ITIMER_REAL, 1e-5 * (n + 1))  # also while the wait is being prepared
            began = time.monotonic()
            assert wait_for_any(latch, timeout_s=PATIENCE_S)
            assert time.monotonic() - began < PATIENCE_S / 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_that_arrives_just_before_the_wait_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing interrupts that wait: its handler sets the latch only once it is over."""
    latch, waits = Latch(), []

    class Uninterrupted:
        def get(self, timeout: float) -> None:
            waits.append(timeout)
            latch.set()
            raise Empty

        def put(self, _: None) -> None:
            """Come too late for the wait."""

    monkeypatch.setattr(engine.latch, "SimpleQueue", Uninterrupted)
    assert wait_for_any(latch, timeout_s=PATIENCE_S)
    assert waits == [MAIN_THREAD_S]
    latch.clear()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(wait_for_any, latch, timeout_s=PATIENCE_S).result()
    assert waits[1] > MAIN_THREAD_S, "other threads run no handlers, and need not wake up"


def test_a_source_has_not_ended_before_its_end_is_published() -> None:
    stats = SourceStats("gate")
    stats.begin()
    stats.set_state("ended", "", 0)
    assert not stats.has_ended.is_set()


@pytest.mark.parametrize("ending", ["end", "over"])
def test_a_source_is_awaited_until_its_end_or_that_of_the_run(ending: str) -> None:
    stats, over = SourceStats("gate"), Latch()
    stats.begin()
    act = stats.has_ended.set if ending == "end" else over.set
    threading.Timer(0.05, act).start()
    began = time.monotonic()
    stats.wait_for_end(PATIENCE_S, over)
    assert time.monotonic() - began < PATIENCE_S / 2
    assert (stats.has_ended.is_set(), over.is_set()) == (ending == "end", ending == "over")
