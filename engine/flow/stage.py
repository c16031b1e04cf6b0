"""A stage: one thread, written once."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from engine.flow.channel import ChannelClosedError

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Stage(ABC, Generic[T]):
    """A thread that runs `open`, then `work` for each item of `inbox`, then `close`, and reports how it ended.

    `close` runs also after a failure. A `ChannelClosedError` out of `work` is the normal way to be stopped.
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
        """Return what to iterate over."""

    @abstractmethod
    def work(self, item: T) -> None:
        """Do the stage's work on one item."""

    def open(self) -> None:
        """Acquire what the stage needs, on its thread."""

    def close(self) -> None:
        """Free it again, and close what is downstream, on the same thread."""

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
