"""Start and collect detections.

These are two threads so that several inferences are in flight while frames are letterboxed and results decoded.
`SubmitStage` first waits for a free slot and only then takes the freshest frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from engine.clock import NS_PER_MS
from engine.data import DEFAULT_MODEL, Detections, Frame, Run, SourceStatus
from engine.errors import EngineError, LostInferenceError, ModelError
from engine.flow.attention.attention import Attention, DetectsInWindows
from engine.flow.attention.gate import NO_RULES
from engine.flow.attention.known import Found
from engine.flow.attention.planner import Plan
from engine.flow.batcher import Batch
from engine.flow.channel import Channel, ChannelClosedError
from engine.flow.defaults import is_prepared
from engine.flow.items import Detected, HandOver, InFlight
from engine.flow.lane import FlowContext, Lane
from engine.flow.recovery import CAUSE, FallsBack, Step
from engine.flow.stage import Stage
from engine.protocols import Detector

logger = logging.getLogger(__name__)
_DOING: Mapping[Step, str] = {
    "restart": "loading the model again",
    "fall back": "continuing on another backend",
    "stop": "nothing helped: ending the run",
}


@dataclass(frozen=True, slots=True)
class DetectorSwap:
    """Another model for a running pipeline.

    Attributes:
        detector: not yet open.
        run: its facts.
        done: called once it is in use.
        failed: called if it cannot be loaded.
    """

    detector: Detector
    run: Run
    done: Callable[[], None]
    failed: Callable[[EngineError], None]


class SubmitStage(Stage[InFlight]):
    """Owns the detector of a lane: when a slot is free, takes the freshest frames and starts their detection.

    Args:
        lane: the model, and the channels before and after it.
        context: options, gates, counters, clock.
        ending: returns the final status of a source that has ended.
        wait_for_collector: waits until all results in flight have been taken.
        loaded: called once the model is loaded.
        failed: called if it cannot be loaded; None raises the error, which ends the run.
    """

    def __init__(
        self,
        lane: Lane,
        context: FlowContext,
        *,
        ending: Callable[[str], SourceStatus],
        wait_for_collector: Callable[[], object],
        loaded: Callable[[], None],
        failed: Callable[[EngineError], None] | None = None,
    ) -> None:
        super().__init__(stage_name("detect", lane.model_id))
        self._lane = lane
        self._context = context
        self._clock = context.clock
        self._next: DetectorSwap | None = None
        self._ending = ending
        self._wait_for_collector = wait_for_collector
        self._loaded = loaded
        self._failed = failed
        every = context.options.detect_every
        self._attention = Attention(context.rules, context.pace, context.watches, 1 if every == "auto" else every)
        self._last_wh: tuple[int, int] | None = None

    def exchange(self, swap: DetectorSwap) -> None:
        """Switch to another model between two batches; callable from any thread.

        If it cannot be loaded, the error is logged and the current model stays in use.
        """
        self._next = swap
        self._lane.batcher.nudge()

    def open(self) -> None:
        """Load the model and offer its slots."""
        if self._failed is None:
            self._lane.detector.open()
        else:
            error = _open(self._lane.detector)
            if error is not None:
                logger.error("model %s cannot be loaded: %s", self._lane.model_id, error)
                self._failed(error)
                return
        self._lane.is_loaded = True
        self._offer_slots()
        self._loaded()

    def inbox(self) -> Iterator[InFlight]:
        """Yield each submission as soon as a slot and then a frame is available."""
        while self._lane.is_loaded:
            if self._next is not None and is_prepared(self._next.detector):
                self._go_over(self._next)
            if self._lane.recovery.error is not None:
                self._recover(held_slots=0)
            self._lane.slots.get()
            batch = self._lane.batcher.get()
            if self._lane.recovery.error is not None:
                self._recover_with(batch)
            yield from self._look(batch)
            self._pass_on_news(batch)
        while True:  # the model could not be loaded: only the ends of its sources remain to be sent
            batch = self._lane.batcher.get()
            self._lose([*batch.older, *batch.frames])
            self._pass_on_news(batch)

    def _pass_on_news(self, batch: Batch) -> None:
        """Send each source's end, or its move to another model, after its last frame."""
        for source_id in batch.ended:
            self._attention.forget(source_id)
            self._lane.in_flight.put(self._ending(source_id))
        for inlet, arrive in batch.released:
            self._attention.forget(inlet.source_id)
            self._lane.in_flight.put(HandOver(partial(arrive, inlet)))

    def _look(self, batch: Batch) -> Iterator[InFlight]:
        """Yield the frames of a batch according to their plans; its slot is used or returned."""
        due, held, only_tracked = list[Frame](), list[Frame](), list(batch.older)
        watched: list[tuple[list[Frame], Plan | None]] = []
        for frame in batch.frames:
            plan, is_watched = self._attention.plan(frame, self._lane.detector)
            if is_watched and plan.action in ("whole", "windows"):
                watched.append(([frame], plan))
            else:
                {"whole": due, "held": held}.get(plan.action, only_tracked).append(frame)
        looks = [*watched, (due, None)] if due else watched
        self._attention.looked(frame for frames, _ in looks for frame in frames)
        for frames, is_held in ((only_tracked, False), (held, True)):
            if frames:
                yield InFlight(frames, None, self._clock.monotonic_ns(), self._lane.run, is_held)
        if not looks:
            self._lane.slots.put(None)
        for number, (frames, look) in enumerate(looks):
            if number:
                self._take_slot([frame for frames, _ in looks[number:] for frame in frames])
            yield from self._submit(frames, look)

    def _take_slot(self, waiting: Sequence[Frame]) -> None:
        """Wait for another slot for the frames of a batch that are still to be submitted."""
        try:
            self._lane.slots.get()
        except BaseException:
            self._lose(waiting)
            raise

    def work(self, item: InFlight) -> None:
        """Pass the submission on to the collecting thread."""
        try:
            self._lane.in_flight.put(item)
        except ChannelClosedError:
            self._lose(item.frames)
            raise

    def close(self) -> None:
        """Free the model, after the results in flight have been collected."""
        self._lane.in_flight.close()
        self._wait_for_collector()
        self._lane.detector.close()

    def _submit(self, frames: Sequence[Frame], look: Plan | None) -> Iterator[InFlight]:
        """Yield the submission, or nothing if it failed and the run continues.

        Args:
            frames: one if there is a `look`.
            look: where to detect on it; None: on all frames as a whole.
        """
        item = InFlight(frames, None, self._clock.monotonic_ns(), self._lane.run)
        self._last_wh = frames[0].width, frames[0].height
        detector = self._lane.detector
        try:
            if look is not None and isinstance(detector, DetectsInWindows):
                item.looks = detector.submit_windows(frames[0], look.windows or None)
            else:
                item.pending = detector.submit(frames)
        except ModelError as error:
            goes_on = self._lane.recovery.note(error)
            self._lose(frames, CAUSE if goes_on else "shutdown")
            if not goes_on:
                raise
            self._lane.slots.put(None)
            return
        except BaseException:
            self._lose(frames)
            raise
        yield item

    def _recover_with(self, batch: Batch) -> None:
        """Recover while frames wait to be submitted, with their slot taken."""
        try:
            self._recover(held_slots=1)
        except BaseException:
            self._lose([*batch.older, *batch.frames])
            raise

    def _recover(self, held_slots: int) -> None:
        """Wait for inferences in flight, then reload the model or switch its backend; raise if both fail.

        Args:
            held_slots: slots that this thread has taken and still holds.
        """
        lane, recovery = self._lane, self._lane.recovery
        for _ in range(lane.detector.depth - held_slots):
            lane.slots.get()
        first = recovery.error
        while recovery.error is not None:
            step = recovery.next_step()
            logger.error("inference of %s failed: %s: %s", lane.run.model, first, _DOING[step])
            with suppress(Exception):
                lane.detector.close()
            may_open = step == "restart" or (
                step == "fall back" and isinstance(lane.detector, FallsBack) and lane.detector.fall_back()
            )
            if may_open and _open(lane.detector) is None:
                recovery.done()
            elif step == "stop":
                raise first or recovery.error
        for _ in range(lane.detector.depth - held_slots):
            lane.slots.put(None)

    def _go_over(self, swap: DetectorSwap) -> None:
        """Load the new model, wait for all results of the old one, and free it."""
        self._next = None
        lane, detector = self._lane, swap.detector
        error = _open(detector, try_on_wh=self._last_wh)
        if error is not None:
            logger.error("the model stays %s: %s", lane.run.model, error)
            swap.failed(error)
            return
        try:
            for _ in range(lane.detector.depth):
                lane.slots.get()
        except ChannelClosedError:  # the run is ending
            detector.close()
            raise
        lane.detector.close()
        lane.detector, lane.run = detector, swap.run
        self._attention.forget_all()
        lane.batcher.change(max_batch=detector.max_batch)
        self._offer_slots()
        swap.done()

    def _offer_slots(self) -> None:
        for _ in range(self._lane.detector.depth):
            self._lane.slots.put(None)

    def _lose(self, frames: Sequence[Frame], cause: str = "shutdown") -> None:
        for frame in frames:
            self._context.lose(frame, cause)


class CollectStage(Stage["InFlight | SourceStatus | HandOver"]):
    """Waits for each detection in order of submission and passes on the frames of one inference together."""

    def __init__(
        self,
        lane: Lane,
        outbox: Channel[list[Detected] | SourceStatus],
        context: FlowContext,
        *,
        ended: Callable[[], None],
    ) -> None:
        super().__init__(stage_name("collect", lane.model_id))
        self._lane = lane
        self._outbox = outbox
        self._context = context
        self._ended = ended

    def inbox(self) -> Iterable[InFlight | SourceStatus | HandOver]:
        """Yield submissions, and the ends and departures of sources, in order."""
        return self._lane.in_flight

    def work(self, item: InFlight | SourceStatus | HandOver) -> None:
        """Wait for the result, free the slot and pass the frames on."""
        if isinstance(item, HandOver):
            item.arrive()
            return
        if isinstance(item, SourceStatus):
            self._outbox.put(item)
            return
        try:
            self._outbox.put(self._detected(item))
        except LostInferenceError as error:
            self._lose(item, error.cause)
            self._give_back_slot()
        except ModelError as error:
            goes_on = self._lane.recovery.note(error)
            self._lose(item, CAUSE if goes_on else "shutdown")
            if not goes_on:
                raise
            self._give_back_slot()
            self._lane.batcher.nudge()
        except BaseException:
            self._lose(item, "shutdown")
            raise

    def _lose(self, item: InFlight, cause: str) -> None:
        for frame in item.frames:
            self._context.lose(frame, cause)

    def _detected(self, item: InFlight) -> list[Detected]:
        results = self._results(item)
        looks = item.looks or item.pending
        spent = {} if looks is None else looks.stage_ms
        return [
            Detected(frame, found, item.run, {"queue": _queue_ms(item, frame), **spent}, item.is_held)
            for frame, found in zip(item.frames, results, strict=True)
        ]

    def _results(self, item: InFlight) -> Sequence[Detections | None]:
        found: Sequence[Detections | None]
        if item.looks is not None:
            found = [self._merged(item.frames[0], item.looks.result(), item.run.class_names)]
        elif item.pending is not None:
            found = item.pending.result()
        else:
            return [None] * len(item.frames)
        self._context.stats.model(item.run.model_id).add_inference(len(item.frames))
        self._give_back_slot()
        return found

    def _merged(self, frame: Frame, looks: Sequence[Found], class_names: Sequence[str]) -> Detections:
        """Return all boxes of a source with `windows`."""
        rule = self._context.rules.get(frame.source_id, NO_RULES)
        return self._context.watches.merge(frame, looks, lambda found: rule.keep(found, class_names))

    def _give_back_slot(self) -> None:
        with suppress(ChannelClosedError):
            self._lane.slots.put(None)

    def close(self) -> None:
        """Notify the submitting stage that collection has stopped, and the pipeline that this lane has ended."""
        self._lane.slots.close()
        self._ended()


def stage_name(what: str, model_id: str) -> str:
    """Return the name of a lane's stage; it omits the name of the default model."""
    return what if model_id == DEFAULT_MODEL else f"{what} {model_id}"


def _queue_ms(item: InFlight, frame: Frame) -> float:
    """Return how long a frame waited from its capture to its submission."""
    return (item.submitted_ns - frame.captured_ns) / NS_PER_MS


def _open(detector: Detector, try_on_wh: tuple[int, int] | None = None) -> EngineError | None:
    """Load a model; on failure close it again and return the error, because the run must continue.

    Args:
        detector: not yet open.
        try_on_wh: size of a black frame to detect on, so that a model whose outputs differ from those its file declares
            is rejected here, before it replaces a working one; None: no trial.
    """
    try:
        detector.open()
        if try_on_wh is not None:
            width, height = try_on_wh
            detector.detect([Frame(np.zeros((height, width, 3), np.uint8))])
    except Exception as failure:  # noqa: BLE001
        error = failure if isinstance(failure, EngineError) else _as_model_error(detector, failure)
        with suppress(Exception):
            detector.close()
        return error
    return None


def _as_model_error(detector: Detector, failure: Exception) -> ModelError:
    error = ModelError(f"{detector.name} does not load ({type(failure).__name__}: {failure})")
    error.__cause__ = failure
    return error
