"""Runs one model for many requests: they share batches, wait no longer than allowed, and each gets an answer."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.data import Detections, Frame
from engine.errors import EngineError, ModelError
from engine.flow.batcher import Batcher, Inlet
from engine.flow.channel import Channel, ChannelClosedError
from engine.protocols import Detector, PendingDetections
from pipelines.serving.refusals import BusyError, NotReadyError

logger = logging.getLogger(__name__)
MS_PER_NS = 1e-6
STOP_S = 10.0
FIRST_GUESS_MS = 50.0
SMOOTHING = 0.1


@dataclass(frozen=True, slots=True)
class Found:
    """A model's result on one image.

    Attributes:
        detections: the objects.
        frame: the image.
        wait_ms: how long it waited for its inference to begin.
        infer_ms: how long that took.
    """

    detections: Detections
    frame: Frame
    wait_ms: float
    infer_ms: float


class ModelWorker:
    """One model on its two threads: one submits batches, the other takes their results.

    Every request occupies one of `places` while it waits or runs; if none is free it is refused at once, which keeps
    the answers to others fast. A place is a source of the batcher that also batches cameras, so a batch is filled with
    whatever requests are waiting, and a request that waited longer than `max_wait_ms` is refused instead of run.
    `batches` counts inferences by their number of images.

    Args:
        detector: opened and closed here.
        name: of the model.
        places: maximum number of waiting and running requests.
        max_wait_ms: longest wait.
        batch_wait_s: how long a first image waits for others of its batch.
    """

    def __init__(
        self, detector: Detector, name: str, *, places: int, max_wait_ms: float, batch_wait_s: float = 0.002
    ) -> None:
        self.detector, self.name = detector, name
        self.opened: Future[None] = Future()
        self.done = self.refused = self.failed = 0
        self.batches: Counter[int] = Counter()
        self._places, self._max_wait_ms = places, max_wait_ms
        self._batcher = Batcher(detector.max_batch, batch_wait_s, on_old=self._too_old)
        self._channels: dict[str, Channel[Frame]] = {}
        self._free: deque[str] = deque()
        self._waiting: dict[str, Future[Found]] = {}
        self._lock = threading.Lock()
        self._depth = threading.Semaphore(1)
        self._in_flight: queue.SimpleQueue[tuple[list[Frame], PendingDetections, int] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._submit_all, name=f"serve-{name}", daemon=True)]
        self._ms_per_image = FIRST_GUESS_MS
        self._number = 0
        self._is_closed = False
        for place in map(str, range(places)):
            self._channels[place] = Channel(1, condition=self._batcher.condition)
            self._batcher.add(Inlet(place, self._channels[place], max_wait_ms))
            self._free.append(place)
        self._batcher.seal()

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded and runs."""
        return (
            self.opened.done() and not self.opened.cancelled() and not self.opened.exception() and not self._is_closed
        )

    @property
    def waiting(self) -> int:
        """How many requests wait or run."""
        return len(self._waiting)

    def start(self) -> None:
        """Load the model on another thread; `opened` reports completion, or the failure."""
        self._threads[0].start()

    def submit(self, image: NDArray[np.uint8]) -> Future[Found]:
        """Accept an image, (H, W, 3) uint8 BGR; never waits. The future gets the result, `BusyError` or `ModelError`.

        Raises:
            BusyError: no place is free.
            NotReadyError: the model is not loaded.
        """
        if not self.is_ready:
            raise NotReadyError(f"model {self.name} is not loaded yet: try again", retry_after_s=1.0)
        future: Future[Found] = Future()
        with self._lock:
            if not self._free:
                self.refused += 1
                raise BusyError(
                    f"{self._places} requests are waiting for {self.name}: try again", retry_after_s=self._backlog_s
                )
            place = self._free.popleft()
            self._waiting[place] = future
            self._number += 1
            number = self._number
        with suppress(ChannelClosedError):  # `close` answers then
            self._channels[place].put(Frame(image, place, number, time.monotonic_ns(), time.time_ns()))
        return future

    def close(self) -> None:
        """Finish running requests, refuse waiting ones, and free the model; harmless when repeated."""
        self._is_closed = True
        for channel in self._channels.values():
            channel.close()
        self._batcher.abort()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(STOP_S)
        for place in list(self._waiting):
            self._answer(place, NotReadyError("the server ends", retry_after_s=1.0))

    @property
    def _backlog_s(self) -> float:
        """How long the waiting requests take at the current rate."""
        return self._places * self._ms_per_image / 1000

    def _submit_all(self) -> None:
        try:
            self.detector.open()
        except BaseException as error:  # noqa: BLE001 - whoever waits for `opened` raises it
            self.opened.set_exception(error)
            return
        self._depth = threading.Semaphore(self.detector.depth)  # known once it is open
        collecting = threading.Thread(target=self._collect_all, name=f"serve-{self.name}-results", daemon=True)
        self._threads.append(collecting)
        collecting.start()
        self.opened.set_result(None)
        with suppress(ChannelClosedError):
            while True:
                self._depth.acquire()
                self._submit(self._batcher.get().frames)
        self._in_flight.put(None)
        collecting.join(STOP_S)
        self.detector.close()

    def _submit(self, frames: list[Frame]) -> None:
        if not frames:
            self._depth.release()
            return
        try:
            began_ns = time.monotonic_ns()
            self._in_flight.put((frames, self.detector.submit(frames), began_ns))
        except Exception as error:  # noqa: BLE001 - a detector may raise anything, and each request gets an answer
            self._depth.release()
            self._fail(frames, error)

    def _collect_all(self) -> None:
        while (item := self._in_flight.get()) is not None:
            frames, pending, began_ns = item
            try:
                found = pending.result()
            except Exception as error:  # noqa: BLE001 - a detector may raise anything, and each request gets an answer
                self._fail(frames, error)
            else:
                self._tell(frames, found, began_ns)
            finally:
                self._depth.release()

    def _tell(self, frames: list[Frame], found: list[Detections], began_ns: int) -> None:
        infer_ms = (time.monotonic_ns() - began_ns) * MS_PER_NS
        self.batches[len(frames)] += 1
        self._ms_per_image += SMOOTHING * (infer_ms / len(frames) - self._ms_per_image)
        for frame, detections in zip(frames, found, strict=True):
            waited_ms = (began_ns - frame.captured_ns) * MS_PER_NS
            self._answer(frame.source_id, Found(detections, frame, waited_ms, infer_ms))

    def _fail(self, frames: list[Frame], error: Exception) -> None:
        logger.error("%s: %s", self.name, error)
        failure = error if isinstance(error, EngineError) else ModelError(f"{type(error).__name__}: {error}")
        for frame in frames:
            self._answer(frame.source_id, failure)

    def _too_old(self, frame: Frame, cause: str) -> None:
        reason = f"the request waited longer than {self._max_wait_ms:g} ms for {self.name}: try again"
        self._answer(frame.source_id, BusyError(reason, retry_after_s=self._backlog_s))

    def _answer(self, place: str, result: Found | Exception) -> None:
        """Answer the request in a place, and free the place."""
        with self._lock:
            future = self._waiting.pop(place, None)
            if future is None:
                return
            self._free.append(place)
            self.done += isinstance(result, Found)
            self.refused += isinstance(result, BusyError)
            self.failed += isinstance(result, Exception) and not isinstance(result, BusyError)
        with suppress(InvalidStateError):  # the client no longer wants the result
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
