"""Watches sources that switch to another model: compares classes, numbers of objects and rate with those before.

Rates are computed from the times at which the engine sent the messages, so a lagging reader does not affect them. If
the other sources have become slower as well, the machine is busy, and the canary may slow down by as much. A better
model finds other objects than the old one. So a release may differ from the old model as long as it finds about as many
objects, of the same classes, as on its test images, where other people are in view. And a scene changes while it is
watched: a drift counts only if the output also changed as the new model took over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.clock import NS_PER_S
from engine.subscriber import NoMessageError, Subscriber
from engine.wire import FrameMessage
from pipelines.learning.monitor.drift import DriftMonitor, FrameFacts, Reference, make_reference
from pipelines.learning.monitor.stream_facts import facts_of_message
from pipelines.learning.release.takeover import LEAST_CHANGE, Takeover

JUDGED = ("classes", "objects")
ALL_FRAMES = 10_000
"""Window of the watch: a canary is judged by all of its output, because that detects the smallest difference."""
LEAST_RATE = 0.7
LEAST_FRAMES = 2
JUDGE_S, POLL_S, SILENT_S, CATCH_UP_S = 0.5, 0.2, 5.0, 1.0
PATIENCE_S = 60.0
"""Silence of a source of the old model after which there is nothing to compare with."""


@dataclass(slots=True)
class Rate:
    """Messages per second, by the sender's clock.

    >>> rate = Rate()
    >>> for second in range(5):
    ...     rate.add(second * NS_PER_S)
    >>> rate.per_s(), rate.per_s(8 * NS_PER_S)
    (1.0, 0.5)
    """

    count: int = 0
    first_ns: int = 0
    last_ns: int = 0

    def add(self, sent_ns: int) -> None:
        """Count a message."""
        self.first_ns = sent_ns if not self.count else min(self.first_ns, sent_ns)
        self.last_ns = max(self.last_ns, sent_ns)
        self.count += 1

    def per_s(self, until_ns: int = 0) -> float:
        """Return the rate from the first message to the last one, or to a later time; 0 with fewer than two."""
        spent_ns = max(until_ns, self.last_ns) - self.first_ns
        return (self.count - 1) * NS_PER_S / spent_ns if self.count > 1 and spent_ns > 0 else 0.0


@dataclass
class _Watched:
    """A canary source's output before and after the change."""

    names: list[str]
    engine_id: str = ""
    old_file: str = ""
    before: list[FrameFacts] = field(default_factory=list)
    monitor: DriftMonitor | None = None
    tested: DriftMonitor | None = None
    takeover: Takeover = field(default_factory=Takeover)
    rate_before: Rate = field(default_factory=Rate)
    rate: Rate = field(default_factory=Rate)
    heard_s: float = 0.0


class Watch:
    """The results of a stream's sources before and after some of them switch.

    Args:
        canary: the sources that switch.
        class_names: of the new model.
        file: name of the new model's file, as messages state it.
        tested: what the new model found on the test images of its release; None: it is not a release.
        others: the other sources of the same engine, which show whether its machine is busy; None: all of the stream.
    """

    def __init__(
        self,
        canary: Sequence[str],
        class_names: Sequence[str],
        file: str,
        tested: Reference | None = None,
        others: Sequence[str] | None = None,
    ) -> None:
        self._watched = {name: _Watched(list(class_names)) for name in canary}
        for one in self._watched.values():
            one.tested = None if tested is None else DriftMonitor(tested, ALL_FRAMES)
        self._file = file
        self._of_engine = None if others is None else frozenset(others)
        self._others_before, self._others = Rate(), Rate()
        self._newest_ns = 0

    def measure_before(self, messages: Subscriber, frames: int) -> None:
        """Read this many frames of the old model from each canary source. Raises `NoMessageError` if one is silent."""
        heard = dict.fromkeys(self._watched, time.monotonic())
        while missing := [name for name, one in self._watched.items() if len(one.before) < frames]:
            message = _next(messages, POLL_S)
            now = time.monotonic()
            if message is not None:
                heard[message.source_id] = now
                self._take_before(message, frames)
            silent = [name for name in missing if now - heard[name] > PATIENCE_S]
            if silent:
                raise NoMessageError(
                    f"{silent[0]} has sent no frame for {PATIENCE_S:g} s: is it live (framewire ctl status), and is "
                    f"{', '.join(messages.addresses)} where its engine publishes?"
                )
        for one in self._watched.values():
            one.monitor = DriftMonitor(make_reference(one.before, len(one.names) + 1), ALL_FRAMES)

    def _take_before(self, message: FrameMessage, frames: int) -> None:
        one = self._watched.get(message.source_id)
        if one is None:
            if self._is_of_engine(message):
                self._others_before.add(message.published_utc_ns)
        elif len(one.before) < frames:
            one.names = list(dict.fromkeys([*one.names, *(o.class_name for o in message.objects)]))
            one.engine_id, one.old_file = message.engine_id, message.model
            one.before.append(facts_of_message(message, one.names))
            one.takeover.add_old(message.published_utc_ns, one.before[-1])
            one.rate_before.add(message.published_utc_ns)

    def engines(self) -> dict[str, str]:
        """Return the engine that each canary source's frames came from."""
        return {name: one.engine_id for name, one in self._watched.items()}

    def catch_up(self, messages: Subscriber) -> None:
        """Read what has arrived by now, while the new model loads and once when the sources have switched.

        Two models may have the same file name. In that case, everything read here counts as the old one's.
        """
        until = time.monotonic() + CATCH_UP_S
        while time.monotonic() < until and (message := _next(messages, 0.0)) is not None:
            one = self._watched.get(message.source_id)
            if one is not None and one.old_file == self._file:
                one.takeover.add_old(message.published_utc_ns, facts_of_message(message, one.names))
            else:
                self._take(message)

    def judge(self, messages: Subscriber, seconds: float, max_drift: float) -> str | None:
        """Watch for this long and return why the new model must be rolled back, None if it may stay."""
        began = judged = time.monotonic()
        while (left := began + seconds - time.monotonic()) > 0:
            message = _next(messages, left)
            if message is not None:
                self._take(message)
            if time.monotonic() - judged >= JUDGE_S:
                judged = time.monotonic()
                if (why := self._drifted(max_drift, is_over=False)) is not None:
                    return why
        self._read_the_rest(messages)
        return self._drifted(max_drift, is_over=True) or self._slowed()

    def _read_the_rest(self, messages: Subscriber) -> None:
        """Read what has arrived, so that a reader that fell behind does not blame the model."""
        until = time.monotonic() + CATCH_UP_S
        while time.monotonic() < until and (message := _next(messages, 0.0)) is not None:
            self._take(message)

    def _is_of_engine(self, message: FrameMessage) -> bool:
        return self._of_engine is None or message.source_id in self._of_engine

    def _take(self, message: FrameMessage) -> None:
        one = self._watched.get(message.source_id)
        if one is None and not self._is_of_engine(message):
            return
        self._newest_ns = max(self._newest_ns, message.published_utc_ns)
        if one is None:
            self._others.add(message.published_utc_ns)
        elif message.model != self._file:
            if not one.rate.count:
                one.takeover.add_old(message.published_utc_ns, facts_of_message(message, one.names))
        elif one.monitor is not None:
            one.rate.add(message.published_utc_ns)
            one.heard_s = time.monotonic()
            facts = facts_of_message(message, one.names)
            one.monitor.add(facts)
            one.takeover.add_new(message.published_utc_ns, facts)
            if one.tested is not None:
                one.tested.add(facts)

    def _drifted(self, max_drift: float, *, is_over: bool) -> str | None:
        for name, one in self._watched.items():
            if not (is_over or one.takeover.is_complete):
                continue
            found = {} if one.monitor is None else one.monitor.alarms()
            for quantity in JUDGED:
                if found.get(quantity, 0.0) <= max_drift or not one.takeover.may_blame(quantity):
                    continue
                why = f"{name}: {quantity} drifted by {found[quantity]:.2f} (allowed: {max_drift:g})"
                if one.tested is None:
                    return why
                if (change := one.tested.change(quantity)) >= LEAST_CHANGE:
                    return f"{why}, and {change:.0%} differ from those on its test images"
        return None

    def _slowed(self) -> str | None:
        before = self._others_before.per_s()
        share = LEAST_RATE * (min(1.0, self._others.per_s(self._newest_ns) / before) if before > 0 else 1.0)
        return next((why for name, one in self._watched.items() if (why := self._slow(name, one, share))), None)

    def _slow(self, name: str, one: _Watched, share: float) -> str | None:
        """Return how much too slow a source is since its first frame of the new model; None: it is not."""
        before = one.rate_before.per_s()
        if one.rate.count < LEAST_FRAMES:
            return f"{name}: {one.rate.count} frames of the new model arrived within the watch"
        silent_s = time.monotonic() - one.heard_s
        if silent_s > max(SILENT_S, 20 / before if before else 0.0):
            return f"{name}: no frame of the new model for {silent_s:.1f} s"
        rate = one.rate.per_s(self._newest_ns)
        return f"{name}: {rate:.1f} frames per second, {before:.1f} before" if rate < share * before else None

    def measured(self) -> dict[str, Any]:
        """Return what was measured of each canary source, as plain values."""
        return {
            name: {
                "frames_before": len(one.before),
                "frames": one.rate.count,
                "drift": _indexes(one.monitor),
                "takeover": {"classes": _rounded(one.takeover.classes()), "objects": _rounded(one.takeover.objects())},
                **({} if one.tested is None else {"drift_from_test": _indexes(one.tested)}),
            }
            for name, one in self._watched.items()
        }


def _indexes(monitor: DriftMonitor | None) -> dict[str, float]:
    return {} if monitor is None else {key: value for key, value in monitor.indexes().items() if key in JUDGED}


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def _next(messages: Subscriber, left_s: float) -> FrameMessage | None:
    try:
        message = messages.receive(min(left_s, POLL_S))
    except NoMessageError:
        return None
    return message if isinstance(message, FrameMessage) else None
