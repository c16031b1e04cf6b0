"""Deploys a model to a running engine: first to some sources, under observation, with automatic rollback.

The engine loads the model beside the old one, so no frame is lost meanwhile. A source that switches keeps its stream.
The new model is compared with earlier results of the same source (`pipelines.learning.release.watch`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.clock import pause
from engine.data import DEFAULT_MODEL
from engine.detection.load import load_detector
from engine.errors import ConfigError
from engine.subscriber import Subscriber
from engine.wire import topic_for
from pipelines.learning.json_files import read_json
from pipelines.learning.model_facts import model_of, sha256_of
from pipelines.learning.monitor.drift import Reference, reference_from
from pipelines.learning.release.watch import Watch

CANARY = "canary"
BASELINE_FRAMES = 60
LOAD_S = 120.0
MAX_TOPICS = 100
"""Publishers limit the bytes of subscriptions; with more sources than this, the whole stream is read."""
POLL_S = 0.2
RETURN_S = 5.0
Ask = Callable[[dict[str, Any]], dict[str, Any]]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """What to deploy, and where.

    Attributes:
        model: file, or the folder of a release; the engine must be able to read it.
        stream: address where the engine publishes.
        canary: names of the sources that switch first, which must use the same model; empty: the first live one.
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
        ConfigError: the model, a source or a number is invalid, or the engine refuses; sources keep their old model.
        NoMessageError: the stream, or a canary source of it, is silent.
    """
    if request.watch_s <= 0 or request.baseline < 10:
        raise ConfigError("watch needs a time above 0, and the baseline at least 10 frames")
    request = replace(request, model=model_of(request.model))
    names = _class_names(request.model)
    status = ask({"command": "status"})["sources"]
    if not status:
        raise ConfigError("the engine has no source to try the model on: add one, then deploy again")
    canary = request.canary or _first(status)
    unknown = [name for name in canary if name not in status]
    if unknown:
        raise ConfigError(f"the engine has no source {unknown[0]}: it has {', '.join(status)}")
    watch = Watch(canary, names, request.model.name, _tested(request.model), others=list(status))
    with Subscriber(request.stream, topics=_topics(list(status))) as messages:
        tell(f"measuring {request.baseline} frames of the old model on {', '.join(canary)}")
        watch.measure_before(messages, request.baseline)
        facts = ask({"command": "status"})["sources"]
        before = _models_of(canary, facts)
        _check_same_engine(request.stream, watch.engines(), facts)
        return _replace(request, watch, messages, before, ask, tell)


def _replace(
    request: DeployRequest, watch: Watch, messages: Subscriber, before: Mapping[str, str], ask: Ask, tell: Tell
) -> dict[str, Any]:
    """Try the model on the canary sources, and replace their old one if it passes."""
    file, canary = str(request.model.resolve()), list(before)
    ask({"command": "set", "key": f"models.{CANARY}", "value": {"model": file}})
    try:
        wait_until_loaded(ask, CANARY, file, lambda: watch.catch_up(messages))  # CANARY may be an earlier model
        _move(ask, dict.fromkeys(canary, CANARY))
        _wait_until_moved(ask, canary, lambda: watch.catch_up(messages))
        tell(f"{', '.join(canary)} use the new model; watching for {request.watch_s:g} s")
        reason = watch.judge(messages, request.watch_s, request.max_drift)
        if reason is None and not request.shadow:
            change_model(ask, file, before[canary[0]])
    finally:
        return_sources(ask, before)
        free_canary(ask)
    measured = watch.measured()
    if reason is not None or request.shadow:
        tell(f"returned to the old model: {reason or 'it was a trial'}")
        passed = "it passed; a trial changes nothing" if reason is None else reason
        return {"deployed": False, "passed": reason is None, "reason": passed, "canary": measured}
    tell("the new model replaces the old one for all sources that used it")
    return {"deployed": True, "passed": True, "reason": "no alarm during the watch", "canary": measured}


def _first(sources: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the first live source; the first of all if none is live."""
    live = [name for name, facts in sources.items() if facts.get("state", "live") == "live"]
    return tuple([*live, *sources][:1])


def _models_of(canary: Sequence[str], facts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the model that each canary source uses. Raises `ConfigError` unless they can be replaced together."""
    gone = [name for name in canary if name not in facts]
    if gone:
        raise ConfigError(f"{gone[0]} is no longer a source of the engine: choose another with --canary")
    models = {name: str(facts[name]["model"]) for name in canary}
    stuck = [name for name, model in models.items() if model == CANARY]
    if stuck:
        raise ConfigError(
            f"{stuck[0]} still uses the model of a deployment that was interrupted: return it to the old one "
            "(framewire ctl set sources.N.model null), then deploy again"
        )
    if len(set(models.values())) > 1:
        used = ", ".join(f"{name}: {model}" for name, model in models.items())
        raise ConfigError(f"the canary sources use different models ({used}): choose sources that use the same one")
    return models


def _check_same_engine(stream: str, engines: Mapping[str, str], facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `ConfigError` if the frames come from an engine other than the controlled one."""
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


def _topics(sources: Sequence[str]) -> list[str]:
    """Return what to subscribe to, so that the sources of other engines at the same address are not read."""
    return [topic_for("frame", name) for name in sources] if len(sources) <= MAX_TOPICS else ["v1/frame/"]


def change_model(ask: Ask, file: str, model: str = DEFAULT_MODEL) -> None:
    """Give all sources that use a model another file, and wait until it is in use. Raises `ConfigError`."""
    status = ask({"command": "status"})
    key, now = f"models.{model}.model", status.get("files", {}).get(model)
    if model == DEFAULT_MODEL:
        key, now = "detector.model", status["detector"]["model"]
    if now != file:
        ask({"command": "set", "key": key, "value": file})
    wait_until_loaded(ask, model, file)


def free_canary(ask: Ask) -> None:
    """Let the engine free the model that a deployment tried, once no source uses it."""
    with suppress(ConfigError):  # engines of earlier versions keep the model
        ask({"command": "set", "key": f"models.{CANARY}", "value": None})


def return_sources(ask: Ask, models: Mapping[str, str]) -> None:
    """Return each source that is still there to a model, and wait until they use it, but not for long.

    A source without frames changes its model with its next one.
    """
    _move(ask, models)
    deadline = time.monotonic() + RETURN_S
    while time.monotonic() < deadline:
        sources = ask({"command": "status"})["sources"]
        if all(sources[name]["model"] == model for name, model in models.items() if name in sources):
            return
        pause(POLL_S)


def _move(ask: Ask, models: Mapping[str, str]) -> None:
    present = ask({"command": "status"})["sources"]
    for name, model in models.items():
        if name in present:
            value = None if model == DEFAULT_MODEL else model
            ask({"command": "set", "source_id": name, "key": "model", "value": value})


def wait_until_loaded(ask: Ask, model: str, file: str, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Wait until a model of the engine comes from this file. Raises `ConfigError` if it cannot be loaded.

    Args:
        ask: as for `deploy`.
        model: its name in the engine.
        file: its file, as it was given to the engine.
        meanwhile: called about five times a second.
    """
    deadline = time.monotonic() + LOAD_S
    while time.monotonic() < deadline:
        status = ask({"command": "status"})
        meanwhile()
        if model not in status.get("loading", ()):
            if status.get("files", {}).get(model, file) != file:
                raise ConfigError(f"the engine could not load {file}: its log says why; nothing has changed")
            return
        pause(POLL_S)
    raise ConfigError(f"the engine did not load {file} within {LOAD_S:g} s")


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
