"""Small real implementations of the protocols, with behaviour that tests control."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.clock import SYSTEM_CLOCK
from engine.data import Detections, Frame, Packet, Run, SourceInfo, SourceStatus, Tracks
from engine.protocols import DetectorBase, SinkBase, SourceListener


class CountingSource:
    """A source of `count` small frames whose every pixel is `frame_id % 256`; live ones are paced by `gap_s`."""

    def __init__(
        self,
        source_id: str = "numbers",
        count: int = 10,
        *,
        is_live: bool = False,
        gap_s: float = 0.0,
        fails_at: int | None = None,
        error: Exception | None = None,
    ) -> None:
        self.info = SourceInfo(source_id, f"counting://{source_id}", is_live, 8, 8, 10.0, count)
        self._count, self._gap_s, self._fails_at, self._error = count, gap_s, fails_at, error
        self._interrupted = threading.Event()
        self._listener: SourceListener | None = None
        self.closed = False

    def attach(self, listener: SourceListener) -> None:
        self._listener = listener

    def __iter__(self) -> Iterator[Frame]:
        if self._listener is not None:
            self._listener.status(SourceStatus(self.info, "live"))
        try:
            for frame_id in range(self._count):
                if SYSTEM_CLOCK.wait(self._interrupted, self._gap_s):
                    return
                if frame_id == self._fails_at and self._error is not None:
                    raise self._error
                yield self.frame(frame_id)
        finally:
            self.closed = True

    def frame(self, frame_id: int) -> Frame:
        image = np.full((8, 8, 3), frame_id % 256, np.uint8)
        kind = "arrival" if self.info.is_live else "file"
        now = SYSTEM_CLOCK.monotonic_ns()
        return Frame(image, self.info.source_id, frame_id, now, SYSTEM_CLOCK.utc_ns(), frame_id * 100_000_000, kind)

    def interrupt(self) -> None:
        self._interrupted.set()


class PixelDetector(DetectorBase):
    """Finds one box per frame whose class is the value of the first pixel, which identifies the frame."""

    name = "pixel"
    class_names = tuple(f"value {n}" for n in range(256))

    def __init__(
        self, *, depth: int = 2, max_batch: int = 1, work_s: float = 0.0, error: Exception | None = None
    ) -> None:
        self.depth, self.max_batch = depth, max_batch
        self.work_s, self.error = work_s, error
        self.batches: list[list[tuple[str, int]]] = []
        self.events: list[str] = []
        self._never = threading.Event()

    def open(self) -> None:
        self.events.append(f"open on {threading.current_thread().name}")

    def close(self) -> None:
        self.events.append(f"close on {threading.current_thread().name}")

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        SYSTEM_CLOCK.wait(self._never, self.work_s)
        if self.error is not None:
            raise self.error
        self.batches.append([(frame.source_id, frame.frame_id) for frame in frames])
        return [Detections([[0, 0, 4, 4]], [0.9], [int(frame.image[0, 0, 0])]) for frame in frames]


class OneTracker:
    """Gives every detection the next id; stores the times it received."""

    def __init__(self) -> None:
        self.times_ns: list[int] = []

    def update(self, detections: Detections | None, captured_ns: int) -> Tracks:
        self.times_ns.append(captured_ns)
        if detections is None:
            return Tracks.empty()
        ids = np.arange(len(detections))
        return Tracks(detections.xyxy, detections.score, detections.class_id, ids, detection_index=ids)

    def reset(self) -> None:
        self.times_ns.clear()

    def clone(self) -> OneTracker:
        return OneTracker()


@dataclass
class ListSink(SinkBase):
    """Stores everything it receives; may be slow or fail."""

    name: str = "list"
    blocking: bool = True
    work_s: float = 0.0
    error: Exception | None = None
    packets: list[Packet] = field(default_factory=list)
    statuses: list[SourceStatus] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def open(self, run: Run) -> None:
        self.events.append("open")

    def write(self, packet: Packet) -> None:
        SYSTEM_CLOCK.wait(threading.Event(), self.work_s)
        if self.error is not None:
            raise self.error
        self.packets.append(packet)

    def status(self, status: SourceStatus) -> None:
        self.statuses.append(status)
        self.events.append(status.state)

    def close(self) -> None:
        self.events.append("close")
