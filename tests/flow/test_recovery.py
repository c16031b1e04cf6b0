"""A failed inference ends the run; or the model is loaded again, and after that run by another backend."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from engine.clock import NS_PER_S, FakeClock
from engine.data import Detections, Frame
from engine.errors import ModelError, StageError
from engine.flow.options import PipelineOptions
from engine.flow.pipeline import Pipeline
from engine.flow.recovery import RELAPSE_S, Recovery
from tests.fakes import CountingSource, ListSink, OneTracker, PixelDetector

FRAMES = 60


class Failing(PixelDetector):
    """Fails at given calls; each `open` and `fall_back` is noted. `broken` backends fail at every call."""

    def __init__(self, fail_at: Sequence[int] = (), *, on: str = "result", broken: int = 0, others: int = 1) -> None:
        super().__init__(depth=3)
        self.fail_at, self.on, self.broken, self.others = set(fail_at), on, broken, others
        self.calls = 0
        self.steps: list[str] = []
        self._lock = threading.Lock()

    def open(self) -> None:
        self.steps.append("open")

    def close(self) -> None:
        """Nothing to free."""

    def fall_back(self) -> bool:
        self.steps.append("fall back")
        self.broken -= 1
        self.others -= 1
        return self.others >= 0

    def _fail(self, where: str) -> None:
        if where != self.on:
            return
        with self._lock:
            self.calls += 1
            if self.calls in self.fail_at or self.broken > 0:
                raise ModelError("CUDA_ERROR_LAUNCH_FAILED (719)")

    def submit(self, frames: Sequence[Frame]):
        self._fail("submit")
        return super().submit(frames)

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        self._fail("result")
        return super().detect(frames)


def run(detector: Failing, policy: str = "restart") -> tuple[Pipeline, ListSink]:
    sink = ListSink(blocking=False)
    options = PipelineOptions(on_inference_error=policy)
    pipeline = Pipeline(CountingSource("gate", FRAMES), detector, OneTracker(), sink, options=options)
    try:
        pipeline.run()
    finally:
        counts = pipeline.stats.source("gate")
        assert counts.captured == counts.published + sum(counts.dropped.values())
    return pipeline, sink


@pytest.mark.parametrize("on", ["submit", "result"])
def test_the_model_is_loaded_again_and_only_failed_frames_are_lost(on: str) -> None:
    detector = Failing([5], on=on)
    pipeline, sink = run(detector)
    assert detector.steps == ["open", "open"]
    lost = pipeline.stats.source("gate").dropped["detector"]
    assert 1 <= lost <= detector.depth
    assert len(sink.packets) == FRAMES - lost


@pytest.mark.parametrize("on", ["submit", "result"])
def test_a_model_that_fails_again_goes_on_with_another_backend(on: str) -> None:
    detector = Failing(on=on, broken=1)
    _, sink = run(detector)
    assert detector.steps == ["open", "open", "fall back", "open"]
    assert sink.packets


@pytest.mark.parametrize("on", ["submit", "result"])
def test_where_no_backend_helps_the_run_ends_with_the_first_error(on: str) -> None:
    detector = Failing(on=on, broken=9, others=0)
    with pytest.raises(StageError, match="719"):
        run(detector)
    assert detector.steps == ["open", "open", "fall back"]


@pytest.mark.parametrize("on", ["submit", "result"])
def test_the_default_is_to_stop_at_the_first_failure(on: str) -> None:
    detector = Failing([5], on=on)
    with pytest.raises(StageError, match="719"):
        run(detector, "stop")
    assert detector.steps == ["open"]


def test_a_failure_long_after_the_last_one_begins_with_a_restart_again() -> None:
    clock = FakeClock()
    recovery = Recovery("restart", clock)
    steps = []
    for pause_s in (0, 1, RELAPSE_S + 1, 1, 1):
        clock.advance(pause_s)
        assert recovery.note(ModelError("lost"))
        steps.append(recovery.next_step())
        recovery.done()
    assert steps == ["restart", "fall back", "restart", "fall back", "stop"]
    assert clock.monotonic_ns() > RELAPSE_S * NS_PER_S
