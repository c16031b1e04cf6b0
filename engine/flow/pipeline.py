"""The pipeline: wires the stages, keeps the first failure and stops the run (diagram in docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from engine.clock import SYSTEM_CLOCK, Clock
from engine.data import Packet, Run, SourceStatus
from engine.errors import ConfigError, EngineError, SinkError
from engine.flow.analyse import AnalyseStep, with_analytics
from engine.flow.attention.gate import FrameGate
from engine.flow.capture import CaptureStage
from engine.flow.changes import LAST_FRAMES_S, RunningSources, add_model, exchange_model
from engine.flow.channel import Channel, ChannelClosedError
from engine.flow.defaults import address_of
from engine.flow.exit import stop_at_exit
from engine.flow.items import Detected
from engine.flow.lane import FlowContext, Lane, Start
from engine.flow.options import FILE_CAPACITY, PipelineOptions, check_names, check_parts
from engine.flow.pool import DetectorPool, Lanes
from engine.flow.publish import Hides, Outlets, Shield, SinkStage, output_stages
from engine.flow.stage import RunningStages, Stage
from engine.flow.track import TrackStage
from engine.identity import default_engine_id
from engine.latch import Latch
from engine.leases import Leases
from engine.protocols import Analyser, Detector, Sink, Source, TrackClassifier, Tracker
from engine.stats import PipelineStats

if TYPE_CHECKING:
    from typing_extensions import Self

    from engine.analytics.analytics import Analytics

STOP_TIMEOUT_S = 0.9


def _ignore(error: EngineError) -> None:
    """The error was logged."""


class Pipeline:
    """Capture, detect, track and publish, each on its own threads, until the sources end or `stop` is called.

    Args:
        sources: one source or several; their `source_id`s must differ.
        detector: shared by all sources, or a `DetectorPool` of several; opened and closed here.
        tracker: a prototype; every source gets a `clone()`.
        sinks: outputs.
        options: how frames are queued and bounded.
        rules: by source: regions of interest, ignored regions, motion gate.
        second_stage: classifies each tracked object from time to time.
        analysers: by source, in the order in which they run; one object may be in the lists of several sources.
        analytics: zones, lines and rules: of all sources, or by source; see `Packet.analytics` and `Packet.findings`.
        privacy: replaces the pixels of every packet before any output, and this object's iterator, sees them.
        engine_id: name of this engine on the wire; default: the host name and a few digits (`engine.identity`).
        clock: monotonic clock; tests replace it.
    """

    def __init__(
        self,
        sources: Source | Sequence[Source],
        detector: Detector | DetectorPool,
        tracker: Tracker,
        *sinks: Sink,
        options: PipelineOptions | None = None,
        rules: Mapping[str, FrameGate] | None = None,
        second_stage: TrackClassifier | None = None,
        analysers: Mapping[str, Sequence[Analyser]] | None = None,
        analytics: Analytics | Mapping[str, Analytics] | None = None,
        privacy: Hides | None = None,
        engine_id: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        listed = list(sources) if isinstance(sources, Sequence) and not isinstance(sources, str) else [sources]
        check_parts(listed, [] if isinstance(detector, DetectorPool) else [detector], tracker, sinks)
        self.options = options or PipelineOptions()
        check_names([source.info.source_id for source in listed], may_be_none=self.options.keep_running)
        self.tracker, self.sinks, self.privacy = tracker, sinks, privacy
        self.stats = PipelineStats(clock)
        self.stopped = False
        self._rules: dict[str, FrameGate] = dict(rules or {})
        self._context = context = FlowContext(self.options, self._rules, self.stats, clock)
        self.looks = context.watches.counts
        self._second_stage = second_stage
        self._analyse = AnalyseStep(with_analytics(analysers or {}, analytics, clock), clock)
        self._detected: Channel[list[Detected] | SourceStatus] = Channel(FILE_CAPACITY, on_drop=context.drop)
        self._tracked: Channel[list[Packet] | SourceStatus] = Channel(FILE_CAPACITY, on_drop=context.drop)
        self._shield = Shield(privacy, self._tracked, context)
        self._outlets = Outlets(self.stats.sink_dropped)
        self._consumer: Channel[Packet | SourceStatus] | None = None
        second = () if second_stage is None else tuple(second_stage.class_names)
        run = Run(
            engine_id or default_engine_id([address_of(sink) for sink in sinks]),
            clock.utc_ns(),
            second_class_names=second,
        )
        pool, self._start = DetectorPool.of(detector), Start()
        self._lanes = Lanes(pool, run, context, self._detected, ending=self._ending, start=self._start)
        self._sources = RunningSources(
            listed, context, self._lanes, start=self._start, tell=self._tell, cannot_wait=self._wait_no_more
        )
        self._stages = RunningStages(
            clock, ends_alone=self._ends_alone, abort=self._abort, on_end=self._on_end, on_over=self._on_over
        )

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

    @property
    def leases(self) -> Leases:
        """Which sources may be published, for engines of a fleet."""
        return self._context.leases

    @property
    def sources(self) -> list[Source]:
        """All sources of the run; if a name was used again, its latest source."""
        return self._sources.sources

    @property
    def models(self) -> dict[str, Lane]:
        """The models of the run by name, each with its `detector`, its `run` facts and whether it `is_loaded`."""
        return {lane.model_id: lane for lane in self._lanes}

    @property
    def former_models(self) -> list[Lane]:
        """The models that were removed, so that their figures can be reported."""
        return self._lanes.former

    @property
    def detector(self) -> Detector:
        """The detector of sources that do not name a model."""
        return self._lanes[self._lanes.default].detector

    @property
    def run_facts(self) -> Run:
        """Facts of the run, with the default model."""
        return self._lanes[self._lanes.default].run

    @property
    def running_sources(self) -> list[str]:
        """Names of the sources that have not ended."""
        return self._sources.names(self._stages)

    @property
    def paused_sources(self) -> list[str]:
        """Names of the paused sources; their frames are dropped until they are resumed."""
        stages = self._stages.of_kind(CaptureStage)
        return [stage.source.info.source_id for stage in stages if stage.is_paused]

    @property
    def wall_s(self) -> float:
        """Seconds since the start, until the end."""
        return self._stages.wall_s

    def run(self) -> None:
        """Start, and wait for the end. Raises `StageError` if a stage fails."""
        self.start()
        self.wait()

    def start(self) -> None:
        """Start all threads and return.

        Raises:
            ConfigError: it was started before.
        """
        if self._stages.has_begun:
            raise ConfigError("a pipeline runs only once: create a new one to run again")
        stages = self._wire()
        stop_at_exit(self)
        self._stages.start(stages)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end and return whether it came within `timeout_s`.

        Raises:
            StageError: a stage failed, or a source could not be opened or read; the original is its cause.
        """
        return self._stages.wait(timeout_s)

    def finish(self) -> None:
        """Stop capturing, and publish the frames in flight. Returns immediately; call `wait` for the end."""
        self._lanes.seal()
        self._sources.interrupt()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Stop from any state, without raising; return whether every thread ended in time.

        Frames in flight are dropped as `shutdown`; the sinks still write what was published.
        """
        if not self._stages.has_begun:
            return True
        self.stopped = self.stopped or not self._stages.over.is_set()
        self._abort()
        if self._consumer is not None:  # the iterating consumer may be gone: do not wait for it to take packets
            self._consumer.drop_oldest()
        have_ended = self._stages.join(timeout_s)
        if not have_ended:
            self.stats.settle("shutdown")
        return have_ended

    def add_source(
        self,
        source: Source,
        wait_s: float = LAST_FRAMES_S,
        is_over: Latch | None = None,
        *,
        model: str | None = None,
    ) -> None:
        """Add a source while running; it begins once the end of an earlier source of its name is published.

        Args:
            source: not yet iterated.
            wait_s: how long to wait for that end.
            is_over: stops waiting when it is set.
            model: name of the model that it uses; None: the one that a source of its name used, or the default.

        Raises:
            ConfigError: the pipeline is not running, has a source of this name that has not ended, or no such model.
        """
        self._check_running(f"source {source.info.source_id} cannot be added")
        self._sources.add(self._stages, source, model, wait_s, is_over or Latch())

    def remove_source(self, source_id: str, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End one source while running: its waiting frames are dropped as `removed`; `ended` follows its last frame.

        Raises:
            ConfigError: there is no such source, or it is still in a native call after `timeout_s` (it is abandoned).
        """
        self._sources.remove(self._stages, source_id, timeout_s)

    def pause_source(self, source_id: str, *, paused: bool = True) -> None:
        """Drop all frames of a source from now on (counted as `paused`), or resume it.

        Raises:
            ConfigError: there is no such source.
        """
        self._sources.running(self._stages, source_id).is_paused = paused

    def move_source(self, source_id: str, model: str) -> None:
        """Move a source to another model: once that is loaded, between two frames, without losing any.

        Raises:
            ConfigError: there is no such source or model.
        """
        self._sources.running(self._stages, source_id)
        self._lanes.move(source_id, model)

    def model_of(self, source_id: str) -> str:
        """Return the name of the model that a source uses now; a move to another may be pending."""
        return self._lanes.model_of(source_id)

    def set_rules(self, rules: Mapping[str, FrameGate]) -> None:
        """Replace the rules of all sources from their next frame on."""
        self._rules.update(rules)

    @property
    def analysers(self) -> dict[str, tuple[Analyser, ...]]:
        """The current analysers by source."""
        return self._analyse.lists

    @property
    def all_analysers(self) -> tuple[Analyser, ...]:
        """All analysers, current and former."""
        return self._analyse.ever

    def set_analysers(self, analysers: Mapping[str, Sequence[Analyser]]) -> None:
        """Replace the analysers of the given sources, from their next frame on; the others stay.

        An analyser that is no longer in any list is closed; one that stays keeps its state.
        """
        self._analyse.change(analysers)

    def add_model(
        self,
        model: str,
        detector: Detector,
        on_failure: Callable[[EngineError], None] = _ignore,
        on_success: Callable[[], None] = lambda: None,
    ) -> None:
        """Load another model while the others keep running; sources assigned to it begin once it is loaded.

        Args:
            model: its name.
            detector: not yet open.
            on_failure: called on its thread if it cannot be loaded, after the error is logged; its sources end.
            on_success: called on its thread once it is loaded.

        Raises:
            ConfigError: the pipeline is not running, or has a model of this name.
        """
        self._check_running(f"model {model} cannot be added")
        add_model(
            self._stages, self._lanes, self._sources, model, detector, on_failure=on_failure, on_success=on_success
        )

    def remove_model(self, model: str) -> None:
        """Free a model that no source uses. Raises `ConfigError` if one does, or if it is the last model."""
        self._lanes.remove(model, set(self.running_sources))

    def exchange_detector(
        self,
        detector: Detector,
        on_failure: Callable[[EngineError], None] = _ignore,
        on_success: Callable[[], None] = lambda: None,
        *,
        model: str | None = None,
    ) -> None:
        """Switch to another detector between two batches; if it cannot be loaded, the current one stays.

        Args:
            detector: not yet open.
            on_failure: called on the detecting thread if it cannot be loaded, after the error is logged.
            on_success: called on the detecting thread once it is in use.
            model: name of the model to exchange; None: the default. The other models keep running.

        Raises:
            ConfigError: the pipeline is not running, or has no such model.
        """
        self._check_running("the model cannot be changed")
        name = self._lanes.default if model is None else model
        exchange_model(self._lanes, name, detector, on_failure=on_failure, on_success=on_success)

    def _check_running(self, what: str) -> None:
        if not self._stages.has_begun or self._lanes.have_ended or self.stopped:
            raise ConfigError(f"{what}: the pipeline is not running")

    def _wire(self) -> list[Stage[Any]]:
        """Return the stages, downstream first in each pair."""
        context = self._context
        second, analyse = self._second_stage, self._analyse
        track = TrackStage(self.tracker, self._detected, self._tracked, context, second_stage=second, analyse=analyse)
        captures = self._sources.begin()
        detecting = [stage for lane in self._lanes for stage in self._lanes.stages_of(lane)]
        consumers = [] if self._consumer is None else [self._consumer]
        outputs = output_stages(
            self.run_facts, self._shield.outbox, self.sinks, consumers, self._outlets.make, context=context
        )
        return [*outputs, *self._shield.stages(), track, *detecting, *captures]

    def _ending(self, source_id: str) -> SourceStatus:
        return self._sources.end_of(source_id)

    def _tell(self, status: SourceStatus) -> None:
        """Pass on a state through the tracking thread, where the analysers see it."""
        with suppress(ChannelClosedError):
            self._detected.put(status)

    def _wait_no_more(self) -> None:
        """Let outputs miss packets instead of blocking the pipeline: it has a camera, which cannot wait."""
        self._outlets.drop_oldest()
        self._lanes.keep_older(keep_older=self.options.predicts_in_between)

    def _ends_alone(self, stage: Stage[Any], error: BaseException) -> bool:
        """Return whether the other stages continue: after a failed source, or a failed output of a run with cameras."""
        if isinstance(stage, SinkStage):
            return stage.was_opened and not self._outlets.is_lossless and isinstance(error, SinkError)
        return isinstance(stage, CaptureStage) and isinstance(error, Exception)

    def _on_end(self) -> None:
        """Let the lanes end with the last source, unless more may be added."""
        if not self.options.keep_running and not self.running_sources:
            self._lanes.seal()

    def _on_over(self) -> None:
        if self._consumer is not None:
            self._consumer.close()

    def _abort(self) -> None:
        self.finish()
        self._start.set()
        for stats in list(self.stats.sources.values()):
            stats.has_ended.set()
        self._lanes.abort()
        self._sources.abort()
        self._detected.abort()
        self._shield.abort()
