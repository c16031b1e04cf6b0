"""Sources that leave a running pipeline and come back under their name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from engine.data import Detections, Frame, Packet
from engine.errors import EngineError, ModelError
from engine.flow.channel import Overflow
from engine.flow.options import PipelineOptions
from engine.flow.pipeline import Pipeline
from engine.protocols import Source
from engine.sources.open import open_source
from tests.fakes import CountingSource, ListSink, OneTracker, PixelDetector
from tests.patience import AT_ONCE_S


@contextmanager
def running(*sources: Source, detector: PixelDetector | None = None) -> Iterator[tuple[Pipeline, ListSink]]:
    """Yield a pipeline that continues without sources, with what it published."""
    sink = ListSink(blocking=False)
    options = PipelineOptions(keep_running=True)
    pipeline = Pipeline(list(sources), detector or PixelDetector(), OneTracker(), sink, options=options)
    pipeline.start()
    try:
        yield pipeline, sink
    finally:
        pipeline.stop()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 2 * AT_ONCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def camera(count: int = 1_000_000) -> CountingSource:
    return CountingSource("gate", count, is_live=True, gap_s=0.001)


def test_a_source_that_comes_back_is_announced_after_the_end_of_the_former_one() -> None:
    with running(camera(), detector=PixelDetector(work_s=0.1)) as (pipeline, sink):
        for _ in range(3):
            wait_for(lambda: sink.statuses and sink.statuses[-1].state == "live")
            wait_for(lambda: sum(p.frame.source_id == "gate" for p in sink.packets))
            pipeline.remove_source("gate")
            pipeline.add_source(camera())
        wait_for(lambda: len(sink.statuses) == 7)
        assert pipeline.stats.source("gate").state == "live"
    assert [s.state for s in sink.statuses][:7] == [*["live", "ended"] * 3, "live"]


def test_a_removed_source_says_so_whatever_it_reports_itself() -> None:
    gate = open_source("synthetic://?width=16&height=16&fps=100&realtime=1", source_id="gate")
    with running(gate, detector=PixelDetector(depth=1, work_s=0.2)) as (pipeline, sink):
        wait_for(lambda: sink.packets)
        pipeline.remove_source("gate")
        wait_for(lambda: sink.statuses[-1].state == "ended")
        assert sink.statuses[-1].reason == "removed"


def test_numbers_of_a_source_that_comes_back_go_on_in_a_new_epoch() -> None:
    with running(camera(count=20)) as (pipeline, sink):
        for number in (1, 2, 3):
            wait_for(lambda number=number: sum(s.state == "ended" for s in sink.statuses) == number)  # type: ignore[misc]
            pipeline.add_source(camera(count=20))
        wait_for(lambda: sum(s.state == "ended" for s in sink.statuses) == 4)
    ids = [p.frame.frame_id for p in sink.packets]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)
    assert {p.frame.frame_id // 20: p.frame.stream_epoch for p in sink.packets} == {n: n for n in range(4)}
    assert [s.stream_epoch for s in sink.statuses] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_slow_output_does_not_hold_up_a_camera_that_is_added_later() -> None:
    may_go_on = threading.Event()

    class Stuck(ListSink):
        def write(self, packet: Packet) -> None:
            may_go_on.wait()

    quick, stuck = ListSink("quick", blocking=False), Stuck("stuck")
    options = PipelineOptions(keep_running=True)
    pipeline = Pipeline([CountingSource("file", 20)], PixelDetector(), OneTracker(), quick, stuck, options=options)
    pipeline.start()
    try:
        pipeline.add_source(camera())
        wait_for(lambda: sum(p.frame.source_id == "gate" for p in quick.packets) > 30)
        assert pipeline.stats.sink_dropped["stuck"]["overflow"] > 0
    finally:
        may_go_on.set()
        assert pipeline.stop(AT_ONCE_S)


@pytest.mark.parametrize("overflow", [None, "block"])
def test_files_and_cameras_that_must_not_lose_anything_wait_for_a_slow_output(overflow: Overflow | None) -> None:
    slow = ListSink("slow", work_s=0.005)
    options = PipelineOptions(overflow=overflow)
    source = CountingSource("gate", 30, is_live=overflow == "block")
    pipeline = Pipeline(source, PixelDetector(), OneTracker(), slow, options=options)
    pipeline.run()
    assert len(slow.packets) == 30


@pytest.mark.parametrize("failure", [RuntimeError("Function not found"), OSError("no such library"), MemoryError()])
def test_a_model_that_does_not_load_for_any_reason_leaves_the_old_one_at_work(failure: Exception) -> None:
    class Broken(PixelDetector):
        def open(self) -> None:
            raise failure

    failed: list[EngineError] = []
    with running(camera()) as (pipeline, sink):
        wait_for(lambda: sink.packets)
        pipeline.exchange_detector(Broken(), on_failure=failed.append)
        wait_for(lambda: failed)
        before = len(sink.packets)
        wait_for(lambda: len(sink.packets) > before + 3)
    assert isinstance(failed[0], ModelError)
    assert type(failure).__name__ in str(failed[0])


def test_a_model_whose_outputs_do_not_fit_is_refused_before_it_replaces_one_that_works() -> None:
    class Contradictory(PixelDetector):
        name = "contradictory"

        def detect(self, frames: Sequence[Frame]) -> list[Detections]:
            raise ModelError("head cannot decode output0 (1, 5), where the file declares (1, 84, 8400)")

    failed: list[EngineError] = []
    with running(camera()) as (pipeline, sink):
        wait_for(lambda: sink.packets)
        pipeline.exchange_detector(Contradictory(), on_failure=failed.append)
        wait_for(lambda: failed)
        before = len(sink.packets)
        wait_for(lambda: len(sink.packets) > before + 3)
        assert {packet.run.model for packet in sink.packets} == {"pixel"}
    assert "cannot decode" in str(failed[0])
