"""Serves a model's own tensors, as clients of the Open Inference Protocol request them."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Backend, Pending
from engine.clock import SYSTEM_CLOCK
from engine.data import Frame
from engine.errors import EngineError, ModelError
from engine.flow.batcher import Batcher, Inlet
from engine.flow.channel import Channel, ChannelClosedError
from pipelines.serving.refusals import BusyError, NotReadyError
from pipelines.serving.tensor_batches import Feeds, is_batch, kind_of, merged, rows_of

logger = logging.getLogger(__name__)
STOP_S = 10.0
BATCH_WAIT_S = 0.002
Outputs = dict[str, NDArray[Any]]
_NO_IMAGE = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class _Request:
    """One request: its inputs, and the destination of its outputs."""

    feeds: Feeds
    future: Future[Outputs]


class RawModel:
    """Runs a backend on the tensors of requests, on two threads: one submits, the other takes results.

    The model is loaded when the first request for its tensors arrives, because most servers never get one. As with
        images, a request occupies one of `places`, which are the sources of a batcher: requests with the same shapes
        share an inference if the model computes each row independently, and those that waited longer than `max_wait_ms`
        are refused.

    Args:
        backend: without an image input, so that it takes the model's own tensors.
        name: of the model.
        places: maximum number of waiting and running requests.
        max_batch: rows of one inference.
        max_wait_ms: longest wait; None: unlimited.
    """

    def __init__(
        self, backend: Backend, name: str, places: int, *, max_batch: int = 1, max_wait_ms: float | None = None
    ) -> None:
        self._backend, self.name = backend, name
        self._max_batch, self._max_wait_ms = max_batch, max_wait_ms
        self._batcher = Batcher(1, BATCH_WAIT_S, on_old=self._too_old)
        self._channels: dict[str, Channel[Frame]] = {}
        self._free: deque[str] = deque()
        self._waiting: dict[str, _Request] = {}
        for place in map(str, range(places)):
            self._channels[place] = Channel(1, condition=self._batcher.condition)
            self._batcher.add(Inlet(place, self._channels[place], max_wait_ms))
            self._free.append(place)
        self._batcher.seal()
        self._in_flight: queue.SimpleQueue[tuple[Pending, list[_Request]] | None] = queue.SimpleQueue()
        self._depth = threading.Semaphore(1)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._number = 0
        self._is_closed = False
        self.done = 0
        self.batches: Counter[int] = Counter()

    def submit(self, feeds: Feeds) -> Future[Outputs]:
        """Accept (b, ...) tensors; never waits. The future gets copies of the outputs by name, or one of the errors.

        Raises:
            BusyError: too many requests are waiting.
            NotReadyError: it is closed.
        """
        future: Future[Outputs] = Future()
        with self._lock:
            if self._is_closed:
                raise NotReadyError("the server ends", retry_after_s=1.0)
            if not self._free:
                raise BusyError(f"the queue for {self.name} is full: try again", retry_after_s=1.0)
            place = self._free.popleft()
            self._waiting[place] = _Request(feeds, future)
            future.add_done_callback(lambda _: self._free.append(place))
            if self._thread is None:
                self._thread = threading.Thread(target=self._submit_all, name=f"raw-{self.name}", daemon=True)
                self._thread.start()
            self._number += 1
            frame = Frame(_NO_IMAGE, place, self._number, SYSTEM_CLOCK.monotonic_ns(), SYSTEM_CLOCK.utc_ns())
        with suppress(ChannelClosedError):  # `close` answers then
            self._channels[place].put(frame)
        return future

    def close(self) -> None:
        """Finish running requests, refuse waiting ones, and free the model; harmless when repeated."""
        with self._lock:
            self._is_closed = True
        for channel in self._channels.values():
            channel.close()
        self._batcher.abort()
        if self._thread is not None:
            self._thread.join(STOP_S)
        for place in list(self._waiting):
            _fail(self._waiting.pop(place).future, NotReadyError("the server ends", retry_after_s=1.0))

    def _submit_all(self) -> None:
        try:
            self._backend.open()
        except Exception as error:  # noqa: BLE001 - a backend may raise anything, and each request gets an answer
            self._refuse_all(error)
            return
        if self._max_batch > 1 and is_batch(self._backend):
            self._batcher.change(max_batch=self._max_batch)
        self._depth = threading.Semaphore(self._backend.depth)
        collecting = threading.Thread(target=self._collect_all, name=f"raw-{self.name}-results", daemon=True)
        collecting.start()
        with suppress(ChannelClosedError):
            while True:
                for requests in self._batches(self._batcher.get().frames):
                    self._run(requests)
        self._in_flight.put(None)
        collecting.join(STOP_S)
        self._backend.close()

    def _batches(self, frames: list[Frame]) -> list[list[_Request]]:
        """Return the requests of some places, grouped by shared inference."""
        groups: dict[Any, list[list[_Request]]] = {}
        for frame in frames:
            request = self._waiting.pop(frame.source_id)
            same = groups.setdefault(kind_of(request.feeds), [[]])
            if sum(rows_of(each.feeds) for each in same[-1]) + rows_of(request.feeds) > self._max_batch and same[-1]:
                same.append([])
            same[-1].append(request)
        return [requests for same in groups.values() for requests in same]

    def _run(self, requests: list[_Request]) -> None:
        self._depth.acquire()
        try:
            self._in_flight.put((self._backend.submit(merged([each.feeds for each in requests])), requests))
        except Exception as error:  # noqa: BLE001 - a backend may raise anything, and each request gets an answer
            self._depth.release()
            _fail_all(requests, error)

    def _collect_all(self) -> None:
        names = [spec.name for spec in self._backend.outputs]
        while (item := self._in_flight.get()) is not None:
            pending, requests = item
            try:
                self._tell(requests, dict(zip(names, pending.result(), strict=True)))
            except Exception as error:  # noqa: BLE001 - a backend may raise anything, and each request gets an answer
                _fail_all(requests, error)
            finally:
                pending.release()
                self._depth.release()

    def _tell(self, requests: list[_Request], outputs: Mapping[str, NDArray[Any]]) -> None:
        at = 0
        for request in requests:
            rows = slice(None) if len(requests) == 1 else slice(at, at + rows_of(request.feeds))
            at += rows_of(request.feeds)
            own = {name: np.array(array[rows] if array.ndim else array) for name, array in outputs.items()}
            self.done += 1
            with suppress(InvalidStateError):
                request.future.set_result(own)
        self.batches[len(requests)] += 1

    def _refuse_all(self, error: Exception) -> None:
        """Answer every request with the reason why the model cannot be loaded."""
        logger.error("%s: its tensors cannot be served: %s", self.name, error)
        with suppress(ChannelClosedError):
            while True:
                for requests in self._batches(self._batcher.get().frames):
                    _fail_all(requests, error)

    def _too_old(self, frame: Frame, cause: str) -> None:
        reason = f"the request waited longer than {self._max_wait_ms:g} ms for {self.name}: try again"
        _fail(self._waiting.pop(frame.source_id).future, BusyError(reason, retry_after_s=1.0))


def _fail_all(requests: list[_Request], error: Exception) -> None:
    for request in requests:
        _fail(request.future, error)


def _fail(future: Future[Outputs], error: Exception) -> None:
    with suppress(InvalidStateError):
        future.set_exception(error if isinstance(error, EngineError) else ModelError(str(error)))
