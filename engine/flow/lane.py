"""State that stages share: one context per pipeline, and one lane per model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.clock import Clock
from engine.data import Frame, Packet, Run, SourceStatus
from engine.flow.attention.gate import FrameGate
from engine.flow.attention.pace import Pace
from engine.flow.attention.watch import Watches
from engine.flow.batcher import Batcher
from engine.flow.channel import Channel
from engine.flow.items import Detected, HandOver, InFlight, frames_of
from engine.flow.options import PipelineOptions
from engine.flow.recovery import Recovery
from engine.leases import Leases
from engine.protocols import Detector
from engine.stats import PipelineStats

MAX_DEPTH = 256


@dataclass(frozen=True, slots=True)
class FlowContext:
    """Options, gates, counters and clock of a pipeline.

    Attributes:
        options: how frames are queued and bounded.
        rules: gate by source; changes while running.
        stats: counters.
        clock: time.
        leases: which sources may be published, and under which epoch.
        pace: how often the detector must run on sources with `detect_hz: auto`.
        watches: where the detector must run on sources with `windows`.
    """

    options: PipelineOptions
    rules: Mapping[str, FrameGate]
    stats: PipelineStats
    clock: Clock
    leases: Leases = field(default_factory=Leases)
    pace: Pace = field(default_factory=Pace)
    watches: Watches = field(default_factory=Watches)

    def lose(self, frame: Frame, cause: str) -> None:
        """Count a lost frame."""
        self.watches.lost(frame)
        self.stats.source(frame.source_id).add_dropped(cause)

    def drop(
        self, item: InFlight | list[Detected] | list[Packet] | Packet | SourceStatus | HandOver, cause: str
    ) -> None:
        """Count the frames of an item that was dropped between two stages."""
        for frame in frames_of(item):
            self.lose(frame, cause)


@dataclass(slots=True, eq=False)
class Lane:
    """One model of a run, with its own batcher, slots and inferences in flight.

    Attributes:
        model_id: name of the model in the configuration.
        detector: in use; the submitting thread replaces it.
        run: facts of the run with this model; replaced together with the detector.
        batcher: frames of the sources that use the model.
        in_flight: channel from the submitting to the collecting stage.
        slots: one item for each inference that may begin; filled once the model is loaded.
        is_loaded: whether the model is loaded.
        recovery: decides what follows a failed inference.
    """

    model_id: str
    detector: Detector
    run: Run
    batcher: Batcher
    in_flight: Channel[InFlight | SourceStatus | HandOver]
    recovery: Recovery
    slots: Channel[None] = field(default_factory=lambda: Channel(MAX_DEPTH))
    is_loaded: bool = False


class Start:
    """Lets captures begin once their source's model is loaded; a source removed earlier stops waiting."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_over = False

    def set(self) -> None:
        """Release all waiting captures, even if their model is not loaded."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def look(self) -> None:
        """Wake all waiters so that they re-check their condition."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, may_begin: Callable[[], bool]) -> None:
        """Wait until `may_begin()` is true, checked after each `look`, or until `set` is called."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or may_begin())
