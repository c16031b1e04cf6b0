"""The loop that runs a pipeline: nothing that happens apart from frames may end it."""

from __future__ import annotations

import logging
import os
import signal

import pytest

from engine.flow.pipeline import Pipeline
from engine.sources.open import open_source
from pipelines.exit_codes import EXIT_DONE
from pipelines.running.detect_and_publish import Interrupt, run_to_the_end
from tests.fakes import OneTracker, PixelDetector


def _pipeline(frames: int) -> Pipeline:
    return Pipeline(
        open_source(f"synthetic://?width=32&height=24&fps=20&count={frames}&realtime=1"), PixelDetector(), OneTracker()
    )


def test_failing_tick_is_logged_once_and_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    ticks = []

    def fail() -> None:
        ticks.append(1)
        raise RuntimeError("something from outside")

    with Interrupt() as interrupt, caplog.at_level(logging.ERROR):
        outcome = run_to_the_end(_pipeline(20), interrupt, each_tick=[fail, lambda: ticks.append(2)], quiet=True)
    assert outcome.exit_code == EXIT_DONE
    assert ticks.count(1) == ticks.count(2) > 1
    assert len([record for record in caplog.records if "a side task failed" in record.message]) == 1


def test_pipeline_is_stopped_even_if_the_loop_is_left_by_an_exception() -> None:
    class Stop(BaseException):
        pass

    def leave() -> None:
        raise Stop

    pipeline = _pipeline(10_000)
    with Interrupt() as interrupt, pytest.raises(Stop):
        run_to_the_end(pipeline, interrupt, each_tick=[leave], quiet=True)
    assert pipeline.stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_process_and_its_group_is_one_request(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout -s INT` and Ctrl-C in some shells send two; the summary must still be printed."""
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    clock = [100.0]
    monkeypatch.setattr("pipelines.running.detect_and_publish.time.monotonic", lambda: clock[0])
    with Interrupt() as interrupt:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert interrupt.requested
        assert exits == []
        clock[0] += 0.5
        os.kill(os.getpid(), number)
    assert exits == [interrupt.exit_code]
