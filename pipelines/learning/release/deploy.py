"""Brings a model into a running engine: first to some of its sources, watched, and back by itself if it is worse.

The engine loads the model beside the old one, so no frame is lost while it does. A source that changes over keeps its
stream. The new model is judged by what the same source said before: classes and numbers of objects, and its rate. Where
the other sources have become slower as well, the machine is busy, and the canary may be as much slower as they.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.clock import pause
from engine.detection.load import load_detector
from engine.errors import ConfigError
from engine.subscriber import NoMessageError, Subscriber
from engine.wire import FrameMessage
from pipelines.learning.monitor.drift import DriftMonitor, FrameFacts, make_reference
from pipelines.learning.monitor.stream_facts import facts_of_message

CANARY = "canary"
JUDGED = ("classes", "objects")
BASELINE_FRAMES = 60
ALL_FRAMES = 10_000
"""Window of the watch: a canary is judged by all that it said, because that needs the smallest difference."""
LEAST_RATE = 0.7
LOAD_S = 120.0
POLL_S = 0.2
Ask = Callable[[dict[str, Any]], dict[str, Any]]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """What to deploy where.

    Attributes:
        model: file that the engine can read, too.
        stream: address where the engine publishes.
        canary: names of the sources that change first; empty: the first one.
        watch_s: time for which they are watched.
        baseline: frames of the old model to compare with.
        max_drift: largest population stability index of classes or numbers of objects.
        shadow: only compare; the old model gets its sources back afterwards in any case.
    """

    model: Path
    stream: str
    canary: tuple[str, ...] = ()
    watch_s: float = 60.0
    baseline: int = BASELINE_FRAMES
    max_drift: float = 0.25
    shadow: bool = False


@dataclass
class _Watched:
    """What a canary source said before and since."""

    names: list[str]
    before: list[FrameFacts] = field(default_factory=list)
    monitor: DriftMonitor | None = None
    frames: int = 0
    rate_before: float = 0.0


@dataclass
class _Others:
    """Frames per second of the sources that keep the old model, before and during the watch."""

    count: int = 0
    rate_before: float = 0.0

    def slowdown(self, seconds: float) -> float:
        """Return their rate as a share of the one before, at most 1; 1 if there are none."""
        if self.rate_before <= 0:
            return 1.0
        return min(1.0, self.count / max(seconds, 1e-3) / self.rate_before)


def deploy(request: DeployRequest, ask: Ask, tell: Tell = lambda text: None) -> dict[str, Any]:
    """Deploy and return `deployed`, the reason, and what was measured per canary source.

    Args:
        request: what and where.
        ask: sends one request to the engine's control socket and returns its reply.
        tell: receives one line per step.

    Raises:
        ConfigError: the model, a source or a number cannot work, or the engine refuses.
        NoMessageError: the stream is silent.
    """
    if request.watch_s <= 0 or request.baseline < 10:
        raise ConfigError("watch needs a time above 0, and the baseline at least 10 frames")
    names = _class_names(request.model)
    sources = list(ask({"command": "status"})["sources"])
    canary = request.canary or tuple(sources[:1])
    unknown = [name for name in canary if name not in sources]
    if unknown:
        raise ConfigError(f"the engine has no source {unknown[0]}: it has {', '.join(sources) or 'none'}")
    watched, others = {name: _Watched(list(names)) for name in canary}, _Others()
    with Subscriber(request.stream, topics=["v1/frame/"], timeout_s=LOAD_S) as messages:
        tell(f"measuring {request.baseline} frames of the old model on {', '.join(canary)}")
        _measure_before(messages, watched, others, request.baseline)
        before = {name: ask({"command": "status"})["sources"][name]["model"] for name in canary}
        ask({"command": "set", "key": f"models.{CANARY}", "value": {"model": str(request.model.resolve())}})
        try:
            _move(ask, sources, dict.fromkeys(canary, CANARY))
            _wait_until_moved(ask, canary)
            tell(f"{', '.join(canary)} use the new model; watching for {request.watch_s:g} s")
            reason = _watch(messages, watched, others, request)
        except BaseException:
            _move(ask, sources, before)
            raise
    measured = {name: _measured(one) for name, one in watched.items()}
    if reason is not None or request.shadow:
        _move(ask, sources, before)
        tell(f"returned to the old model: {reason or 'it was a trial'}")
        passed = "it passed; a trial changes nothing" if reason is None else reason
        return {"deployed": False, "passed": reason is None, "reason": passed, "canary": measured}
    ask({"command": "set", "key": "detector.model", "value": str(request.model.resolve())})
    _move(ask, sources, before)
    tell("the new model replaces the old one for all sources")
    return {"deployed": True, "passed": True, "reason": "no alarm during the watch", "canary": measured}


def _class_names(model: Path) -> Sequence[str]:
    """Return the classes of the model, which is loaded here first: one that cannot be is never sent."""
    if not model.is_file():
        raise ConfigError(f"{model}: no such model file")
    with load_detector(model, try_first=True) as detector:
        return detector.class_names


def _move(ask: Ask, sources: Sequence[str], models: dict[str, str]) -> None:
    for name, model in models.items():
        value = None if model == "detector" else model
        order = ask({"command": "status"}).get("configured", sources)  # cameras come and go
        ask({"command": "set", "key": f"sources.{list(order).index(name)}.model", "value": value})


def _wait_until_moved(ask: Ask, canary: Sequence[str]) -> None:
    """Wait until the canary sources use the new model. Raises `ConfigError` if it cannot be loaded."""
    deadline = time.monotonic() + LOAD_S
    while time.monotonic() < deadline:
        status = ask({"command": "status"})
        if all(status["sources"].get(name, {}).get("model") == CANARY for name in canary):
            return
        if CANARY not in status.get("models", {}):
            raise ConfigError("the engine could not load the new model: its log says why; nothing has changed")
        pause(POLL_S)
    raise ConfigError(f"the engine did not load the new model within {LOAD_S:g} s: nothing has changed")


def _measure_before(messages: Subscriber, watched: dict[str, _Watched], others: _Others, count: int) -> None:
    started: dict[str, float] = {}
    began, seen = time.monotonic(), 0
    while any(len(one.before) < count for one in watched.values()):
        message = messages.receive()
        one = watched.get(message.source_id) if isinstance(message, FrameMessage) else None
        seen += isinstance(message, FrameMessage) and one is None
        if one is None or not isinstance(message, FrameMessage) or len(one.before) >= count:
            continue
        started.setdefault(message.source_id, time.monotonic())
        one.names += [o.class_name for o in message.objects if o.class_name not in one.names]
        one.names = list(dict.fromkeys(one.names))
        one.before.append(facts_of_message(message, one.names))
        spent = time.monotonic() - started[message.source_id]
        one.rate_before = len(one.before) / spent if spent > 0 else 0.0
    others.rate_before = seen / max(time.monotonic() - began, 1e-3)
    for one in watched.values():
        one.monitor = DriftMonitor(make_reference(one.before, len(one.names) + 1), ALL_FRAMES)


def _watch(messages: Subscriber, watched: dict[str, _Watched], others: _Others, request: DeployRequest) -> str | None:
    """Return why the new model must go, None if it may stay."""
    began = time.monotonic()
    file = request.model.name
    while (left := began + request.watch_s - time.monotonic()) > 0:
        message = _next(messages, left)
        one = watched.get(message.source_id) if message is not None else None
        others.count += message is not None and one is None
        if message is None or one is None or message.model != file or one.monitor is None:
            continue
        one.frames += 1
        one.monitor.update(facts_of_message(message, one.names))
        indexes = one.monitor.indexes()
        for name in JUDGED:
            if name in one.monitor.raised and indexes.get(name, 0) > request.max_drift:
                return f"{message.source_id}: {name} drifted by {indexes[name]:.2f} (allowed: {request.max_drift:g})"
    share = LEAST_RATE * others.slowdown(request.watch_s)
    return next((why for name, one in watched.items() if (why := _too_slow(name, one, request.watch_s, share))), None)


def _too_slow(name: str, one: _Watched, seconds: float, share: float) -> str | None:
    if one.frames == 0:
        return f"{name}: no frame of the new model arrived within the watch"
    rate = one.frames / seconds
    if rate < share * one.rate_before:
        return f"{name}: {rate:.1f} frames per second, {one.rate_before:.1f} before"
    return None


def _next(messages: Subscriber, left_s: float) -> FrameMessage | None:
    try:
        message = messages.receive(min(left_s, POLL_S))
    except NoMessageError:
        return None
    return message if isinstance(message, FrameMessage) else None


def _measured(one: _Watched) -> dict[str, Any]:
    indexes = {} if one.monitor is None else {k: v for k, v in one.monitor.indexes().items() if k in JUDGED}
    return {"frames_before": len(one.before), "frames": one.frames, "drift": indexes}
