"""The tensors of a model as they are: what clients of the Open Inference Protocol ask for."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.base import Backend, Pending
from engine.errors import EngineError, ModelError
from pipelines.serving.refusals import BusyError, NotReadyError

logger = logging.getLogger(__name__)
STOP_S = 10.0
Outputs = dict[str, NDArray[Any]]


class RawModel:
    """Runs a backend on the tensors of requests, on two threads: one submits, the other takes results.

    The model is loaded when the first request for its tensors comes, because most servers are never asked for them.

    Args:
        backend: without an image input, so that it takes the model's own tensors.
        name: of the model.
        places: requests that may wait or run.
    """

    def __init__(self, backend: Backend, name: str, places: int) -> None:
        self._backend, self.name = backend, name
        self._places = threading.Semaphore(places)
        self._asked: queue.SimpleQueue[tuple[Mapping[str, NDArray[Any]], Future[Outputs]] | None]
        self._asked = queue.SimpleQueue()
        self._in_flight: queue.SimpleQueue[tuple[Pending, Future[Outputs]] | None] = queue.SimpleQueue()
        self._depth = threading.Semaphore(1)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self.done = 0
        self.batches: Counter[int] = Counter()

    def submit(self, feeds: Mapping[str, NDArray[Any]]) -> Future[Outputs]:
        """Take a request; never waits. The future has copies of the outputs by name, or `ModelError`.

        Raises:
            BusyError: too many requests wait.
            NotReadyError: it is closed.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError(f"as many requests as may wait for {self.name}: try again", retry_after_s=1.0)
        future: Future[Outputs] = Future()
        future.add_done_callback(lambda _: self._places.release())
        with self._lock:
            if self._is_closed:
                future.cancel()
                raise NotReadyError("the server ends", retry_after_s=1.0)
            if self._thread is None:
                self._thread = threading.Thread(target=self._submit_all, name=f"raw-{self.name}", daemon=True)
                self._thread.start()
            self._asked.put((feeds, future))
        return future

    def close(self) -> None:
        """Finish what was asked, and free the model; harmless when repeated."""
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
        if is_first and self._thread is not None:
            self._asked.put(None)
            self._thread.join(STOP_S)

    def _submit_all(self) -> None:
        try:
            self._backend.open()
        except Exception as error:  # noqa: BLE001 - a backend may raise anything, and each request gets an answer
            self._refuse_all(error)
            return
        self._depth = threading.Semaphore(self._backend.depth)
        collecting = threading.Thread(target=self._collect_all, name=f"raw-{self.name}-results", daemon=True)
        collecting.start()
        while (item := self._asked.get()) is not None:
            feeds, future = item
            self._depth.acquire()
            try:
                self._in_flight.put((self._backend.submit(feeds), future))
            except Exception as error:  # noqa: BLE001 - a backend may raise anything, and each request gets an answer
                self._depth.release()
                _fail(future, error)
        self._in_flight.put(None)
        collecting.join(STOP_S)
        self._backend.close()

    def _collect_all(self) -> None:
        names = [spec.name for spec in self._backend.outputs]
        while (item := self._in_flight.get()) is not None:
            pending, future = item
            try:
                outputs = {name: np.array(each) for name, each in zip(names, pending.result(), strict=True)}
            except Exception as error:  # noqa: BLE001 - a backend may raise anything, and each request gets an answer
                _fail(future, error)
            else:
                self.done += 1
                self.batches[1] += 1
                with suppress(InvalidStateError):
                    future.set_result(outputs)
            finally:
                pending.release()
                self._depth.release()

    def _refuse_all(self, error: Exception) -> None:
        """Answer all requests that come with the reason why the model cannot be loaded."""
        logger.error("%s: its tensors cannot be served: %s", self.name, error)
        while (item := self._asked.get()) is not None:
            _fail(item[1], error)


def _fail(future: Future[Outputs], error: Exception) -> None:
    with suppress(InvalidStateError):
        future.set_exception(error if isinstance(error, EngineError) else ModelError(str(error)))
