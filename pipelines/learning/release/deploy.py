"""Deploys a model to a running engine: first to some sources, under observation, with automatic rollback.

The engine loads the model beside the old one, so no frame is lost meanwhile. A source that switches keeps its stream.
The new model is compared with earlier results of the same source (`pipelines.learning.release.watch`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.clock import pause
from engine.detection.load import load_detector
from engine.errors import ConfigError
from engine.subscriber import Subscriber
from pipelines.learning.json_files import read_json
from pipelines.learning.model_facts import model_of, sha256_of
from pipelines.learning.monitor.drift import Reference, reference_from
from pipelines.learning.release.watch import Watch

CANARY = "canary"
BASELINE_FRAMES = 60
LOAD_S = 120.0
POLL_S = 0.2
Ask = Callable[[dict[str, Any]], dict[str, Any]]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """What to deploy, and where.

    Attributes:
        model: file that the engine can read, too, or the folder of a release.
        stream: address where the engine publishes.
        canary: names of the sources that switch first; empty: the first one.
        watch_s: how long to observe them.
        baseline: frames of the old model to compare with.
        max_drift: largest population stability index of classes or numbers of objects.
        shadow: only compare; the old model always gets its sources back afterwards.
    """

    model: Path
    stream: str
    canary: tuple[str, ...] = ()
    watch_s: float = 60.0
    baseline: int = BASELINE_FRAMES
    max_drift: float = 0.25
    shadow: bool = False


def deploy(request: DeployRequest, ask: Ask, tell: Tell = lambda text: None) -> dict[str, Any]:
    """Deploy and return `deployed`, the reason, and what was measured per canary source.

    Args:
        request: what and where.
        ask: sends one request to the engine's control socket and returns its reply.
        tell: receives one line per step.

    Raises:
        ConfigError: the model, a source or a number is invalid, or the engine refuses.
        NoMessageError: the stream is silent.
    """
    if request.watch_s <= 0 or request.baseline < 10:
        raise ConfigError("watch needs a time above 0, and the baseline at least 10 frames")
    request = replace(request, model=model_of(request.model))
    names = _class_names(request.model)
    sources = list(ask({"command": "status"})["sources"])
    canary = request.canary or tuple(sources[:1])
    unknown = [name for name in canary if name not in sources]
    if unknown:
        raise ConfigError(f"the engine has no source {unknown[0]}: it has {', '.join(sources) or 'none'}")
    watch = Watch(canary, names, request.model.name, _tested(request.model))
    with Subscriber(request.stream, topics=["v1/frame/"], timeout_s=LOAD_S) as messages:
        tell(f"measuring {request.baseline} frames of the old model on {', '.join(canary)}")
        watch.measure_before(messages, request.baseline)
        facts = ask({"command": "status"})["sources"]
        _check_same_engine(request.stream, watch.engines(), facts)
        before = {name: facts[name]["model"] for name in canary}
        ask({"command": "set", "key": f"models.{CANARY}", "value": {"model": str(request.model.resolve())}})
        try:
            _move(ask, sources, dict.fromkeys(canary, CANARY))
            _wait_until_moved(ask, canary, lambda: watch.catch_up(messages))
            tell(f"{', '.join(canary)} use the new model; watching for {request.watch_s:g} s")
            reason = watch.judge(messages, request.watch_s, request.max_drift)
        except BaseException:
            _move(ask, sources, before)
            raise
    measured = watch.measured()
    if reason is not None or request.shadow:
        _move(ask, sources, before)
        tell(f"returned to the old model: {reason or 'it was a trial'}")
        passed = "it passed; a trial changes nothing" if reason is None else reason
        return {"deployed": False, "passed": reason is None, "reason": passed, "canary": measured}
    ask({"command": "set", "key": "detector.model", "value": str(request.model.resolve())})
    _move(ask, sources, before)
    tell("the new model replaces the old one for all sources")
    return {"deployed": True, "passed": True, "reason": "no alarm during the watch", "canary": measured}


def _check_same_engine(stream: str, engines: Mapping[str, str], facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `ConfigError` if the frames are those of another engine than the one that is controlled."""
    for name, engine_id in engines.items():
        controlled = facts[name].get("engine_id", engine_id)  # an engine of an earlier version does not say
        if controlled != engine_id:
            raise ConfigError(
                f"the frames of {name} at {stream} come from engine {engine_id}, and the control socket is that of "
                f"{controlled}: give stream and control address of one engine"
            )


def _tested(model: Path) -> Reference | None:
    """Return what a released model found on its test images, None if it is not the current release."""
    place, current = model.parent / "reference.json", model.parent.parent / "current.json"
    if not place.is_file() or not current.is_file() or read_json(current).get("sha256") != sha256_of(model):
        return None
    return reference_from(read_json(place))


def _class_names(model: Path) -> Sequence[str]:
    """Load the model here first, so that one that cannot be loaded is never sent, and return its classes."""
    if not model.is_file():
        raise ConfigError(f"{model}: no such model file")
    with load_detector(model, try_first=True) as detector:
        return detector.class_names


def _move(ask: Ask, sources: Sequence[str], models: dict[str, str]) -> None:
    for name, model in models.items():
        value = None if model == "detector" else model
        order = ask({"command": "status"}).get("configured", sources)  # cameras come and go
        ask({"command": "set", "key": f"sources.{list(order).index(name)}.model", "value": value})


def _wait_until_moved(ask: Ask, canary: Sequence[str], meanwhile: Callable[[], None]) -> None:
    """Wait until the canary sources use the new model. Raises `ConfigError` if it cannot be loaded."""
    deadline = time.monotonic() + LOAD_S
    while time.monotonic() < deadline:
        status = ask({"command": "status"})
        meanwhile()
        if all(status["sources"].get(name, {}).get("model") == CANARY for name in canary):
            return
        if CANARY not in status.get("models", {}):
            raise ConfigError("the engine could not load the new model: its log says why; nothing has changed")
        pause(POLL_S)
    raise ConfigError(f"the engine did not load the new model within {LOAD_S:g} s: nothing has changed")
