"""Changes to a running pipeline: add, remove, pause and move sources; add, remove and exchange models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from engine.data import Frame, SourceStatus
from engine.errors import ConfigError, EngineError
from engine.flow.batcher import Inlet
from engine.flow.capture import CaptureStage
from engine.flow.channel import Channel
from engine.flow.detect import DetectorSwap
from engine.flow.lane import FlowContext, Start
from engine.flow.pool import Lanes
from engine.flow.stage import RunningStages
from engine.latch import Latch
from engine.protocols import Detector, Source

LAST_FRAMES_S = 3.0  # maximum time for the last frames of a removed source to reach the end of the pipeline


class RunningSources:
    """The sources of a pipeline, each read by its own thread.

    Args:
        sources: the initial sources.
        context: options, counters, clock.
        lanes: where their frames go.
        start: makes captures wait for their model.
        tell: passes on the states of sources.
        cannot_wait: called for each source that cannot wait for slow outputs.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        context: FlowContext,
        lanes: Lanes,
        *,
        start: Start,
        tell: Callable[[SourceStatus], None],
        cannot_wait: Callable[[], None],
    ) -> None:
        self.sources = list(sources)
        self._context, self._lanes = context, lanes
        self._start, self._tell, self._cannot_wait = start, tell, cannot_wait
        self._captures: dict[str, CaptureStage] = {}
        self._channels: list[Channel[Frame]] = []

    def begin(self) -> list[CaptureStage]:
        """Return the stages that read the sources; each must be started once."""
        return [self._capture(source, None) for source in self.sources]

    def end_of(self, source_id: str) -> SourceStatus:
        """Return the status that follows the last frame of a source."""
        return self._captures[source_id].end()

    def add(self, stages: RunningStages, source: Source, model: str | None, wait_s: float, is_over: Latch) -> None:
        """Add a source. Raises as `Pipeline.add_source`."""
        source_id = source.info.source_id
        stats = self._context.stats.source(source_id)
        former = self._captures.get(source_id)
        if former is not None and not stages.is_running(former):
            stats.wait_for_end(wait_s, is_over)
        with stages.lock:
            if stages.is_running(former) and former is not None and former.is_removed:
                raise ConfigError(f"source {source_id} was removed and has not ended yet: try again later")
            if stages.is_running(former):
                raise ConfigError(f"there is a source {source_id} already: remove it first, or choose another name")
            if former is not None and not stats.has_ended.is_set():
                raise ConfigError(f"source {source_id} cannot be added: frames of the previous one are still waiting")
            self._channels = [channel for channel in self._channels if not (channel.closed and not len(channel))]
            stage = self._capture(source, model)
            self.sources = [s for s in self.sources if s.info.source_id != source_id] + [source]
            stages.start([stage])

    def remove(self, stages: RunningStages, source_id: str, timeout_s: float) -> None:
        """End a source. Raises as `Pipeline.remove_source`."""
        stage = self.running(stages, source_id)
        stage.remove()
        if not stage.join(timeout_s):
            raise ConfigError(f"source {source_id} is still inside a native call after {timeout_s} s: abandoned")

    def give_up(self, model_id: str, stages: RunningStages) -> None:
        """End the sources that are waiting for a model that cannot be loaded."""
        for stage in stages.of_kind(CaptureStage):
            if self._lanes.is_at(stage.source.info.source_id, model_id):
                stage.remove(f"failed: model {model_id} cannot be loaded")

    def running(self, stages: RunningStages, source_id: str) -> CaptureStage:
        """Return the stage of a source that has not ended. Raises `ConfigError` if there is none."""
        names = self.names(stages)
        if source_id not in names:
            raise ConfigError(f"there is no source {source_id}; expected one of: {', '.join(names) or 'none'}")
        return self._captures[source_id]

    def names(self, stages: RunningStages) -> list[str]:
        """Return the names of the sources that have not ended."""
        return [stage.source.info.source_id for stage in stages.of_kind(CaptureStage)]

    def interrupt(self) -> None:
        """Make every source end soon."""
        for source in list(self.sources):
            source.interrupt()

    def abort(self) -> None:
        """Drop all waiting frames."""
        for channel in list(self._channels):
            channel.abort()

    def _capture(self, source: Source, model: str | None) -> CaptureStage:
        context, info = self._context, source.info
        source_id, options = info.source_id, context.options
        lane = self._lanes.place(source_id, model)
        context.stats.source(source_id).begin()
        if info.is_live and options.overflow != "block":
            self._cannot_wait()
        capacity, overflow = options.queue(is_live=info.is_live)
        channel = Channel[Frame](capacity, overflow, on_drop=context.lose, condition=self._lanes.condition)
        max_age_ms = options.max_age_ms if info.is_live else None
        lane.batcher.add(Inlet(source_id, channel, max_age_ms, info.is_live))
        self._channels.append(channel)
        stage = CaptureStage(
            source,
            channel,
            context,
            tell=self._tell,
            may_begin=lambda: self._lanes.may_begin(source_id),
            start=self._start,
        )
        self._captures[source_id] = stage
        return stage


Failed = Callable[[EngineError], None]
Succeeded = Callable[[], None]


def add_model(
    stages: RunningStages,
    lanes: Lanes,
    sources: RunningSources,
    model_id: str,
    detector: Detector,
    *,
    on_failure: Failed,
    on_success: Succeeded,
) -> None:
    """Load another model in addition to those in use; see `Pipeline.add_model`."""

    def failed(error: EngineError) -> None:
        sources.give_up(model_id, stages)
        on_failure(error)

    lane = lanes.add(model_id, detector)
    stages.start(lanes.stages_of(lane, failed, on_success))


def exchange_model(
    lanes: Lanes, model_id: str, detector: Detector, *, on_failure: Failed, on_success: Succeeded
) -> None:
    """Switch to another detector under the same name; see `Pipeline.exchange_detector`."""
    run = replace(lanes[model_id].run, model=detector.name, class_names=tuple(detector.class_names))
    lanes.exchange(model_id, DetectorSwap(detector, run, on_success, on_failure))
