"""Several models in one run: their names, which source uses which, and how a source moves to another model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from engine.data import DEFAULT_MODEL, Run, SourceStatus
from engine.errors import ConfigError, EngineError
from engine.flow.batcher import Batcher, Inlet
from engine.flow.channel import Arrivals, Channel
from engine.flow.detect import CollectStage, DetectorSwap, SubmitStage
from engine.flow.items import Detected
from engine.flow.lane import MAX_DEPTH, FlowContext, Lane, Start
from engine.flow.recovery import Recovery
from engine.protocols import Detector


class DetectorPool:
    """Named detectors of one pipeline, and which source uses which.

    Args:
        models: detectors by name, not yet open.
        of_source: name of the model of a source; sources that are not listed use `default`.
        default: the model of all other sources; None: the first of `models`.

    Raises:
        ConfigError: `models` is empty, or lacks a name that is used.
    """

    def __init__(
        self, models: Mapping[str, Detector], of_source: Mapping[str, str] | None = None, default: str | None = None
    ) -> None:
        if not models:
            raise ConfigError("a pipeline needs at least one model")
        self.models = dict(models)
        self.of_source = dict(of_source or {})
        self.default = next(iter(self.models)) if default is None else default
        for name in (self.default, *self.of_source.values()):
            _known(name, self.models)

    @classmethod
    def of(cls, detector: Detector | DetectorPool) -> DetectorPool:
        """Return the pool itself, or one with a single detector that all sources use."""
        return detector if isinstance(detector, DetectorPool) else cls({DEFAULT_MODEL: detector})


class Lanes:
    """The lanes of a running pipeline, one per model. All methods may be called from any thread.

    A source moves between lanes in order: the old lane releases it after its last frame was collected, and
    only then the new lane takes its frames. It does not move before the new model is loaded.

    Args:
        pool: the initial models.
        run: facts of the run; `model` and `class_names` are set for each lane.
        context: options, gates, counters, clock.
        outbox: receives the results of all lanes; closed when the last lane has ended.
        ending: returns the final status of a source that has ended.
        start: wakes the captures that wait for a model.
    """

    def __init__(
        self,
        pool: DetectorPool,
        run: Run,
        context: FlowContext,
        outbox: Channel[list[Detected] | SourceStatus],
        *,
        ending: Callable[[str], SourceStatus],
        start: Start,
    ) -> None:
        self.condition = Arrivals()
        self.default = pool.default
        self._run, self._context, self._outbox = run, context, outbox
        self._ending, self._start = ending, start
        self._lock = threading.RLock()
        self._wanted: dict[str, str] = dict(pool.of_source)
        self._at: dict[str, str] = {}
        self._moving: set[str] = set()
        self._lanes: dict[str, Lane] = {}
        self._submits: dict[str, SubmitStage] = {}
        self._former: list[Lane] = []
        self._open = 0
        self._keep_older = self._is_sealed = False
        for name, detector in pool.models.items():
            self._lanes[name] = self._lane(name, detector)

    def __iter__(self) -> Iterator[Lane]:
        with self._lock:
            return iter(list(self._lanes.values()))

    def __getitem__(self, model_id: str) -> Lane:
        """Return the lane of a model. Raises `ConfigError` if there is none."""
        with self._lock:
            return self._lanes[_known(model_id, self._lanes)]

    @property
    def former(self) -> list[Lane]:
        """The lanes of models that were removed."""
        with self._lock:
            return list(self._former)

    @property
    def have_ended(self) -> bool:
        """Whether every started lane has ended."""
        with self._lock:
            return not self._open

    def stages_of(
        self, lane: Lane, failed: Callable[[EngineError], None] | None = None, loaded: Callable[[], None] = lambda: None
    ) -> tuple[CollectStage, SubmitStage]:
        """Return the two stages of a lane; each must be started once.

        Args:
            lane: of this run.
            failed: called on the submitting thread if the model cannot be loaded; None: that ends the run.
            loaded: called on the submitting thread once it is loaded.
        """

        def on_loaded() -> None:
            self._start.look()
            for source_id in list(self._at):
                self._settle(source_id)
            loaded()

        with self._lock:
            self._open += 1
            collect = CollectStage(lane, self._outbox, self._context, ended=self._lane_ended)
            submit = SubmitStage(
                lane,
                self._context,
                ending=self._ending,
                wait_for_collector=collect.join,
                loaded=on_loaded,
                failed=None if failed is None else partial(self._give_up, lane, failed),
            )
            self._submits[lane.model_id] = submit
        return collect, submit

    def add(self, model_id: str, detector: Detector) -> Lane:
        """Return the lane of another model. Raises `ConfigError` if the name is taken or the run has ended."""
        with self._lock:
            if model_id in self._lanes:
                raise ConfigError(f"there is a model {model_id} already: remove it first, or choose another name")
            if not self._open or self._is_sealed:
                raise ConfigError(f"model {model_id} cannot be added: the run is ending")
            lane = self._lanes[model_id] = self._lane(model_id, detector)
        return lane

    def remove(self, model_id: str, sources: set[str]) -> None:
        """Free a model that none of the running `sources` uses. Raises `ConfigError` if one does."""
        with self._lock:
            lane = self[model_id]
            if len(self._lanes) == 1:
                raise ConfigError(f"model {model_id} is the only one: exchange it, or add another first")
            users = sorted(sources & self._sources_on(model_id))
            if users:
                raise ConfigError(f"model {model_id} is used by {', '.join(users)}: move or remove them first")
            self._former.append(self._lanes.pop(model_id))
            del self._submits[model_id]
            if self.default == model_id:
                self.default = next(iter(self._lanes))
        lane.batcher.seal()

    def exchange(self, model_id: str, swap: DetectorSwap) -> None:
        """Exchange the detector of a lane between two batches."""
        with self._lock:
            _known(model_id, self._submits)
            submit = self._submits[model_id]
        submit.exchange(swap)

    def place(self, source_id: str, model_id: str | None = None) -> Lane:
        """Return the lane of a starting source; None: its previous lane, or that of the default model."""
        with self._lock:
            wanted = model_id or self._wanted.get(source_id, self.default)
            lane = self[wanted]
            self._wanted[source_id] = self._at[source_id] = wanted
        return lane

    def move(self, source_id: str, model_id: str) -> None:
        """Move a source to another model once that is loaded. Raises `ConfigError` if there is no such model."""
        with self._lock:
            _known(model_id, self._lanes)
            self._wanted[source_id] = model_id
        self._settle(source_id)

    def lane_of(self, source_id: str) -> Lane | None:
        """Return the lane that the frames of a source go through now."""
        with self._lock:
            return self._lanes.get(self._at.get(source_id, ""))

    def model_of(self, source_id: str) -> str:
        """Return the name of the model whose lane processes, or last processed, the frames of a source."""
        with self._lock:
            return self._at.get(source_id) or self._wanted.get(source_id, self.default)

    def is_at(self, source_id: str, model_id: str) -> bool:
        """Return whether the frames of a source go through the lane of a model."""
        with self._lock:
            return self._at.get(source_id) == model_id

    def may_begin(self, source_id: str) -> bool:
        """Return whether the model of a source is loaded."""
        lane = self.lane_of(source_id)
        return lane is not None and lane.is_loaded

    def keep_older(self, *, keep_older: bool) -> None:
        """In all lanes, keep frames older than the newest for tracking."""
        self._keep_older = keep_older
        for lane in self:
            lane.batcher.change(keep_older=keep_older)

    def seal(self) -> None:
        """Accept no more sources: each lane ends with its last one."""
        with self._lock:
            self._is_sealed = True
        for lane in self:
            lane.batcher.seal()

    def abort(self) -> None:
        """End all lanes immediately."""
        for lane in self:
            lane.batcher.abort()
            lane.in_flight.abort()
            lane.slots.abort()

    def _lane(self, model_id: str, detector: Detector) -> Lane:
        context, options = self._context, self._context.options
        run = replace(self._run, model=detector.name, class_names=tuple(detector.class_names), model_id=model_id)
        batcher = Batcher(
            detector.max_batch,
            options.batch_wait_ms / 1e3,
            keep_older=self._keep_older,
            on_old=context.lose,
            clock=context.clock,
            condition=self.condition,
        )
        recovery = Recovery(context.options.on_inference_error, context.clock)
        return Lane(model_id, detector, run, batcher, Channel(MAX_DEPTH, on_drop=context.drop), recovery)

    def _sources_on(self, model_id: str) -> set[str]:
        """Return the sources that use a model or are moving to it."""
        places = (*self._at.items(), *self._wanted.items())
        return {source_id for source_id, name in places if name == model_id}

    def _settle(self, source_id: str) -> None:
        """Start moving a source to its wanted lane, unless it is there, already moving, or must wait."""
        with self._lock:
            at, wanted = self._at.get(source_id), self._wanted.get(source_id)
            if at is None or wanted is None or at == wanted or source_id in self._moving:
                return
            old, new = self._lanes.get(at), self._lanes[wanted]
            if old is None or not new.is_loaded:
                return
            self._moving.add(source_id)
            new.batcher.expect(source_id)
            if not old.batcher.release(source_id, lambda inlet: self._arrive(inlet, new)):  # it has ended
                new.batcher.forget(source_id)
                self._moving.discard(source_id)
                self._at[source_id] = wanted

    def _arrive(self, inlet: Inlet, lane: Lane) -> None:
        try:
            lane.batcher.add(inlet)
        except ConfigError:  # the run was aborted meanwhile
            inlet.channel.abort()
        with self._lock:
            self._moving.discard(inlet.source_id)
            self._at[inlet.source_id] = lane.model_id
        self._settle(inlet.source_id)

    def _give_up(self, lane: Lane, failed: Callable[[EngineError], None], error: EngineError) -> None:
        """Remove a lane whose model cannot be loaded; sources that were to move there stay in their lane."""
        with self._lock:
            self._lanes.pop(lane.model_id, None)
            self._submits.pop(lane.model_id, None)
            for source_id, at in self._at.items():
                if self._wanted.get(source_id) == lane.model_id != at:
                    self._wanted[source_id] = at
        failed(error)
        lane.batcher.seal()
        self._start.look()

    def _lane_ended(self) -> None:
        with self._lock:
            self._open -= 1
            is_last = not self._open
        if is_last:
            self._outbox.close()


def _known(model_id: str, models: Mapping[str, object]) -> str:
    if model_id not in models:
        raise ConfigError(f"there is no model {model_id}; expected one of: {', '.join(models)}")
    return model_id
