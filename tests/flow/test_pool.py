"""Several models in one run: each source gets the results of its model, and changes models without losing a frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from engine.data import Detections, Frame, Packet
from engine.errors import ConfigError, ModelError, StageError
from engine.flow.options import PipelineOptions
from engine.flow.pipeline import Pipeline
from engine.flow.pool import DetectorPool
from engine.protocols import Detector
from tests.fakes import CountingSource, ListSink, OneTracker, PixelDetector

PATIENCE_S = 10.0


class Named(PixelDetector):
    """Finds one box whose score identifies the model; may load slowly or fail to load."""

    def __init__(
        self, name: str, score: float, *, max_batch: int = 2, depth: int = 2, work_s: float = 0.0, error: str = ""
    ) -> None:
        super().__init__(depth=depth, max_batch=max_batch, work_s=work_s)
        self.name, self.class_names, self._score, self._error = name, (f"{name} thing",) * 256, score, error
        self.may_load = threading.Event()
        self.may_load.set()

    def open(self) -> None:
        assert self.may_load.wait(PATIENCE_S)
        super().open()
        if self._error:
            raise ModelError(self._error)

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [Detections(f.xyxy, [self._score], f.class_id) for f in super().detect(frames)]


def camera(name: str, count: int = 1_000_000) -> CountingSource:
    return CountingSource(name, count, gap_s=0.001)


@contextmanager
def running(pool: DetectorPool, *sources: CountingSource) -> Iterator[tuple[Pipeline, ListSink]]:
    sink = ListSink(blocking=False)
    options = PipelineOptions(keep_running=True)
    pipeline = Pipeline(list(sources), pool, OneTracker(), sink, options=options)
    pipeline.start()
    try:
        yield pipeline, sink
    finally:
        for lane in pipeline.models.values():
            lane.detector.may_load.set()  # type: ignore[attr-defined]
        assert pipeline.stop(PATIENCE_S)
    assert accounted(pipeline)


def accounted(pipeline: Pipeline) -> bool:
    return all(s.captured == s.published + sum(s.dropped.values()) for s in pipeline.stats.snapshot().sources)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def of(packets: list[Packet], name: str) -> list[Packet]:
    return [p for p in packets if p.frame.source_id == name]


def results(packets: list[Packet]) -> list[tuple[int, list[float], list[int], str]]:
    return [
        (p.frame.frame_id, p.detections.score.tolist(), p.detections.class_id.tolist(), p.run.class_name(0))
        for p in packets
    ]


def alone(name: str, detector: Detector, count: int) -> list[tuple[int, list[float], list[int], str]]:
    sink = ListSink()
    Pipeline(CountingSource(name, count), detector, OneTracker(), sink).run()
    return results(sink.packets)


def test_each_source_has_the_results_of_its_model_as_if_it_ran_alone() -> None:
    sink = ListSink()
    pool = DetectorPool(
        {"people": Named("p.onnx", 0.5, depth=3), "cars": Named("c.onnx", 0.75, work_s=0.002)},
        {"gate": "people", "road": "cars", "yard": "people"},
    )
    counts = {"gate": 40, "road": 25, "yard": 10}
    sources = [CountingSource(name, count) for name, count in counts.items()]
    pipeline = Pipeline(sources, pool, OneTracker(), sink)
    pipeline.run()
    for name, count in counts.items():
        model = Named("c.onnx", 0.75) if name == "road" else Named("p.onnx", 0.5)
        assert results(of(sink.packets, name)) == alone(name, model, count)
    assert {p.frame.source_id: (p.run.model, p.run.model_id) for p in sink.packets} == {
        "gate": ("p.onnx", "people"),
        "yard": ("p.onnx", "people"),
        "road": ("c.onnx", "cars"),
    }
    assert [s.state for s in sink.statuses].count("ended") == 3
    assert accounted(pipeline)


def test_figures_are_kept_by_model() -> None:
    pool = DetectorPool({"a": Named("a.onnx", 0.5), "b": Named("b.onnx", 0.5)}, {"one": "a", "two": "b"})
    pipeline = Pipeline([CountingSource("one", 30), CountingSource("two", 12)], pool, OneTracker())
    pipeline.run()
    assert {name: stats.detected for name, stats in pipeline.stats.models.items()} == {"a": 30, "b": 12}
    assert pipeline.stats.models["a"].stages["infer"].count == 30
    assert pipeline.stats.stages["infer"].count == 42


def test_a_batch_holds_frames_of_one_model_alone() -> None:
    first, second = Named("a", 0.5, max_batch=4), Named("b", 0.5, max_batch=4)
    names = [f"camera{n}" for n in range(6)]
    pool = DetectorPool({"a": first, "b": second}, {name: "ab"[n % 2] for n, name in enumerate(names)})
    Pipeline([CountingSource(name, 20) for name in names], pool, OneTracker()).run()
    assert {name for batch in first.batches for name, _ in batch} == {"camera0", "camera2", "camera4"}
    assert {name for batch in second.batches for name, _ in batch} == {"camera1", "camera3", "camera5"}


def test_a_model_that_is_slow_to_load_holds_up_only_its_own_sources() -> None:
    slow = Named("slow", 0.5)
    slow.may_load.clear()
    pool = DetectorPool({"quick": Named("quick", 0.5), "slow": slow}, {"gate": "quick", "road": "slow"})
    with running(pool, camera("gate"), camera("road")) as (pipeline, sink):
        wait_for(lambda: len(of(sink.packets, "gate")) > 5)
        assert not of(sink.packets, "road")
        assert pipeline.stats.source("road").captured == 0
        slow.may_load.set()
        wait_for(lambda: len(of(sink.packets, "road")) > 5)


def test_a_source_moves_to_another_model_between_two_frames_in_order_and_without_loss() -> None:
    pool = DetectorPool({"a": Named("a", 0.5, work_s=0.003), "b": Named("b", 0.75)})
    with running(pool, camera("gate"), camera("road")) as (pipeline, sink):
        for n in range(6):
            wait_for(lambda n=n: len(of(sink.packets, "gate")) > 10 * n)  # type: ignore[misc]
            wanted = "ba"[n % 2]
            pipeline.move_source("gate", wanted)
            wait_for(lambda w=wanted: of(sink.packets, "gate")[-1].run.model_id == w)  # type: ignore[misc]
            assert pipeline.model_of("gate") == wanted
        assert {p.run.model_id for p in of(sink.packets, "road")} == {"a"}
    gate = of(sink.packets, "gate")
    assert [p.frame.frame_id for p in gate] == list(range(len(gate)))
    changes = [p.run.model_id for p, before in zip(gate[1:], gate, strict=False) if p.run is not before.run]
    assert changes == ["b", "a"] * 3
    assert all(p.detections.score[0] == (0.5 if p.run.model_id == "a" else 0.75) for p in gate)


def test_a_source_stays_until_the_model_it_moves_to_is_loaded_and_goes_where_it_was_sent_last() -> None:
    slow = Named("slow", 0.5)
    slow.may_load.clear()
    pool = DetectorPool({"a": Named("a", 0.5), "b": Named("b", 0.75)})
    with running(pool, camera("gate")) as (pipeline, sink):
        pipeline.add_model("slow", slow)
        pipeline.move_source("gate", "slow")
        before = len(sink.packets)
        wait_for(lambda: len(sink.packets) > before + 5)
        assert sink.packets[-1].run.model_id == "a"
        pipeline.move_source("gate", "b")
        pipeline.move_source("gate", "slow")
        slow.may_load.set()
        wait_for(lambda: sink.packets[-1].run.model_id == "slow")
        assert pipeline.model_of("gate") == "slow"


def test_a_model_that_cannot_be_loaded_ends_only_the_sources_placed_on_it() -> None:
    broken, failures = Named("broken", 0.5, error="no such plan"), []
    broken.may_load.clear()
    with running(DetectorPool({"a": Named("a", 0.5)}), camera("gate"), camera("yard")) as (pipeline, sink):
        pipeline.add_model("broken", broken, failures.append)
        pipeline.add_source(camera("road"), model="broken")
        pipeline.move_source("gate", "broken")
        broken.may_load.set()
        wait_for(lambda: any(s.state == "ended" for s in sink.statuses))
        ended = {s.source_id: s.reason for s in sink.statuses if s.state == "ended"}
        assert ended == {"road": "failed: model broken cannot be loaded"}
        assert [str(error) for error in failures] == ["no such plan"]
        assert list(pipeline.models) == ["a"]
        before = len(of(sink.packets, "gate"))
        wait_for(lambda: len(of(sink.packets, "gate")) > before + 5)
        pipeline.add_source(camera("road"), model="a")
        wait_for(lambda: of(sink.packets, "road"))


def test_one_model_is_exchanged_while_the_other_goes_on() -> None:
    old, new, other = Named("old", 0.5), Named("new", 0.25), Named("other", 0.75)
    new.may_load.clear()
    pool = DetectorPool({"a": old, "b": other}, {"gate": "a", "road": "b"})
    with running(pool, camera("gate"), camera("road")) as (pipeline, sink):
        wait_for(lambda: of(sink.packets, "gate"))
        pipeline.exchange_detector(new, model="a")
        before = len(of(sink.packets, "road"))
        wait_for(lambda: len(of(sink.packets, "road")) > before + 20)
        new.may_load.set()
        wait_for(lambda: of(sink.packets, "gate")[-1].run.model == "new")
        assert {p.run.model for p in of(sink.packets, "road")} == {"other"}
        assert old.events[-1] == "close on detect a"
        assert (pipeline.models["a"].detector, pipeline.models["b"].detector) == (new, other)


def test_a_model_without_sources_is_exchanged_at_once() -> None:
    old, new = Named("old", 0.5), Named("new", 0.25)
    with running(DetectorPool({"a": Named("a", 0.5), "idle": old}), camera("gate")) as (pipeline, _):
        wait_for(lambda: pipeline.models["idle"].is_loaded)
        pipeline.exchange_detector(new, model="idle")
        wait_for(lambda: pipeline.models["idle"].detector is new)
        assert old.events[-1] == "close on detect idle"


def test_an_unused_model_is_freed_and_a_used_one_is_not() -> None:
    spare = Named("spare", 0.5)
    with running(DetectorPool({"a": Named("a", 0.5), "spare": spare}), camera("gate")) as (pipeline, sink):
        pipeline.move_source("gate", "spare")
        wait_for(lambda: pipeline.model_of("gate") == "spare")
        with pytest.raises(ConfigError, match="model spare is used by gate"):
            pipeline.remove_model("spare")
        pipeline.move_source("gate", "a")
        wait_for(lambda: pipeline.model_of("gate") == "a")
        pipeline.remove_model("spare")
        wait_for(lambda: spare.events[-1:] == ["close on detect spare"])
        before = len(sink.packets)
        wait_for(lambda: len(sink.packets) > before + 5)
        with pytest.raises(ConfigError, match="is the only one"):
            pipeline.remove_model("a")


def test_a_model_that_fails_stops_the_run_by_name() -> None:
    bad = Named("bad", 0.5)
    bad.error = ModelError("out of memory")
    pool = DetectorPool({"a": Named("a", 0.5), "bad": bad}, {"road": "bad"})
    pipeline = Pipeline([CountingSource("gate", 1000), CountingSource("road", 1000)], pool, OneTracker())
    with pytest.raises(StageError, match="collect bad failed: out of memory"):
        pipeline.run()
    assert pipeline.stop(PATIENCE_S)
    assert accounted(pipeline)


@pytest.mark.parametrize(
    ("models", "of_source", "default", "expected"),
    [
        pytest.param({}, {}, None, "at least one model", id="none"),
        pytest.param({"a": PixelDetector()}, {"gate": "b"}, None, "no model b; expected one of: a", id="unknown"),
        pytest.param({"a": PixelDetector()}, {}, "b", "no model b; expected one of: a", id="unknown default"),
    ],
)
def test_pools_that_cannot_work_are_refused(
    models: dict[str, Detector], of_source: dict[str, str], default: str | None, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        DetectorPool(models, of_source, default)


def test_changes_to_models_that_make_no_sense_are_refused() -> None:
    with running(DetectorPool({"a": Named("a", 0.5)}), camera("gate")) as (pipeline, _):
        for change in (
            lambda: pipeline.move_source("gate", "b"),
            lambda: pipeline.exchange_detector(Named("b", 0.5), model="b"),
            lambda: pipeline.remove_model("b"),
            lambda: pipeline.add_source(camera("yard"), model="b"),
        ):
            with pytest.raises(ConfigError, match="no model b; expected one of: a"):
                change()
        with pytest.raises(ConfigError, match="there is a model a already"):
            pipeline.add_model("a", Named("a", 0.5))
        with pytest.raises(ConfigError, match="there is no source yard"):
            pipeline.move_source("yard", "a")


def test_stopping_while_sources_move_leaves_no_frame_uncounted() -> None:
    for n in range(20):
        pool = DetectorPool({"a": Named("a", 0.5, work_s=0.002), "b": Named("b", 0.5, work_s=0.002)})
        sources = [CountingSource(name, 1_000_000) for name in ("gate", "road")]
        pipeline = Pipeline(sources, pool, OneTracker(), options=PipelineOptions(keep_running=n % 2 == 0))
        pipeline.start()
        wait_for(lambda p=pipeline: p.stats.source("gate").published > 2)  # type: ignore[misc]
        pipeline.move_source("gate", "b")
        pipeline.move_source("road", "b")
        time.sleep(0.0005 * n)
        if n % 3 == 0:
            pipeline.finish()
            assert pipeline.wait(PATIENCE_S)
        assert pipeline.stop(PATIENCE_S)
        assert accounted(pipeline)
