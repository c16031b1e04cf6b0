"""The loop that runs a pipeline: nothing that happens apart from frames may end it."""

from __future__ import annotations

import logging

import pytest

from engine.flow.pipeline import Pipeline
from engine.sources.open import open_source
from pipelines.running.detect_and_publish import EXIT_DONE, Interrupt, run_to_the_end
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
