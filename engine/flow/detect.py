"""Starting and collecting detections.

These are two threads so that several inferences are in flight while frames are letterboxed and results decoded.
`SubmitStage` first waits for a free slot and only then takes the freshest frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from engine.clock import NS_PER_MS, Clock
from engine.data import Detections, Frame, Run, SourceStatus
from engine.errors import EngineError, ModelError
from engine.flow.batcher import Batcher
from engine.flow.channel import Channel, ChannelClosedError
from engine.flow.gate import NO_RULES, FrameGate
from engine.flow.items import Detected, InFlight, scene_ns
from engine.flow.stage import Stage
from engine.protocols import Detector

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DetectorSwap:
    """Another model for a running pipeline.

    Attributes:
        detector: not yet open.
        run: its facts.
        done: called once it is in use.
        failed: called where it cannot be loaded.
    """

    detector: Detector
    run: Run
    done: Callable[[], None]
    failed: Callable[[EngineError], None]


class SubmitStage(Stage[InFlight]):
    """Owns the detector: takes the freshest frames when a slot is free, and starts their detection."""

    def __init__(
        self,
        detector: Detector,
        run: Run,
        batcher: Batcher,
        outbox: Channel[InFlight | SourceStatus],
        *,
        slots: Channel[None],
        ending: Callable[[str], SourceStatus],
        on_lost: Callable[[Frame, str], None],
        wait_for_collector: Callable[[], object],
        ready: Callable[[], None],
        detect_every: int,
        rules: Mapping[str, FrameGate],
        clock: Clock,
    ) -> None:
        super().__init__("detect")
        self._detector = detector
        self._run_facts = run
        self._next: DetectorSwap | None = None
        self._batcher = batcher
        self._outbox = outbox
        self._slots = slots
        self._ending = ending
        self._on_lost = on_lost
        self._wait_for_collector = wait_for_collector
        self._ready = ready
        self._detect_every = detect_every
        self._rules = rules
        self._waited: dict[str, int] = {}
        self._clock = clock

    def exchange(self, exchange: DetectorSwap) -> None:
        """Go over to another model between two batches; from any thread.

        If it cannot be loaded, the error is logged and the model in use goes on.
        """
        self._next = exchange

    def open(self) -> None:
        """Load the model and offer its slots."""
        self._detector.open()
        self._ready()
        self._offer_slots()

    def inbox(self) -> Iterator[InFlight]:
        """Yield submissions, each as soon as there is a slot and then a frame."""
        while True:
            if self._next is not None:
                self._go_over(self._next)
            self._slots.get()
            batch = self._batcher.get()
            due: list[Frame] = []
            held: list[Frame] = []
            only_tracked = list(batch.older)
            for frame in batch.frames:
                (only_tracked if not self._is_due(frame) else held if self._is_still(frame) else due).append(frame)
            for frames, is_held in ((only_tracked, False), (held, True)):
                if frames:
                    yield InFlight(frames, None, self._clock.monotonic_ns(), self._run_facts, is_held)
            if due:
                self._waited.update({frame.source_id: 0 for frame in due})
                yield self._submit(due)
            else:
                self._slots.put(None)
            for source_id in batch.ended:
                self._forget(source_id)
                self._outbox.put(self._ending(source_id))

    def _is_still(self, frame: Frame) -> bool:
        """Return whether the source's motion gate saw nothing move; if not, the frame must be detected on."""
        gate = self._rules.get(frame.source_id, NO_RULES).motion_gate
        return gate is not None and not gate.is_due(frame.image, scene_ns(frame))

    def _is_due(self, frame: Frame) -> bool:
        """Return whether the detector may run on a frame: on the first, and from the n-th after a detection."""
        waited = self._waited.get(frame.source_id, self._detect_every - 1) + 1
        self._waited[frame.source_id] = waited
        return waited >= self._detect_every

    def _forget(self, source_id: str) -> None:
        """Detect on the source's next frame, whatever it shows."""
        self._waited.pop(source_id, None)
        gate = self._rules.get(source_id, NO_RULES).motion_gate
        if gate is not None:
            gate.reset()

    def work(self, item: InFlight) -> None:
        """Pass the submission on to the collecting thread."""
        try:
            self._outbox.put(item)
        except ChannelClosedError:
            self._lose(item.frames)
            raise

    def close(self) -> None:
        """Free the model, after the results in flight have been collected."""
        self._outbox.close()
        self._wait_for_collector()
        self._detector.close()

    def _submit(self, frames: Sequence[Frame]) -> InFlight:
        submitted_ns = self._clock.monotonic_ns()
        try:
            return InFlight(frames, self._detector.submit(frames), submitted_ns, self._run_facts)
        except BaseException:
            self._lose(frames)
            raise

    def _go_over(self, exchange: DetectorSwap) -> None:
        """Load the new model, wait for all results of the old one, and free it."""
        self._next = None
        detector = exchange.detector
        try:
            detector.open()
        except Exception as failure:  # noqa: BLE001  # a model that does not load must not end the run that works
            error = failure if isinstance(failure, EngineError) else _as_model_error(detector, failure)
            logger.error("the model stays %s: %s", self._run_facts.model, error)
            with suppress(Exception):
                detector.close()
            exchange.failed(error)
            return
        try:
            for _ in range(self._detector.depth):
                self._slots.get()
        except ChannelClosedError:  # the run ends meanwhile
            detector.close()
            raise
        self._detector.close()
        self._detector, self._run_facts = detector, exchange.run
        for source_id in (*self._waited, *self._rules):
            self._forget(source_id)
        self._batcher.max_batch = detector.max_batch
        self._offer_slots()
        exchange.done()

    def _offer_slots(self) -> None:
        for _ in range(self._detector.depth):
            self._slots.put(None)

    def _lose(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._on_lost(frame, "shutdown")


class CollectStage(Stage["InFlight | SourceStatus"]):
    """Waits for each detection in order of submission and hands on the frames of one inference together."""

    def __init__(
        self,
        inbox: Channel[InFlight | SourceStatus],
        outbox: Channel[list[Detected] | SourceStatus],
        *,
        slots: Channel[None],
        on_lost: Callable[[Frame, str], None],
    ) -> None:
        super().__init__("collect")
        self._inbox = inbox
        self._outbox = outbox
        self._slots = slots
        self._on_lost = on_lost

    def inbox(self) -> Iterable[InFlight | SourceStatus]:
        """Yield submissions and ends of sources in order."""
        return self._inbox

    def work(self, item: InFlight | SourceStatus) -> None:
        """Wait for the result, free the slot, hand on."""
        if isinstance(item, SourceStatus):
            self._outbox.put(item)
            return
        try:
            self._outbox.put(self._detected(item))
        except BaseException:
            for frame in item.frames:
                self._on_lost(frame, "shutdown")
            raise

    def _detected(self, item: InFlight) -> list[Detected]:
        results = self._results(item)
        spent = {} if item.pending is None else item.pending.stage_ms
        return [
            Detected(frame, found, item.run, {"queue": _queue_ms(item, frame), **spent}, item.is_held)
            for frame, found in zip(item.frames, results, strict=True)
        ]

    def _results(self, item: InFlight) -> Sequence[Detections | None]:
        if item.pending is None:
            return [None] * len(item.frames)
        found = item.pending.result()
        with suppress(ChannelClosedError):
            self._slots.put(None)
        return found

    def close(self) -> None:
        """Tell the tracking stage that nothing more comes, and the submitting stage that nobody collects."""
        self._slots.close()
        self._outbox.close()


def _queue_ms(item: InFlight, frame: Frame) -> float:
    """Return how long a frame waited from its capture to its submission."""
    return (item.submitted_ns - frame.captured_ns) / NS_PER_MS


def _as_model_error(detector: Detector, failure: Exception) -> ModelError:
    error = ModelError(f"{detector.name} does not load ({type(failure).__name__}: {failure})")
    error.__cause__ = failure
    return error
