"""A bounded hand-off between two threads, with an overflow policy and counted losses.

There is no polling: every change wakes the threads that wait for it. A thread can wait for several channels that share
`Arrivals`, as `Batcher` does.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Generic, Literal, TypeVar

from engine.errors import ConfigError, EngineError

T = TypeVar("T")
Overflow = Literal["block", "drop_oldest", "drop_newest"]
OVERFLOWS: tuple[Overflow, ...] = ("block", "drop_oldest", "drop_newest")


class ChannelClosedError(EngineError):
    """The channel accepts no more items, or will deliver none."""


class ChannelTimeoutError(EngineError):
    """No item arrived in the given time."""


class Arrivals(threading.Condition):
    """Notified when something arrives in, or happens to, any of the channels that share it.

    Attributes:
        lock: of the condition and those channels. Producers wait for room with each channel's own condition on this
            lock, so that an item wakes the consumer but not the producers of all other channels.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        super().__init__(self.lock)


class Channel(Generic[T]):
    """A queue of at most `capacity` items between threads.

    Args:
        capacity: maximum number of items held, 1 or more.
        overflow: what `put` does when full: wait until it is half empty, drop the oldest item, or drop the new one.
            Waiting for half keeps the threads at both ends from alternating on every item.
        on_drop: called with each lost item and the cause (`overflow` or `shutdown`), outside the lock.
        condition: shared with other channels, to wait for several at once.

    Raises:
        ConfigError: the capacity or the overflow policy is invalid.

    >>> channel = Channel(1, "drop_oldest")
    >>> channel.put("old"); channel.put("new")
    >>> channel.get(), channel.dropped["overflow"]
    ('new', 1)
    """

    def __init__(
        self,
        capacity: int,
        overflow: Overflow = "block",
        *,
        on_drop: Callable[[T, str], None] | None = None,
        condition: Arrivals | None = None,
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"channel capacity is {capacity}: expected 1 or more")
        if overflow not in OVERFLOWS:
            raise ConfigError(f"overflow policy is {overflow!r}: expected one of {', '.join(OVERFLOWS)}")
        self.capacity = capacity
        self.overflow = overflow
        self.dropped: Counter[str] = Counter()
        self._on_drop = on_drop
        self._items: deque[T] = deque()
        self._closed = False
        self._is_draining = False
        self._arrived = condition or Arrivals()
        self._has_room = threading.Condition(self._arrived.lock)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether the channel accepts no more items; items may remain to be taken."""
        return self._closed

    def put(self, item: T) -> None:
        """Put `item` into the channel under the overflow policy.

        Raises:
            ChannelClosedError: the channel is closed, or was closed while waiting; the item was not taken.
        """
        lost: T | None = None
        with self._arrived:
            while self.overflow == "block" and self._has_no_place() and not self._closed:
                self._has_room.wait()
            if self._closed:
                raise ChannelClosedError("the channel is closed")
            full = len(self._items) >= self.capacity
            if full:
                self.dropped["overflow"] += 1
                lost = item if self.overflow == "drop_newest" else self._items.popleft()
            if not (full and self.overflow == "drop_newest"):
                self._items.append(item)
                self._arrived.notify_all()
        if full and self._on_drop is not None:
            self._on_drop(lost, "overflow")  # type: ignore[arg-type]

    def _has_no_place(self) -> bool:
        """Return whether a producer must wait. Once full, all producers wait until the channel is half empty."""
        if len(self._items) >= self.capacity:
            self._is_draining = True
        elif len(self._items) <= self.capacity // 2:
            self._is_draining = False
        return self._is_draining

    def get(self, timeout_s: float | None = None) -> T:
        """Take the oldest item, waiting for one.

        Raises:
            ChannelClosedError: the channel is closed and empty.
            ChannelTimeoutError: no item arrived within `timeout_s`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._arrived:
            while not self._items:
                if self._closed:
                    raise ChannelClosedError("the channel is closed and empty")
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    raise ChannelTimeoutError(f"nothing came within {timeout_s} s")
                self._arrived.wait(remaining)
            item = self._items.popleft()
            if len(self._items) == self.capacity // 2:
                self._has_room.notify_all()
            return item

    def drop_oldest(self) -> None:
        """Switch to this policy and release waiting producers."""
        with self._arrived:
            self.overflow = "drop_oldest"
            self._has_room.notify_all()

    def close(self) -> None:
        """Refuse further items; queued items can still be taken."""
        with self._arrived:
            self._closed = True
            self._wake_all()

    def abort(self, cause: str = "shutdown") -> None:
        """Refuse further items and drop the queued ones."""
        with self._arrived:
            self._closed = True
            lost = list(self._items)
            self._items.clear()
            self.dropped[cause] += len(lost)
            self._wake_all()
        if self._on_drop is not None:
            for item in lost:
                self._on_drop(item, cause)

    def _wake_all(self) -> None:
        self._arrived.notify_all()
        self._has_room.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Yield items until the channel is closed and empty."""
        while True:
            try:
                item = self.get()
            except ChannelClosedError:
                return
            yield item
