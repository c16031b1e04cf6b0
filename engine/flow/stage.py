"""A stage runs on one thread; `RunningStages` starts the stages of a run and waits for the last."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from engine.clock import NS_PER_S, Clock
from engine.errors import ConfigError, StageError
from engine.flow.channel import ChannelClosedError

logger = logging.getLogger(__name__)
T = TypeVar("T")
S = TypeVar("S", bound="Stage[Any]")


class Stage(ABC, Generic[T]):
    """A thread that runs `open`, then `work` for each item of `inbox`, then `close`, and reports how it ended.

    `close` also runs after a failure. A `ChannelClosedError` from `work` is the normal way to stop.
    Threads are daemons: one that hangs in a native call cannot keep the process alive.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._on_end: Callable[[Stage[T], BaseException | None], None] = lambda stage, error: None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, on_end: Callable[[Stage[T], BaseException | None], None]) -> None:
        """Start the thread; `on_end(stage, error)` is called on it as its last act."""
        self._on_end = on_end
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread; return whether it has ended."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @abstractmethod
    def inbox(self) -> Iterable[T]:
        """Return the items to work on."""

    @abstractmethod
    def work(self, item: T) -> None:
        """Do the stage's work on one item."""

    def open(self) -> None:
        """Acquire the stage's resources, on its thread."""

    def close(self) -> None:
        """Free the resources and close the downstream channels, on the same thread."""

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            try:
                self.open()
                for item in self.inbox():
                    self.work(item)
            except ChannelClosedError:
                logger.debug("%s was stopped", self.name)
            finally:
                self.close()
        except BaseException as failure:  # noqa: BLE001 - a thread ends here; the pipeline raises it to the caller
            error = failure
        self._on_end(self, error)


class RunningStages:
    """Starts the stages of a pipeline, keeps the first failure, and knows when all have ended.

    Args:
        clock: for `wall_s`.
        ends_alone: whether a failure of a stage leaves the others running.
        abort: called on a stage's thread after a failure that ends the run.
        on_end: called on a stage's thread after each end.
        on_over: called on the last thread when all have ended.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        ends_alone: Callable[[Stage[Any], BaseException], bool],
        abort: Callable[[], None],
        on_end: Callable[[], None],
        on_over: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._ends_alone, self._abort, self._on_end, self._on_over = ends_alone, abort, on_end, on_over
        self.lock = threading.RLock()
        self.over = threading.Event()
        self._failure: tuple[str, BaseException] | None = None
        self._running: set[Stage[Any]] = set()
        self._stages: list[Stage[Any]] = []
        self._started_ns = clock.monotonic_ns()
        self._wall_s: float | None = None
        self._is_over = False

    @property
    def has_begun(self) -> bool:
        """Whether stages were started."""
        return bool(self._stages)

    @property
    def wall_s(self) -> float:
        """Seconds since the start, until the end."""
        return self._wall_s or (self._clock.monotonic_ns() - self._started_ns) / NS_PER_S

    def start(self, stages: Iterable[Stage[Any]]) -> None:
        """Start the stages of a run, or further ones while it runs. Raises `ConfigError` after its end."""
        begun = list(stages)
        with self.lock:
            if self._is_over:
                raise ConfigError("the pipeline is not running")
            if not self._stages:
                self._started_ns = self._clock.monotonic_ns()
            self._stages = [stage for stage in self._stages if stage in self._running] + begun
            self._running.update(begun)
        for stage in begun:
            stage.start(self._ended)

    def is_running(self, stage: Stage[Any] | None) -> bool:
        """Return whether a stage was started and has not ended."""
        return stage in self._running

    def of_kind(self, kind: type[S]) -> list[S]:
        """Return the running stages of a kind."""
        with self.lock:
            return [stage for stage in self._running if isinstance(stage, kind)]

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for all stages to end and return whether they did in time. Raises `StageError` for the first failure."""
        if not self.over.wait(timeout_s):
            return False
        if self._failure is not None:
            stage, error = self._failure
            raise StageError(stage, error) from error
        return True

    def join(self, timeout_s: float) -> bool:
        """Wait for every thread to end and return whether all did in time."""
        deadline = time.monotonic() + timeout_s
        stages = list(self._stages)
        ended = [stage.join(max(deadline - time.monotonic(), 0.0)) for stage in stages]
        for stage, has_ended in zip(stages, ended, strict=True):
            if not has_ended:
                logger.warning("stage %s is still inside a native call after %.1f s", stage.name, timeout_s)
        return all(ended)

    def _ended(self, stage: Stage[Any], error: BaseException | None) -> None:
        if error is not None:
            logger.log(logging.ERROR, "%s failed: %s", stage.name, error)
            with self.lock:
                self._failure = self._failure or (stage.name, error)
            if not self._ends_alone(stage, error):
                self._abort()
        with self.lock:
            self._running.discard(stage)
            self._is_over = not self._running
        if not self._is_over:
            self._on_end()
            return
        self._wall_s = (self._clock.monotonic_ns() - self._started_ns) / NS_PER_S
        self._on_over()
        self.over.set()
