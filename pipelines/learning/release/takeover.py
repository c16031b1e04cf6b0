"""How much a source's output changes as another model takes over: what changes later is the scene, not the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.clock import NS_PER_S
from pipelines.learning.monitor.drift import FrameFacts

AROUND_S = 2.0
SETTLE_S = 1.0
"""Tracks of the old model live on for up to this long."""
LEAST_CHANGE = 0.3
"""Two classes that swap names change a third of the objects where one is twice as frequent."""
LEAST_VALUES = 5
"""With fewer objects than this on either side, nothing is known of their classes."""


@dataclass
class Takeover:
    """The last two seconds of the old model, and two of the new one after it has settled.

    Times are those at which the engine sent the frames, in nanoseconds.

    >>> def frame(count):
    ...     return FrameFacts(np.ones(count), np.zeros(count), np.ones(count))
    >>> change = Takeover()
    >>> for second in range(10):
    ...     change.add_old(second * NS_PER_S // 2, frame(4))
    >>> for second in range(10, 20):
    ...     change.add_new(second * NS_PER_S // 2, frame(2))
    >>> change.is_complete, change.objects(), change.may_blame("objects")
    (True, 0.5, True)
    """

    _old: deque[tuple[int, FrameFacts]] = field(default_factory=deque)
    _new: list[FrameFacts] = field(default_factory=list)
    _first_ns: int | None = None
    _newest: FrameFacts | None = None
    _found_any: bool = False
    is_complete: bool = False

    def add_old(self, sent_ns: int, facts: FrameFacts) -> None:
        """Take a frame of the old model."""
        self._old.append((sent_ns, facts))
        while self._old[0][0] < sent_ns - AROUND_S * NS_PER_S:
            self._old.popleft()

    def add_new(self, sent_ns: int, facts: FrameFacts) -> None:
        """Take a frame of the new model."""
        self._found_any |= len(facts.scores) > 0
        self._newest = facts
        if self._first_ns is None:
            self._first_ns = sent_ns
        after_s = (sent_ns - self._first_ns) / NS_PER_S
        if SETTLE_S <= after_s < SETTLE_S + AROUND_S:
            self._new.append(facts)
        self.is_complete |= after_s >= SETTLE_S + AROUND_S

    def objects(self) -> float:
        """Return the change of the mean number of objects, as a share of the larger one: 0 to 1."""
        old, new = (float(np.mean([len(each.scores) for each in side] or [0])) for side in self._sides())
        return abs(new - old) / max(old, new) if old or new else 0.0

    def classes(self) -> float | None:
        """Return the share of objects whose class changed, 0 to 1; None with too few objects to tell."""
        sides = [np.concatenate([each.classes for each in side] or [np.zeros(0)]) for side in self._sides()]
        if min(map(len, sides)) < LEAST_VALUES:
            return None
        size = int(max(side.max() for side in sides)) + 1
        old, new = (np.bincount(side.astype(np.int64), minlength=size) / len(side) for side in sides)
        return float(np.abs(new - old).sum() / 2)

    def may_blame(self, quantity: str) -> bool:
        """Return whether the new model may be the cause of a drift of `classes` or `objects`.

        It is not if the output stayed the same at the takeover, unless the model has found nothing since.
        """
        if not self._found_any:
            return True
        change = self.classes() if quantity == "classes" else self.objects()
        return change is None or change >= LEAST_CHANGE

    def _sides(self) -> tuple[Sequence[FrameFacts], Sequence[FrameFacts]]:
        newest = [] if self._newest is None else [self._newest]
        return [facts for _, facts in self._old], self._new or newest
