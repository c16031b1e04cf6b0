"""A backend for a model on an inference server: one request per batch, several in flight, each with a deadline.

A failing server does not end the run: until their deadline, requests go to the other server or wait for this one to
come back. Frames not answered by then are lost and counted, and are never published late.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.backends.base import BackendOptions, TensorSpec, check_feeds, image_spec
from engine.backends.pixels import HostImages
from engine.backends.remote.address import RemoteModel
from engine.backends.remote.describe import connect, read_remote
from engine.backends.remote.endpoint import BusyServerError, Endpoint, UnreachableError
from engine.backends.remote.window import Window
from engine.backends.slots import Slots
from engine.errors import ConfigError, LostInferenceError

logger = logging.getLogger(__name__)
DEPTH = 4
"""Default number of requests in flight: enough to hide the round trip to the server."""
DEADLINE_MS = 30_000.0
RETRY_S = 0.1
SETTLE_S = 10.0
LOG_EVERY_S = 10.0
LATE, AWAY = "remote_late", "remote_away"
"""Causes of lost frames: the server did not answer in time, or no server could be reached."""


class KServeBackend:
    """Runs a model on a server that speaks the Open Inference Protocol.

    Args:
        path: `kserve+http://HOST:PORT/NAME`, as text or as the path made from it.
        options: `deadline_ms` bounds each request; `depth` is the number of requests in flight.
    """

    name = "kserve"

    def __init__(self, path: Path, options: BackendOptions | None = None) -> None:
        self._path = path
        self._model = RemoteModel.parse(path)
        self._options = options or BackendOptions()
        self._all: list[_Slot] = []
        self._slots: Slots[_Slot] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._closing = threading.Event()
        self._servers = _Servers(self._model)
        self._window = Window(self._options.depth or DEPTH)
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()
        self.depth = self._options.depth or DEPTH

    @property
    def precision(self) -> str:
        """The server determines the arithmetic."""
        return "remote"

    @property
    def device(self) -> str:
        """The server in use."""
        return str(self._model.hosts[self._servers.current])

    def open(self) -> None:
        """Ask the server for the model's tensors.

        Raises `ModelError`: no server answers, or it has a different model.
        """
        if self._slots is not None:
            return
        file = read_remote(self._path)
        first, image = file.inputs[0], self._options.image
        self.outputs = file.outputs
        self.inputs = (image_spec(first.name, image, first.shape[0]), *file.inputs[1:]) if image else file.inputs
        self._closing.clear()
        self._all = [_Slot(self._model, first, self._options) for _ in range(self.depth)]
        self._slots = Slots(self._all)
        self._pool = ThreadPoolExecutor(self.depth, thread_name_prefix=f"kserve-{self._model.name}")

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Return uninitialised memory of this shape."""
        return np.empty(tuple(shape), dtype)

    def submit(self, feeds: Mapping[str, NDArray[Any]]) -> KServePending:
        """Send the feeds on another thread, once the window allows another request. Raises as `Backend.submit`."""
        if self._slots is None or self._pool is None:
            raise ConfigError("the backend is closed: call open() first")
        check_feeds(self.inputs, feeds)
        slot = self._slots.take()
        self._window.enter((self._options.deadline_ms or DEADLINE_MS) / 1000)
        until = time.monotonic() + (self._options.deadline_ms or DEADLINE_MS) / 1000
        future = self._pool.submit(self._ask, slot, feeds, until)
        future.add_done_callback(lambda _: self._window.leave())
        return KServePending(self._slots, slot, future)

    def close(self) -> None:
        """End the requests in flight and the connections; harmless when repeated."""
        self._closing.set()
        pool, self._pool, self._slots = self._pool, None, None
        for slot in self._all:
            slot.close()
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        for slot in self._all:
            slot.end()
        self._all = []

    def _ask(self, slot: _Slot, feeds: Mapping[str, NDArray[Any]], until: float) -> tuple[NDArray[Any], ...]:
        """Return the outputs from the server that answers in time. Raises `LostInferenceError`."""
        tensors = slot.images.model_feeds(feeds)
        cause = AWAY
        while (left := until - time.monotonic()) > 0 and not (self._closing.is_set() or slot.abandoned.is_set()):
            number = self._servers.current
            try:
                outputs = tuple(slot.endpoints[number].infer(tensors, self.outputs, left))
            except TimeoutError as error:
                self._servers.failed(number, error)
                self._window.late()
                cause = LATE
            except UnreachableError as error:
                self._servers.failed(number, error)
                cause = AWAY
                self._closing.wait(min(RETRY_S, left))
            except BusyServerError as error:
                cause = LATE
                self._closing.wait(min(error.retry_after_s, left))
            else:
                self._servers.answered()
                self._window.in_time()
                return outputs
        raise LostInferenceError(f"{self._model}: {self._servers.why}", cause)


class KServePending:
    """A request in flight."""

    def __init__(self, slots: Slots[_Slot], slot: _Slot, future: Future[tuple[NDArray[Any], ...]]) -> None:
        self._slots, self._future = slots, future
        self._slot: _Slot | None = slot

    def result(self) -> tuple[NDArray[Any], ...]:
        """Wait, and return the (b, ...) outputs. Raises `ModelError`, or `LostInferenceError` if none came in time."""
        if self._slot is None:
            raise ConfigError("the result has already been released")
        try:
            return self._future.result()
        except CancelledError as error:
            raise LostInferenceError("the backend was closed", AWAY) from error

    def release(self) -> None:
        """Give the slot back, and cancel the request if its result is no longer needed."""
        slot, self._slot = self._slot, None
        if slot is None:
            return
        if not self._future.done():
            slot.abandoned.set()
            if not self._future.cancel():
                slot.close()
                wait([self._future], SETTLE_S)
            slot.abandoned.clear()
        self._slots.give(slot)


class _Slot:
    """The resources of one request in flight: a batch of normalised images, and a connection to each server."""

    def __init__(self, model: RemoteModel, first: TensorSpec, options: BackendOptions) -> None:
        self.images = HostImages(first, options.image)
        self.abandoned = threading.Event()
        self.endpoints: list[Endpoint] = [connect(model, host) for host in model.hosts]

    def close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.close()

    def end(self) -> None:
        for endpoint in self.endpoints:
            endpoint.end()


class _Servers:
    """Selects the server to ask: always one, and the next one after a failure."""

    def __init__(self, model: RemoteModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._logged_at = -LOG_EVERY_S
        self.current = 0
        self.why = "no answer in time"
        self._is_away = False

    def failed(self, number: int, error: Exception) -> None:
        """Switch to the next server, unless another request already did."""
        with self._lock:
            self.why, self._is_away = str(error) or "no answer in time", True
            if self.current == number:
                self.current = (number + 1) % len(self._model.hosts)
            now = time.monotonic()
            is_due = now - self._logged_at >= LOG_EVERY_S
            self._logged_at = now if is_due else self._logged_at
        if is_due:
            logger.warning("%s: %s: asking %s", self._model, self.why, self._model.hosts[self.current])

    def answered(self) -> None:
        """Record that a server answers again."""
        if self._is_away:
            with self._lock:
                self._is_away, self._logged_at = False, -LOG_EVERY_S
            logger.warning("%s: %s answers again", self._model, self._model.hosts[self.current])
