"""Wiring, accounting, failure and stopping of the pipeline, on fakes that run on real threads."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from engine.data import Packet, Run
from engine.errors import ConfigError, ModelError, SinkError, SourceError, StageError
from engine.flow.channel import Channel
from engine.flow.detect import SubmitStage
from engine.flow.options import PipelineOptions
from engine.flow.pipeline import Pipeline
from tests.fakes import CountingSource, ListSink, OneTracker, PixelDetector

JOIN_S = 5.0


def accounted(pipeline: Pipeline) -> bool:
    return all(s.captured == s.published + sum(s.dropped.values()) for s in pipeline.stats.snapshot().sources)


def engine_threads() -> list[str]:
    return [
        t.name
        for t in threading.enumerate()
        if t.name.split()[0] in {"capture", "detect", "collect", "track", "publish", "list"}
    ]


def test_every_frame_of_a_file_arrives_in_order_at_every_sink() -> None:
    quick, slow = ListSink("quick", blocking=False), ListSink("list", work_s=0.001)
    pipeline = Pipeline(CountingSource(count=50), PixelDetector(depth=3), OneTracker(), quick, slow)
    pipeline.run()
    for sink in (quick, slow):
        assert [p.frame.frame_id for p in sink.packets] == list(range(50))
        assert [p.seq for p in sink.packets] == list(range(50))
        assert [int(p.detections.class_id[0]) for p in sink.packets] == list(range(50))
        assert sink.events == ["open", "live", "ended", "close"]
    assert pipeline.stats.by_source() == {
        "numbers": {"captured": 50, "published": 50, "detected": 50, "dropped": {}, "reconnects": 0}
    }
    assert engine_threads() == []


def test_iterating_yields_every_packet_and_leaving_early_stops() -> None:
    with Pipeline(CountingSource(count=1000), PixelDetector(), OneTracker()) as pipeline:
        seen = []
        for packet in pipeline:
            assert isinstance(packet, Packet)
            seen.append(packet.frame.frame_id)
            if len(seen) == 5:
                break
    assert seen == [0, 1, 2, 3, 4]
    assert accounted(pipeline)
    assert pipeline.stopped
    assert engine_threads() == []


def test_leaving_the_loop_stops_a_pipeline_that_nobody_holds() -> None:
    for packet in Pipeline(CountingSource(count=1000), PixelDetector(), OneTracker()):
        assert packet.frame.frame_id == 0
        break
    assert engine_threads() == []


def test_stopping_does_not_wait_for_an_iterator_that_takes_nothing_more() -> None:
    pipeline = Pipeline(CountingSource(count=1000), PixelDetector(), OneTracker())
    packets = iter(pipeline)
    assert next(packets).frame.frame_id == 0
    assert pipeline.stop(JOIN_S)
    assert engine_threads() == []
    assert all(isinstance(packet, Packet) for packet in packets), "what was published can still be taken"


LEFT_RUNNING = """
from engine import ByteTrack, Pipeline, load_detector, open_source
from engine.assets import demo_clip, demo_model
pipeline = Pipeline(open_source(demo_clip()), load_detector(demo_model()), ByteTrack())
packets = iter(pipeline)
print(next(packets).frame.frame_id)
"""


def test_a_process_that_exits_while_a_pipeline_runs_ends_cleanly() -> None:
    """Daemon threads inside native code crashed it: "terminate called without an active exception", or code -11."""
    done = subprocess.run([sys.executable, "-c", LEFT_RUNNING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_live_source_with_a_slow_detector_drops_and_stays_fresh() -> None:
    sink = ListSink()
    source = CountingSource(count=200, is_live=True, gap_s=0.002)
    pipeline = Pipeline(source, PixelDetector(depth=1, work_s=0.02), OneTracker(), sink)
    pipeline.run()
    figures = pipeline.stats.snapshot().sources[0]
    assert figures.captured == 200
    assert figures.dropped["overflow"] > 100
    assert accounted(pipeline)
    gaps = sum(sum(p.dropped.values()) for p in sink.packets)
    assert gaps <= figures.dropped["overflow"]
    # a frame waits for at most the inference before it: its age cannot grow with the length of the run
    ages = [p.latency_ms for p in sink.packets]
    assert max(ages[len(ages) // 2 :]) < 3 * max(ages[: len(ages) // 2]) + 100


def test_frames_past_their_age_are_dropped_before_inference_and_counted() -> None:
    options = PipelineOptions(max_age_ms=5.0, overflow="block")
    detector = PixelDetector(depth=1, work_s=0.02)
    pipeline = Pipeline(CountingSource(count=30, is_live=True, gap_s=0.001), detector, OneTracker(), options=options)
    pipeline.run()
    figures = pipeline.stats.snapshot().sources[0]
    assert figures.dropped["age"] > 0
    assert len(detector.batches) == figures.published
    assert accounted(pipeline)


def test_several_sources_share_the_detector_and_keep_their_own_order_and_tracker() -> None:
    sink = ListSink()
    sources = [CountingSource(name, count) for name, count in (("a", 30), ("b", 7), ("c", 50))]
    detector = PixelDetector(depth=2, max_batch=4)
    pipeline = Pipeline(sources, detector, OneTracker(), sink)
    pipeline.run()
    for name, count in (("a", 30), ("b", 7), ("c", 50)):
        mine = [p for p in sink.packets if p.frame.source_id == name]
        assert [p.frame.frame_id for p in mine] == list(range(count))
        assert [p.seq for p in mine] == list(range(count))
    assert [s.source_id for s in sink.statuses if s.state == "ended"] == ["b", "a", "c"]
    assert max(len(batch) for batch in detector.batches) > 1
    assert all(len({name for name, _ in batch}) == len(batch) for batch in detector.batches)


def test_slots_bound_the_inferences_in_flight() -> None:
    detector = PixelDetector(depth=2)
    in_flight, worst, lock = [0], [0], threading.Lock()
    submit, detect = detector.submit, detector.detect

    def counting_submit(frames):  # type: ignore[no-untyped-def]
        with lock:
            in_flight[0] += 1
            worst[0] = max(worst[0], in_flight[0])
        return submit(frames)

    def counting_detect(frames):  # type: ignore[no-untyped-def]
        found = detect(frames)
        with lock:
            in_flight[0] -= 1
        return found

    detector.submit, detector.detect = counting_submit, counting_detect  # type: ignore[method-assign]
    Pipeline(CountingSource(count=100), detector, OneTracker()).run()
    assert worst[0] == 2


def test_model_is_opened_and_closed_on_one_thread() -> None:
    detector = PixelDetector()
    Pipeline(CountingSource(), detector, OneTracker()).run()
    assert detector.events == ["open on detect", "close on detect"]


@pytest.mark.parametrize(
    ("parts", "stage", "cause"),
    [
        pytest.param({"detector": PixelDetector(error=ModelError("bad plan"))}, "collect", ModelError, id="detector"),
        pytest.param({"sink": ListSink(error=SinkError("disk full"))}, "list", SinkError, id="slow sink"),
        pytest.param(
            {"sink": ListSink("quick", blocking=False, error=SinkError("no socket"))},
            "publish",
            SinkError,
            id="quick sink",
        ),
        pytest.param(
            {"source": CountingSource(fails_at=3, error=SourceError("unplugged"))},
            "capture numbers",
            SourceError,
            id="source",
        ),
        pytest.param(
            {"source": CountingSource(fails_at=3, error=ZeroDivisionError("bug"))},
            "capture numbers",
            ZeroDivisionError,
            id="bug",
        ),
    ],
)
def test_first_failure_stops_everything_and_keeps_its_cause(parts, stage, cause) -> None:  # type: ignore[no-untyped-def]
    pipeline = Pipeline(
        parts.get("source", CountingSource(count=1000)),
        parts.get("detector", PixelDetector()),
        OneTracker(),
        parts.get("sink", ListSink()),
    )
    with pytest.raises(StageError) as caught:
        pipeline.run()
    assert caught.value.stage == stage
    assert isinstance(caught.value.__cause__, cause)
    assert pipeline.stop(JOIN_S)
    assert accounted(pipeline)
    assert engine_threads() == []


@pytest.mark.parametrize("kind", [SourceError, FileNotFoundError, ZeroDivisionError])
def test_failing_source_leaves_the_others_alone(kind: type[Exception]) -> None:
    sink = ListSink()
    good, bad = CountingSource("good", 60, gap_s=0.001), CountingSource("bad", fails_at=2, error=kind("unplugged"))
    pipeline = Pipeline([bad, good], PixelDetector(), OneTracker(), sink)
    with pytest.raises(StageError, match="unplugged"):
        pipeline.run()
    assert sum(p.frame.source_id == "good" for p in sink.packets) == 60
    ended = {s.source_id: s.reason for s in sink.statuses if s.state == "ended"}
    assert ended == {"bad": "failed: unplugged", "good": "end of stream"}


def test_an_output_that_fails_beside_a_camera_ends_alone_and_the_run_fails_at_its_end() -> None:
    broken, good = ListSink("broken", error=SinkError("disk full")), ListSink("good")
    source = CountingSource(count=30, is_live=True, gap_s=0.005)
    pipeline = Pipeline(source, PixelDetector(), OneTracker(), broken, good)
    with pytest.raises(StageError, match="disk full"):
        pipeline.run()
    published = pipeline.stats.snapshot().sources[0].published
    assert published > 20
    assert len(good.packets) == published
    assert pipeline.stats.sink_dropped["broken"]["failed"] >= published - 8
    assert broken.events[-1] == "close"


def test_an_output_that_cannot_begin_stops_the_run_at_once() -> None:
    class Nowhere(ListSink):
        def open(self, run: Run) -> None:
            raise SinkError("no such folder")

    source = CountingSource(count=100_000, is_live=True, gap_s=0.005)
    with pytest.raises(StageError, match="no such folder"):
        Pipeline(source, PixelDetector(), OneTracker(), Nowhere()).run()


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "file"])
@pytest.mark.parametrize("slow_sink_s", [0.0, 0.05], ids=["quick sink", "slow sink"])
def test_stop_ends_all_threads_and_accounts_for_frames_in_flight(is_live: bool, slow_sink_s: float) -> None:
    sink = ListSink(work_s=slow_sink_s)
    source = CountingSource(count=1_000_000, is_live=is_live, gap_s=0.001 if is_live else 0.0)
    pipeline = Pipeline(source, PixelDetector(max_batch=2), OneTracker(), sink)
    pipeline.start()
    deadline = time.monotonic() + JOIN_S
    while len(sink.packets) < 3 and time.monotonic() < deadline:
        pipeline.wait(0.01)
    assert pipeline.stop()
    assert accounted(pipeline)
    assert source.closed
    assert sink.events[-1] == "close"
    assert [p.seq for p in sink.packets] == sorted(p.seq for p in sink.packets)
    if not is_live:  # what was published is also written
        assert len(sink.packets) == pipeline.stats.snapshot().sources[0].published
    assert engine_threads() == []


def test_max_frames_bounds_each_source() -> None:
    sink = ListSink()
    pipeline = Pipeline(
        [CountingSource("a", 100), CountingSource("b", 100)],
        PixelDetector(),
        OneTracker(),
        sink,
        options=PipelineOptions(max_frames=4),
    )
    pipeline.run()
    assert {name: s["published"] for name, s in pipeline.stats.by_source().items()} == {"a": 4, "b": 4}


def test_sources_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two sources are named numbers"):
        Pipeline([CountingSource(), CountingSource()], PixelDetector(), OneTracker())


def test_stage_times_of_every_step_are_measured() -> None:
    pipeline = Pipeline(CountingSource(), PixelDetector(), OneTracker())
    pipeline.run()
    assert set(pipeline.stats.stages) == {"capture", "queue", "infer", "track", "publish"}
    assert pipeline.stats.latency.count == 10


def test_blocked_producer_is_released_by_abort() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    ended = threading.Event()

    def produce() -> None:
        with pytest.raises(Exception, match="closed"):
            channel.put(2)
        ended.set()

    thread = threading.Thread(target=produce)
    thread.start()
    channel.abort()
    assert ended.wait(JOIN_S)
    thread.join()
    assert channel.dropped["shutdown"] == 1


def test_detecting_on_each_third_frame_predicts_in_between() -> None:
    sink, detector = ListSink(), PixelDetector()
    options = PipelineOptions(detect_every=3)
    Pipeline(CountingSource(count=10), detector, OneTracker(), sink, options=options).run()
    assert [p.frame.frame_id for p in sink.packets] == list(range(10))
    assert [p.frame.frame_id for p in sink.packets if p.is_detected] == [0, 3, 6, 9]
    assert [batch[0][1] for batch in detector.batches] == [0, 3, 6, 9]
    assert all(len(p.detections) == 0 for p in sink.packets if not p.is_detected)


def test_automatic_skipping_tracks_live_frames_that_would_be_dropped() -> None:
    sink = ListSink()
    options = PipelineOptions(detect_every="auto")
    source = CountingSource(count=60, is_live=True, gap_s=0.004)
    pipeline = Pipeline(source, PixelDetector(depth=1, work_s=0.02), OneTracker(), sink, options=options)
    pipeline.run()
    ids = [p.frame.frame_id for p in sink.packets]
    assert ids == sorted(ids)
    assert len(ids) > 50
    assert 5 < sum(p.is_detected for p in sink.packets) < 40
    assert accounted(pipeline)


@pytest.mark.parametrize("detect_every", [0, -1])
def test_impossible_skipping_is_refused(detect_every: int) -> None:
    with pytest.raises(ConfigError, match="detect_every"):
        PipelineOptions(detect_every=detect_every)


def run_in_background(*sources: CountingSource, detector: PixelDetector | None = None) -> tuple[Pipeline, ListSink]:
    sink = ListSink()
    pipeline = Pipeline(list(sources), detector or PixelDetector(), OneTracker(), sink)
    pipeline.start()
    return pipeline, sink


def wait_for(pipeline: Pipeline, condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + JOIN_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        pipeline.wait(0.005)


def test_sources_come_and_go_without_loss_on_the_others() -> None:
    steady = CountingSource("steady", 1_000_000, gap_s=0.001)
    pipeline, sink = run_in_background(steady)
    for n in range(20):
        pipeline.add_source(CountingSource(f"guest{n % 2}", 1_000_000, gap_s=0.001))
        wait_for(pipeline, lambda: sink.packets and sink.packets[-1].frame.source_id.startswith("guest"))
        pipeline.remove_source(f"guest{n % 2}")
        wait_for(pipeline, lambda n=n: sum(s.state == "ended" for s in sink.statuses) == n + 1)
    assert len(pipeline._stages._stages) < 12
    assert pipeline.stop()
    ids = [p.frame.frame_id for p in sink.packets if p.frame.source_id == "steady"]
    assert ids == list(range(len(ids)))
    assert accounted(pipeline)
    assert {s.reason for s in sink.statuses if s.state == "ended" and s.source_id != "steady"} == {"removed"}


def test_source_is_removed_while_the_model_loads() -> None:
    class Slow(PixelDetector):
        is_loaded = threading.Event()

        def open(self) -> None:
            assert self.is_loaded.wait(JOIN_S)

    sources = [CountingSource(name, 1_000_000, is_live=True, gap_s=0.001) for name in ("cam", "yard")]
    pipeline, sink = run_in_background(*sources, detector=Slow())
    pipeline.remove_source("yard")
    assert pipeline.running_sources == ["cam"]
    Slow.is_loaded.set()
    wait_for(pipeline, lambda: len(sink.packets) > 3 and any(s.state == "ended" for s in sink.statuses))
    assert [(s.source_id, s.reason) for s in sink.statuses if s.state == "ended"] == [("yard", "removed")]
    assert pipeline.stop()
    assert pipeline.stats.source("yard").captured == 0


def test_paused_source_drops_its_frames_counted_until_it_is_resumed() -> None:
    pipeline, sink = run_in_background(CountingSource("cam", 1_000_000, gap_s=0.001))
    wait_for(pipeline, lambda: len(sink.packets) > 3)
    pipeline.pause_source("cam")
    stats = pipeline.stats.source("cam")
    wait_for(pipeline, lambda: stats.dropped["paused"] > 5)
    seen = len(sink.packets)
    pipeline.pause_source("cam", paused=False)
    wait_for(pipeline, lambda: len(sink.packets) > seen + 3)
    assert pipeline.stop()
    assert accounted(pipeline)


def test_model_is_exchanged_between_two_frames_without_losing_any() -> None:
    first, second = PixelDetector(), PixelDetector(depth=3)
    second.name = "second"
    pipeline, sink = run_in_background(CountingSource("cam", 1_000_000, gap_s=0.001), detector=first)
    wait_for(pipeline, lambda: len(sink.packets) > 3)
    pipeline.exchange_detector(second)
    wait_for(pipeline, lambda: sink.packets[-1].run.model == "second")
    assert first.events == ["open on detect", "close on detect"]
    assert pipeline.stop()
    assert [p.frame.frame_id for p in sink.packets] == list(range(len(sink.packets)))
    assert second.events == ["open on detect", "close on detect"]


def test_model_that_cannot_be_loaded_leaves_the_old_one_in_use() -> None:
    class Broken(PixelDetector):
        def open(self) -> None:
            raise ModelError("no such plan")

    pipeline, sink = run_in_background(CountingSource("cam", 1_000_000, gap_s=0.001))
    pipeline.exchange_detector(Broken())
    wait_for(pipeline, lambda: len(sink.packets) > 50)
    assert {p.run.model for p in sink.packets} == {"pixel"}
    assert pipeline.stop()


def test_model_that_is_loaded_while_the_run_ends_is_closed() -> None:
    class Slow(PixelDetector):
        loading, go_on = threading.Event(), threading.Event()

        def open(self) -> None:
            super().open()
            self.loading.set()
            self.go_on.wait(JOIN_S)

    first, second = PixelDetector(), Slow()
    pipeline, sink = run_in_background(CountingSource("cam", 1_000_000, gap_s=0.001), detector=first)
    wait_for(pipeline, lambda: len(sink.packets) > 3)
    pipeline.exchange_detector(second)
    assert second.loading.wait(JOIN_S)
    stopping = threading.Thread(target=pipeline.stop)
    stopping.start()
    wait_for(pipeline, lambda: pipeline._tracked.closed)
    second.go_on.set()
    stopping.join(JOIN_S)
    assert pipeline.stop()
    assert first.events == second.events == ["open on detect", "close on detect"]


def test_source_is_refused_where_nobody_detects_any_more() -> None:
    class Held(ListSink):
        may_end = threading.Event()

        def write(self, packet: Packet) -> None:
            assert self.may_end.wait(JOIN_S)

    pipeline = Pipeline(CountingSource("cam", 2), PixelDetector(), OneTracker(), Held())
    pipeline.start()
    for stage in pipeline._stages.of_kind(SubmitStage):
        assert stage.join(JOIN_S)
    with pytest.raises(ConfigError, match="late cannot be added: the pipeline is not running"):
        pipeline.add_source(CountingSource("late"))
    Held.may_end.set()
    assert pipeline.wait(JOIN_S)


def test_changes_that_make_no_sense_are_refused() -> None:
    pipeline, _ = run_in_background(CountingSource("cam", 1_000_000, gap_s=0.001))
    with pytest.raises(ConfigError, match="there is a source cam already"):
        pipeline.add_source(CountingSource("cam"))
    with pytest.raises(ConfigError, match="there is no source yard; expected one of: cam"):
        pipeline.remove_source("yard")
    assert pipeline.stop()
    with pytest.raises(ConfigError, match="not running"):
        pipeline.add_source(CountingSource("late"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda: Pipeline("clip.mp4", PixelDetector(), OneTracker()), r"source is 'clip.mp4'.*open_source"),
        pytest.param(lambda: Pipeline(PixelDetector(), CountingSource(), OneTracker()), r"source is a PixelDetector"),
        pytest.param(lambda: Pipeline(CountingSource(), "m.onnx", OneTracker()), r"is 'm.onnx'.*load_detector"),
        pytest.param(lambda: Pipeline(CountingSource(), PixelDetector(), OneTracker), r"the class OneTracker.*object"),
        pytest.param(lambda: Pipeline(CountingSource(), PixelDetector(), None), r"tracker is None.*ByteTrack\(\)"),
        pytest.param(lambda: Pipeline(CountingSource(), PixelDetector(), OneTracker(), 5), r"sink is 5, without open"),
        pytest.param(lambda: Pipeline([], PixelDetector(), OneTracker()), r"at least one source"),
    ],
)
def test_wrong_parts_are_a_config_error_that_shows_a_right_one(make: Callable[[], Pipeline], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
