"""The step between tracking and publishing: the input of analysers, what they add, and no cost without them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from engine.clock import FakeClock
from engine.data import Detections, Frame, Packet, Run, SourceInfo, SourceStatus, Tracks
from engine.errors import StageError
from engine.flow.analyse import AnalyseStep
from engine.flow.pipeline import Pipeline
from engine.protocols import Analyser, AnalyserBase, AnalyserReset
from tests.fakes import CountingSource, ListSink, OneTracker, PixelDetector

JOIN_S = 5.0
RUN = Run("engine", 1, "model", ("person",))


@dataclass
class Seen(AnalyserBase):
    """Counts the packets it was given and remembers what happened."""

    name: str = "seen"
    calls: list[list[tuple[str, int]]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def analyse(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        self.calls.append([(p.frame.source_id, p.frame.frame_id) for p in packets])
        return [p.with_analysis(self.name, sum(map(len, self.calls))) for p in packets]

    def status(self, status: SourceStatus) -> SourceStatus:
        self.events.append(f"{status.source_id} {status.state}")
        return status.with_analysis(self.name, len(self.calls))

    def reset(self, source_id: str, reason: AnalyserReset) -> None:
        self.events.append(f"{source_id} {reason}")

    def close(self) -> None:
        self.events.append("close")


class CountingClock(FakeClock):
    """Counts how often it is asked."""

    calls = 0

    def monotonic_ns(self) -> int:
        self.calls += 1
        return super().monotonic_ns()


def packet(source_id: str = "gate", frame_id: int = 0, epoch: int = 0, run: Run = RUN) -> Packet:
    frame = Frame(np.zeros((4, 4, 3), np.uint8), source_id, frame_id, stream_epoch=epoch)
    return Packet(frame, Detections.empty(), Tracks.empty(), run)


def status(source_id: str, state: str) -> SourceStatus:
    return SourceStatus(SourceInfo(source_id, "synthetic://", True), state)  # type: ignore[arg-type]


@pytest.mark.parametrize("lists", [{}, {"gate": []}], ids=["no list", "empty list"])
def test_without_analysers_the_same_objects_come_back_and_no_clock_is_read(lists: dict[str, list[Analyser]]) -> None:
    clock = CountingClock()
    step = AnalyseStep(lists, clock)
    packets, state = [packet(), packet("yard")], status("gate", "live")
    step(packets)  # an empty list is taken note of once
    given = list(packets)
    found = step(packets)
    assert found is packets
    assert all(a is b for a, b in zip(given, found, strict=True))
    assert step.status(state) is state
    assert step.is_idle
    assert clock.calls == 0
    assert packets[0].analyses == {}
    assert packets[0].analyses is packets[1].analyses


def test_a_pipeline_without_analysers_measures_no_analysis() -> None:
    sink = ListSink()
    pipeline = Pipeline(CountingSource(count=5), PixelDetector(), OneTracker(), sink)
    pipeline.run()
    assert "analyse" not in pipeline.stats.stages
    assert all(not p.analyses for p in sink.packets)


def test_analysers_of_a_source_run_in_order_and_see_what_those_before_found() -> None:
    class Double(AnalyserBase):
        name = "double"

        def analyse(self, packets: Sequence[Packet]) -> Sequence[Packet]:
            return [p.with_analysis(self.name, 2 * p.analyses["seen"]) for p in packets]

    step = AnalyseStep({"gate": [Seen(), Double()]}, FakeClock())
    found = [step([packet(frame_id=n)])[0] for n in range(3)]
    assert [dict(p.analyses) for p in found] == [{"seen": n, "double": 2 * n} for n in (1, 2, 3)]
    assert all("analyse" in p.stage_ms for p in found)


def test_a_shared_analyser_is_called_once_per_inference_with_the_packets_of_its_sources() -> None:
    shared, own = Seen("shared"), Seen("own")
    step = AnalyseStep({"a": [shared, own], "b": [own, shared], "c": []}, FakeClock())
    packets = step([packet("a", 1), packet("b", 2), packet("c", 3)])
    assert shared.calls == [[("a", 1)], [("b", 2)]]
    assert own.calls == [[("b", 2)], [("a", 1)]]
    assert packets[2].analyses == {}
    both = Seen("both")
    AnalyseStep({"a": [both], "b": [both]}, FakeClock())([packet("a", 4), packet("x"), packet("b", 5)])
    assert both.calls == [[("a", 4), ("b", 5)]]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        pytest.param(lambda given: given[:-1], "returned 1 packets for 2", id="one vanished"),
        pytest.param(lambda given: [*given, given[0]], "returned 3 packets for 2", id="one too many"),
        pytest.param(lambda given: given[::-1], "packets of other frames", id="another order"),
        pytest.param(lambda given: 1 / 0, "division by zero", id="failure"),
    ],
)
def test_an_analyser_that_fails_or_loses_packets_is_named(
    result: Callable[[Sequence[Packet]], Sequence[Packet]], expected: str
) -> None:
    class Bad(AnalyserBase):
        name = "bad"

        def analyse(self, packets: Sequence[Packet]) -> Sequence[Packet]:
            return result(packets)

    step = AnalyseStep({"gate": [Bad()]}, FakeClock())
    with pytest.raises(StageError, match=f"analyser bad failed: .*{expected}"):
        step([packet(frame_id=0), packet(frame_id=1)])


def test_a_new_stream_epoch_or_model_resets_the_analysers_of_that_source_alone() -> None:
    gate, yard = Seen(), Seen()
    step = AnalyseStep({"gate": [gate], "yard": [yard]}, FakeClock())
    step([packet("gate"), packet("yard")])
    step([packet("gate", epoch=1), packet("yard")])
    step([packet("gate", epoch=1, run=replace(RUN, class_names=("car",))), packet("yard")])
    assert gate.events == ["gate stream_restarted", "gate model_changed"]
    assert yard.events == []


def test_a_source_that_ended_and_came_back_is_not_reset_a_second_time() -> None:
    gate = Seen()
    step = AnalyseStep({"gate": [gate]}, FakeClock())
    step([packet("gate", epoch=3)])
    assert step.status(status("gate", "ended")).analyses == {"seen": 1}
    step([packet("gate", epoch=4)])
    assert gate.events == ["gate ended"]


def test_the_list_of_one_source_changes_and_only_unused_analysers_are_closed() -> None:
    old, shared, new = Seen("old"), Seen("shared"), Seen("new")
    step = AnalyseStep({"a": [old, shared], "b": [shared]}, FakeClock())
    step([packet("a"), packet("b")])
    step.change({"a": [new]})
    assert old.events == []  # closed on the tracking thread, not by whoever asks for the change
    [of_a, of_b] = step([packet("a", 1), packet("b", 1)])
    assert (dict(of_a.analyses), dict(of_b.analyses)) == ({"new": 1}, {"shared": 3})
    assert (old.events, shared.events, new.events) == (["close"], [], [])
    step.change({"a": [], "b": []})
    assert step([packet("a", 2)])[0].analyses == {}
    assert (shared.events, new.events) == (["close"], ["close"])
    assert step.is_idle


def test_a_pipeline_runs_analysers_on_every_frame_and_accounts_for_all() -> None:
    sink, seen = ListSink(), Seen()
    sources = [CountingSource(name, 20) for name in ("a", "b")]
    pipeline = Pipeline(sources, PixelDetector(max_batch=2), OneTracker(), sink, analysers={"a": [seen], "b": [seen]})
    pipeline.run()
    assert sorted(row for call in seen.calls for row in call) == [(name, n) for name in "ab" for n in range(20)]
    assert len(sink.packets) == 40
    assert all("seen" in p.analyses for p in sink.packets)
    assert pipeline.stats.stages["analyse"].count == 40
    assert [e for e in seen.events if e.endswith("live")] == ["a live", "b live"]
    assert seen.events[-1] == "close"
    assert sorted(e for e in seen.events if e.endswith("ended")) == ["a ended", "b ended"]
    assert all("seen" in s.analyses for s in sink.statuses)


def test_the_analysers_of_one_source_change_while_running() -> None:
    sink, first, second = ListSink(), Seen("first"), Seen("second")
    source = CountingSource("cam", 1_000_000, gap_s=0.001)
    with Pipeline(source, PixelDetector(), OneTracker(), sink, analysers={"cam": [first]}) as pipeline:
        pipeline.start()
        wait_for(lambda: len(sink.packets) > 3)
        pipeline.set_analysers({"cam": [second]})
        wait_for(lambda: "second" in sink.packets[-1].analyses)
    names = [tuple(p.analyses) for p in sink.packets]
    changed = names.index(("second",))
    assert set(names[:changed]) == {("first",)}
    assert set(names[changed:]) == {("second",)}
    assert first.events[-1] == "close"


def test_a_failing_analyser_stops_the_run_by_name_with_every_frame_accounted_for() -> None:
    class Fails(AnalyserBase):
        name = "fails"

        def analyse(self, packets: Sequence[Packet]) -> Sequence[Packet]:
            if packets[0].frame.frame_id == 3:
                raise KeyError("zone")
            return packets

    pipeline = Pipeline(CountingSource(count=50), PixelDetector(), OneTracker(), analysers={"numbers": [Fails()]})
    with pytest.raises(StageError, match="track failed: analyser fails failed: 'zone'"):
        pipeline.run()
    assert all(s.captured == s.published + sum(s.dropped.values()) for s in pipeline.stats.snapshot().sources)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + JOIN_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
