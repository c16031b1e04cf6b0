"""Rolls out a model to all engines according to `roll_plan`, using the learning tools' `deploy` on each.

The work is done on separate threads, each with its own connections; the controller's thread holds the state.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.data import DEFAULT_MODEL
from engine.errors import ConfigError, EngineError
from pipelines.fleet.ledger.records import Ledger
from pipelines.fleet.running.roll_plan import (
    Outcome,
    RollState,
    Step,
    after,
    next_step,
    rehomed,
    settled,
    stopped,
)
from pipelines.learning.release.deploy import (
    CANARY,
    Ask,
    DeployRequest,
    change_model,
    deploy,
    free_canary,
    return_sources,
)

logger = logging.getLogger(__name__)
NOTE, MODEL = "roll", "model"
MAX_AT_ONCE = 16
AskOf = Callable[[str], Ask]
MAX_WATCH_S, MAX_BASELINE = 86_400.0, 100_000


class Roll:
    """One rolling change at a time; used by the controller's thread.

    Args:
        ledger: stores the state, and the name of the fleet's model.
        ask_of: returns the function that asks one engine; called on other threads.
        stream: where readers of the fleet subscribe; None: there is no collector, so nothing can be compared.
        set_model: called with the model that engines start with from now on.
    """

    def __init__(
        self, ledger: Ledger, ask_of: AskOf, stream: str | None, set_model: Callable[[str | None], object]
    ) -> None:
        self._ledger, self._ask_of, self._stream, self._set_model = ledger, ask_of, stream, set_model
        self._note = ledger.note(NOTE)
        self.state = None if self._note is None else _state_from(self._note)
        self._step: Step | None = None
        self._work: dict[str, Future[Outcome]] = {}
        self._pool = ThreadPoolExecutor(MAX_AT_ONCE, thread_name_prefix="roll")
        self._is_resumed = self.is_active

    @property
    def is_active(self) -> bool:
        """Whether a roll is in progress."""
        return self.state is not None and not self.state.is_over

    def begin(self, request: Mapping[str, Any], owners: Mapping[str, str], before: Callable[[str], str]) -> None:
        """Begin a roll.

        Args:
            request: `model` and, optionally, `canary`, `watch_s`, `baseline` and `max_drift`.
            owners: the engine of each camera that runs with the model that changes; the first is the usual canary.
            before: returns the model file that an engine uses now.

        Raises:
            ConfigError: a roll is in progress, or the model, a camera or a number is invalid.
        """
        if self.state is not None and self.is_active:
            raise ConfigError(f"{self.state.model} is being rolled out: wait, or stop it with fleet roll --stop")
        if self._stream is None:
            raise ConfigError("a roll compares what readers see: it needs a collector (collector.collect)")
        model = Path(_text(request, "model")).absolute()
        if not os.path.isfile(model):  # not Path.is_file, which raises OSError for a name that is too long
            raise ConfigError(f"{str(model)[:200]}: no such model file on the controller's machine")
        canary = _canary(request, owners)
        engine = owners[canary[0]]
        apart = [name for name in canary if owners[name] != engine]
        if apart:
            raise ConfigError(f"canary cameras must be on one engine: {canary[0]} is on {engine}, {apart[0]} is not")
        limits = {
            "watch_s": _number(request, "watch_s", 60.0, MAX_WATCH_S),
            "baseline": int(_number(request, "baseline", 60, MAX_BASELINE)),
            "max_drift": _number(request, "max_drift", 0.25, 100.0),
        }
        facts = {"model": str(model), "before": before(engine), "canary": canary, "engine": engine}
        self._keep(RollState.from_dict(facts | limits))

    def stop(self) -> None:
        """Return to the old model once the step in progress has ended. Raises `ConfigError` if no roll is active."""
        if self.state is None or not self.is_active:
            raise ConfigError("no roll is in progress")
        self._keep(stopped(self.state, "ended by hand"))

    def turn(self, engines: Mapping[str, str], owners: Callable[[], Mapping[str, str]]) -> None:
        """Process finished steps and begin what is due; does not wait.

        Args:
            engines: the live engines with the incarnations of their processes.
            owners: returns the engine of each camera that runs.

        Raises:
            LedgerError: the state could not be written: call it again.
        """
        if self.state is None or any(not work.done() for work in self._work.values()):
            return
        if self._step is not None:
            self._take_in(self.state, self._step, engines)
            self._step, self._work = None, {}
        state = self.state
        if state.stage in ("shadow", "canary") and state.engine not in engines:
            state = rehomed(state, engines, owners())
        state = settled(state, engines)
        self._keep(state)
        step = next_step(state, engines)
        if step is None:
            return
        self._step = step
        clean, self._is_resumed = self._is_resumed, False
        self._work = {
            name: self._pool.submit(self._do, step.kind, state, name, engines[name], clean) for name in step.engines
        }

    def _take_in(self, state: RollState, step: Step, engines: Mapping[str, str]) -> None:
        """Record the outcome of a step."""
        outcomes = {name: work.result() for name, work in self._work.items()}
        if state.stage == "returning" and step.kind != "restore":  # stopped by hand, maybe after the model had changed
            touched = {**state.changed, **{name: outcome.incarnation for name, outcome in outcomes.items()}}
            self._keep(replace(state, changed=touched))
            return
        if (step.kind == "align") != (state.stage == "done"):
            return  # another roll has begun meanwhile
        for name, outcome in outcomes.items():
            if not outcome.passed:
                logger.warning("roll on %s: %s", name, outcome.reason)
        alive = {
            name: outcome
            for name, outcome in outcomes.items()
            if outcome.passed or engines.get(name) == outcome.incarnation
        }
        self._keep(after(state, step, alive))

    def _keep(self, state: RollState) -> None:
        """Write the state to the ledger and, at the end, the fleet's new model."""
        if state == self.state:
            return
        is_new_stage = self.state is None or state.stage != self.state.stage
        note = json.dumps(state.as_dict())
        if state.stage == "done":
            self._ledger.set_note(MODEL, self._ledger.note(MODEL), state.model)
        if not self._ledger.set_note(NOTE, self._note, note) and self._ledger.note(NOTE) != note:
            raise ConfigError("another controller has changed the roll: stop one of them")
        self.state, self._note = state, note
        if is_new_stage:
            logger.warning("roll of %s: %s %s", Path(state.model).name, state.stage, state.reason)
        if state.stage == "done":
            self._set_model(state.model)

    def _do(self, kind: str, state: RollState, engine_id: str, incarnation: str, clean: bool) -> Outcome:
        """Perform a step on one engine; runs on a thread of the pool."""
        ask = self._ask_of(engine_id)
        try:
            if kind == "align":
                return _aligned(ask, state.model, incarnation)
            if clean or kind == "restore":
                restore(ask, state.before)
            if kind == "restore":
                return Outcome(True, "", incarnation)
            canary = canary_on(ask({"command": "status"})["sources"], state.canary)
            if not canary:  # nothing to compare: none of its cameras sends images, or they use other models
                if kind == "deploy":
                    change_model(ask, state.model)
                return Outcome(True, "", incarnation)
            request = DeployRequest(
                Path(state.model),
                self._stream or "",
                canary,
                state.watch_s,
                state.baseline,
                state.max_drift,
                shadow=kind == "try",
            )
            done = deploy(request, ask, lambda text: logger.info("roll on %s: %s", engine_id, text))
            return Outcome(bool(done["passed"]), str(done["reason"]), incarnation)
        except (EngineError, KeyError, ValueError) as error:
            return Outcome(False, str(error), incarnation, is_verdict=False)
        except Exception as error:  # a bug must not end the fleet
            logger.exception("the roll failed on %s", engine_id)
            return Outcome(False, f"{type(error).__name__}: {error}", incarnation, is_verdict=False)

    def status(self) -> dict[str, Any]:
        """Return the progress of the roll; empty if there was none."""
        return {} if self.state is None else self.state.as_dict()

    def close(self) -> None:
        """Begin nothing more; steps in progress continue until they notice."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _state_from(note: str) -> RollState:
    try:
        return RollState.from_dict(json.loads(note))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"ledger: the note {NOTE} is not the state of a roll ({error}): remove it") from error


def _aligned(ask: Ask, model: str, incarnation: str) -> Outcome:
    """Switch an engine that was away to the model of the fleet."""
    change_model(ask, model)
    return Outcome(True, "", incarnation)


def restore(ask: Ask, model: str) -> None:
    """Return all cameras of an engine to the old model, and wait until they have it."""
    sources = ask({"command": "status"})["sources"]
    return_sources(ask, {name: DEFAULT_MODEL for name, facts in sources.items() if facts.get("model") == CANARY})
    free_canary(ask)
    change_model(ask, model)


def canary_on(sources: Mapping[str, Mapping[str, Any]], wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the cameras of an engine with which a new model is compared: running ones with the model that changes.

    Args:
        sources: the facts of its cameras by name, as in its status.
        wanted: cameras to prefer; otherwise the first that can serve.
    """
    fit = [name for name, facts in sources.items() if facts["state"] == "live" and facts["model"] == DEFAULT_MODEL]
    return tuple(name for name in wanted if name in fit) or tuple(fit[:1])


def _canary(request: Mapping[str, Any], owners: Mapping[str, str]) -> list[str]:
    if not owners:
        raise ConfigError("no running camera uses the fleet's model: there is nothing to compare a new one with")
    asked = request.get("canary") or list(owners)[:1]
    if not isinstance(asked, list) or not all(isinstance(name, str) for name in asked):
        raise ConfigError("canary: expected a list of names of running cameras")
    unknown = [name for name in asked if name not in owners]
    if unknown:
        raise ConfigError(
            f"canary: {unknown[0]} does not run with the fleet's model; expected one of: "
            f"{', '.join(sorted(owners)[:10])}"
        )
    return asked


def _text(request: Mapping[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"roll: {key} is {value!r}: expected the path of a model")
    return value


def _number(request: Mapping[str, Any], key: str, default: float, most: float) -> float:
    value = request.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ConfigError(f"roll: {key} is {value!r}: expected a number above 0, at most {most:g}")
    return value
