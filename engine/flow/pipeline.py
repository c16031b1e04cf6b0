"""Pipeline: wiring of the stages, the first failure, and stopping (the picture is in docs/architecture.md)."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.clock import NS_PER_S, SYSTEM_CLOCK, Clock
from engine.data import Frame, Packet, Run, SourceStatus
from engine.errors import ConfigError, EngineError, SinkError, StageError
from engine.flow.analyse import AnalyseStep
from engine.flow.batcher import Batcher
from engine.flow.capture import CaptureStage, Start
from engine.flow.channel import Channel, ChannelClosedError
from engine.flow.detect import CollectStage, DetectorSwap, SubmitStage
from engine.flow.exit import stop_at_exit
from engine.flow.gate import FrameGate
from engine.flow.items import Detected, InFlight, frames_of
from engine.flow.options import FILE_CAPACITY, PipelineOptions, check_names
from engine.flow.publish import Outlets, SinkStage, output_stages
from engine.flow.stage import Stage
from engine.flow.track import TrackStage
from engine.protocols import Analyser, Detector, Sink, Source, TrackClassifier, Tracker
from engine.stats import PipelineStats, never

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)
MAX_DEPTH = 256
STOP_TIMEOUT_S = 0.9
LAST_FRAMES_S = 3.0  # that a removed source's last frames take to the end of the pipeline, at most


class Pipeline:
    """Capture, detect, track and publish, each on threads of its own, until the sources end or `stop` is called.

    Args:
        sources: one source or several; their `source_id`s must differ.
        detector: shared by all sources; opened and closed here.
        tracker: a prototype; every source gets a `clone()`.
        sinks: outputs.
        options: queueing.
        rules: by source: regions of interest, ignored places, motion gate.
        second_stage: classifies the tracked objects, each once in a while.
        analysers: by source, in the order in which they run; one object may be in the lists of several sources.
        engine_id: name of this engine on the wire; the host's name by default.
        clock: time, for tests.
    """

    def __init__(
        self,
        sources: Source | Sequence[Source],
        detector: Detector,
        tracker: Tracker,
        *sinks: Sink,
        options: PipelineOptions | None = None,
        rules: Mapping[str, FrameGate] | None = None,
        second_stage: TrackClassifier | None = None,
        analysers: Mapping[str, Sequence[Analyser]] | None = None,
        engine_id: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.sources: list[Source] = list(sources) if isinstance(sources, Sequence) else [sources]
        self.options = options or PipelineOptions()
        check_names([source.info.source_id for source in self.sources], may_be_none=self.options.keep_running)
        self.detector, self.tracker, self.sinks = detector, tracker, sinks
        self.stats = PipelineStats()
        self._second_stage = second_stage
        self._rules: dict[str, FrameGate] = dict(rules or {})
        self._analyse = AnalyseStep(analysers or {}, clock)
        self._clock = clock
        second = () if second_stage is None else tuple(second_stage.class_names)
        name = engine_id or socket.gethostname()
        self.run_facts = Run(name, clock.utc_ns(), detector.name, tuple(detector.class_names), second)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._ready = Start()
        self._failure: tuple[str, BaseException] | None = None
        self._running: set[Stage[Any]] = set()
        self._started_ns = clock.monotonic_ns()
        self._wall_s: float | None = None
        self.stopped = False
        self._consumer: Channel[Packet | SourceStatus] | None = None
        self._outlets = Outlets(self.stats.sink_dropped)
        self._stages: list[Stage[Any]] = []
        self._captures: dict[str, CaptureStage] = {}
        self._submit: SubmitStage | None = None
        self._upstream: list[Channel[Any]] = []
        self._batcher = Batcher(detector.max_batch, self.options.batch_wait_ms / 1e3, on_old=self._on_lost, clock=clock)
        self._detected: Channel[list[Detected] | SourceStatus] = Channel(FILE_CAPACITY, on_drop=self._on_dropped)
        self._tracked: Channel[Packet | SourceStatus] = Channel(FILE_CAPACITY, on_drop=self._on_dropped)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Packet]:
        """Start, and yield packets; raises `StageError` if a stage fails. Leaving the loop stops the run.

        A consumer slower than a live source misses packets (counted in `stats.sink_dropped["consumer"]`); with files
        the pipeline waits for it.
        """
        self._consumer = self._outlets.make("consumer")
        self.start()
        try:
            for item in self._consumer:
                if isinstance(item, Packet):
                    yield item
            self.wait()
        finally:
            self.stop()

    def run(self) -> None:
        """Start, and wait for the end. Raises `StageError` if a stage fails."""
        self.start()
        self.wait()

    def start(self) -> None:
        """Start all threads and return.

        Raises:
            ConfigError: it was started before.
        """
        if self._stages:
            raise ConfigError("a pipeline runs once: make a new one to run again")
        self._wire()
        self._started_ns = self._clock.monotonic_ns()
        self._running = set(self._stages)
        stop_at_exit(self)
        for stage in self._stages:
            stage.start(self._on_end)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end and return whether it came within `timeout_s`.

        Raises:
            StageError: a stage failed, or a source could not be opened or read; the original is its cause.
        """
        if not self._done.wait(timeout_s):
            return False
        if self._failure is not None:
            stage, error = self._failure
            raise StageError(stage, error) from error
        return True

    def finish(self) -> None:
        """Take no more frames and let those inside reach the end; returns at once, `wait` tells when it is done."""
        self._batcher.seal()
        for source in self.sources:
            source.interrupt()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Stop from any state, without raising; return whether every thread ended in time.

        Frames in flight are dropped under `shutdown`; what was published is still written by the sinks.
        """
        if not self._stages:
            return True
        self.stopped = self.stopped or not self._done.is_set()
        self._abort()
        deadline = time.monotonic() + timeout_s
        ended = [stage.join(max(deadline - time.monotonic(), 0.0)) for stage in self._stages]
        for stage, has_ended in zip(self._stages, ended, strict=True):
            if not has_ended:
                logger.warning("stage %s is still inside a native call after %.1f s", stage.name, timeout_s)
        if not all(ended):
            self.stats.settle("shutdown")
        return all(ended)

    def add_source(self, source: Source, wait_s: float = LAST_FRAMES_S, is_over: Callable[[], bool] = never) -> None:
        """Take in another source while running; it begins when the end of a former one of its name was published.

        Args:
            source: not yet iterated.
            wait_s: how long to wait for that end.
            is_over: whether to wait no longer.

        Raises:
            ConfigError: the pipeline is not running, or has a source of this name that has not ended.
        """
        source_id = source.info.source_id
        stats = self.stats.source(source_id)
        former = self._captures.get(source_id)
        if former is not None and former not in self._running:
            stats.wait_for_end(wait_s, is_over)
        with self._lock:
            if former is not None and former not in self._running and not stats.has_ended.is_set():
                raise ConfigError(f"source {source_id} cannot be added: frames of the former one are still waiting")
            if self._submit not in self._running or self._done.is_set() or self.stopped:
                raise ConfigError(f"source {source_id} cannot be added: the pipeline is not running")
            if former in self._running and former is not None and former.is_removed:
                raise ConfigError(f"source {source_id} was removed and has not ended yet: try again later")
            if former in self._running:
                raise ConfigError(f"there is a source {source_id} already: remove it first, or choose another name")
            self._stages = [stage for stage in self._stages if stage in self._running]
            self._upstream = [channel for channel in self._upstream if not (channel.closed and not len(channel))]
            stage = self._capture(source)
            self.sources = [s for s in self.sources if s.info.source_id != source_id] + [source]
            self._running.add(stage)
            self._stages.append(stage)
        stage.start(self._on_end)

    def remove_source(self, source_id: str) -> None:
        """End one source while running: its waiting frames are dropped as `removed`, and `ended` follows the last.

        Raises:
            ConfigError: there is no such source, or it hangs in a native call (it is abandoned).
        """
        stage = self._running_capture(source_id)
        stage.remove()
        if not stage.join(STOP_TIMEOUT_S):
            raise ConfigError(f"source {source_id} is still inside a native call after {STOP_TIMEOUT_S} s: abandoned")

    def pause_source(self, source_id: str, *, paused: bool = True) -> None:
        """Drop all frames of a source from now on (counted as `paused`), or take them again.

        Raises:
            ConfigError: there is no such source.
        """
        self._running_capture(source_id).is_paused = paused

    def set_rules(self, rules: Mapping[str, FrameGate]) -> None:
        """Replace the rules of all sources, from their next frame on."""
        self._rules.update(rules)

    def set_analysers(self, analysers: Mapping[str, Sequence[Analyser]]) -> None:
        """Replace the analysers of the given sources, from their next frame on; the others stay.

        An analyser that is in no list any more is closed; one that stays keeps what it knows.
        """
        self._analyse.change(analysers)

    def exchange_detector(
        self,
        detector: Detector,
        on_failure: Callable[[EngineError], None] = lambda error: None,
        on_success: Callable[[], None] = lambda: None,
    ) -> None:
        """Go over to another model between two batches; if it cannot be loaded, the one in use stays.

        Args:
            detector: not yet open.
            on_failure: called on the detecting thread where it cannot be loaded, after the error was logged.
            on_success: called on the detecting thread once it is in use.

        Raises:
            ConfigError: the pipeline is not running.
        """
        if self._submit is None or self._done.is_set():
            raise ConfigError("the model cannot be changed: the pipeline is not running")
        run = replace(self.run_facts, model=detector.name, class_names=tuple(detector.class_names))

        def done() -> None:
            self.detector, self.run_facts = detector, run
            on_success()

        self._submit.exchange(DetectorSwap(detector, run, done, on_failure))

    @property
    def running_sources(self) -> list[str]:
        """Names of the sources that have not ended."""
        with self._lock:
            return [stage.source.info.source_id for stage in self._running if isinstance(stage, CaptureStage)]

    @property
    def paused_sources(self) -> list[str]:
        """Names of those whose frames are dropped until they are resumed."""
        return [name for name in self.running_sources if self._captures[name].is_paused]

    def _running_capture(self, source_id: str) -> CaptureStage:
        known = self.running_sources
        if source_id not in known:
            raise ConfigError(f"there is no source {source_id}: running are {', '.join(known) or 'none'}")
        return self._captures[source_id]

    @property
    def wall_s(self) -> float:
        """Seconds since the start, until the end."""
        return self._wall_s or (self._clock.monotonic_ns() - self._started_ns) / NS_PER_S

    def _wire(self) -> None:
        """Make the channels and stages, downstream first in each pair."""
        in_flight: Channel[InFlight | SourceStatus] = Channel(MAX_DEPTH, on_drop=self._on_dropped)
        slots: Channel[None] = Channel(MAX_DEPTH)  # the detector says how many once it is open
        options, lost, clock = self.options, self._on_lost, self._clock
        collect = CollectStage(in_flight, self._detected, slots=slots, on_lost=lost)
        self._submit = SubmitStage(
            self.detector,
            self.run_facts,
            self._batcher,
            in_flight,
            slots=slots,
            ending=lambda source_id: self._captures[source_id].end(),
            on_lost=lost,
            wait_for_collector=collect.join,
            ready=self._ready.set,
            detect_every=1 if options.detect_every == "auto" else options.detect_every,
            rules=self._rules,
            clock=clock,
        )
        track = TrackStage(
            self.tracker,
            self._detected,
            self._tracked,
            on_lost=lost,
            rules=self._rules,
            second_stage=self._second_stage,
            analyse=self._analyse,
            clock=clock,
        )
        captures = [self._capture(source) for source in self.sources]
        if not options.keep_running:
            self._batcher.seal()
        self._upstream += [slots, in_flight, self._detected, self._tracked]
        consumers = [] if self._consumer is None else [self._consumer]
        outputs = output_stages(
            self.run_facts, self._tracked, self.sinks, consumers, self._outlets.make, stats=self.stats, clock=clock
        )
        self._stages = [*outputs, track, collect, self._submit, *captures]

    def _capture(self, source: Source) -> CaptureStage:
        info, options, stats = source.info, self.options, self.stats.source(source.info.source_id)
        stats.begin()
        if info.is_live and options.overflow != "block":
            self._wait_no_more()
        capacity, overflow = options.queue(is_live=info.is_live)
        channel = Channel[Frame](capacity, overflow, on_drop=self._on_lost, condition=self._batcher.condition)
        max_age_ms = options.max_age_ms if info.is_live else None
        self._batcher.add(info.source_id, channel, max_age_ms, is_live=info.is_live)
        self._upstream.append(channel)
        stage = CaptureStage(
            source,
            channel,
            stats,
            tell=self._tell,
            capture_ms=lambda ms: self.stats.add_stage_ms({"capture": ms}),
            max_frames=options.max_frames,
            ready=self._ready,
            clock=self._clock,
        )
        self._captures[info.source_id] = stage
        return stage

    def _tell(self, status: SourceStatus) -> None:
        """Pass on a state by way of the tracking thread, where the analysers take note of it."""
        with suppress(ChannelClosedError):
            self._detected.put(status)

    def _wait_no_more(self) -> None:
        """Let outputs miss packets instead of holding up the pipeline: it has a camera, which cannot wait."""
        self._outlets.drop_oldest()
        self._batcher.keep_older = self.options.predicts_in_between

    def _on_lost(self, frame: Frame, cause: str) -> None:
        self.stats.source(frame.source_id).add_dropped(cause)

    def _on_dropped(self, item: InFlight | list[Detected] | Packet | SourceStatus, cause: str) -> None:
        """Count the frames of anything that was dropped between two stages."""
        for frame in frames_of(item):
            self._on_lost(frame, cause)

    def _on_end(self, stage: Stage[Any], error: BaseException | None) -> None:
        """Note how a stage ended. A source ends alone, an output beside cameras too; other failures stop everything."""
        if error is not None:
            logger.log(logging.ERROR, "%s failed: %s", stage.name, error)
            with self._lock:
                self._failure = self._failure or (stage.name, error)
            if not self._ends_alone(stage, error):
                self._abort()
        with self._lock:
            self._running.discard(stage)
            if self._running:
                return
        self._wall_s = (self._clock.monotonic_ns() - self._started_ns) / NS_PER_S
        if self._consumer is not None:
            self._consumer.close()
        self._done.set()

    def _ends_alone(self, stage: Stage[Any], error: BaseException) -> bool:
        if isinstance(stage, SinkStage):
            return stage.was_opened and not self._outlets.is_lossless and isinstance(error, SinkError)
        return isinstance(stage, CaptureStage) and isinstance(error, Exception)

    def _abort(self) -> None:
        self.finish()
        self._ready.set()
        for stats in list(self.stats.sources.values()):
            stats.has_ended.set()
        for channel in self._upstream:
            channel.abort()
