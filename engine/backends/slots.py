"""Slots: the buffers of the submissions in flight. Any thread may take and return them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from engine.errors import ConfigError

SlotT = TypeVar("SlotT")


class Slots(Generic[SlotT]):
    """A fixed set of slots. `take` never waits: a submission beyond the depth is the caller's mistake."""

    def __init__(self, slots: Sequence[SlotT]) -> None:
        self._lock = threading.Lock()
        self._free = deque(slots)
        self._depth = len(slots)

    @property
    def is_any_taken(self) -> bool:
        """Whether a slot is in flight."""
        with self._lock:
            return len(self._free) < self._depth

    def take(self) -> SlotT:
        """Return a free slot.

        Raises:
            ConfigError: all slots are in flight.
        """
        with self._lock:
            if not self._free:
                raise ConfigError(f"{self._depth} submissions are in flight, which is the depth: take a result first")
            return self._free.popleft()

    def give(self, slot: SlotT) -> None:
        """Put a slot back."""
        with self._lock:
            self._free.append(slot)
