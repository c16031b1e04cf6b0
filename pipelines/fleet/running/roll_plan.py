"""A rolling change of the model as a pure state machine: shadow, canary, one wave of engines after another.

    shadow → canary → waves → done
       └────────┴───────┴──→ returning → returned

The state is one note in the ledger. After a restart of the controller the step in progress is begun again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

Stage = Literal["shadow", "canary", "waves", "returning", "done", "returned"]
ENDS = ("done", "returned")
WAVE_SHARE = 0.05
RETURN_TRIES = 20


@dataclass(frozen=True, slots=True)
class RollState:
    """How far a roll is.

    Attributes:
        model: file of the new model.
        before: file of the old one.
        canary: cameras that change first; all on one engine.
        engine: that engine.
        watch_s: seconds for which each step is watched.
        baseline: frames of the old model to compare with.
        max_drift: largest drift of classes and numbers of objects.
        stage: what is being done.
        changed: engines that have the new model, with the incarnation of their process.
        reason: why it returned.
        tries: attempts to give the old model back.
    """

    model: str
    before: str
    canary: tuple[str, ...]
    engine: str
    watch_s: float = 60.0
    baseline: int = 60
    max_drift: float = 0.25
    stage: Stage = "shadow"
    changed: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    tries: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RollState:
        """Return the state from what `as_dict` returned; keys of newer versions are left out."""
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        return cls(**{**known, "canary": tuple(known.get("canary", ()))})

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.stage in ENDS


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done now, on each of these engines at the same time.

    Attributes:
        kind: `try` (shadow), `deploy` or `restore`.
        engines: where.
    """

    kind: Literal["try", "deploy", "restore"]
    engines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a step on one engine.

    Attributes:
        passed: whether it has what the step was for.
        reason: why not.
        incarnation: of the engine's process.
    """

    passed: bool
    reason: str = ""
    incarnation: str = ""


def next_step(state: RollState, engines: Mapping[str, str]) -> Step | None:
    """Return what is to be done next; None: nothing, or nothing yet.

    Args:
        state: how far it is.
        engines: the live engines with the incarnations of their processes.
    """
    if state.is_over:
        return None
    if state.stage in ("shadow", "canary"):
        return (
            Step("try" if state.stage == "shadow" else "deploy", (state.engine,)) if state.engine in engines else None
        )
    if state.stage == "returning":
        back = tuple(name for name in state.changed if name in engines)
        return Step("restore", back) if back else None
    left = missing(state, engines)
    wave = max(1, math.ceil(WAVE_SHARE * len(engines)))
    return Step("deploy", tuple(left[:wave])) if left else None


def missing(state: RollState, engines: Mapping[str, str]) -> Sequence[str]:
    """Return the engines without the new model, also those that have started again since they got it."""
    return sorted(name for name, incarnation in engines.items() if state.changed.get(name) != incarnation)


def after(state: RollState, step: Step, outcomes: Mapping[str, Outcome]) -> RollState:
    """Return the state after a step."""
    if step.kind == "restore":
        left = {name: i for name, i in state.changed.items() if name not in outcomes or not outcomes[name].passed}
        return settled(replace(state, changed=left, tries=state.tries + 1), {})
    failed = {name: outcome for name, outcome in outcomes.items() if not outcome.passed}
    done = {name: outcome.incarnation for name, outcome in outcomes.items() if outcome.passed}
    if failed:
        name, outcome = next(iter(failed.items()))
        # a step that failed has returned by itself as far as it could: what it left behind is cleaned with the rest
        touched = dict(state.changed) | done | dict.fromkeys(failed, outcome.incarnation)
        return replace(state, stage="returning", changed=touched, reason=f"{name}: {outcome.reason}")
    if step.kind == "try":
        return replace(state, stage="canary")
    return replace(state, stage="waves", changed=dict(state.changed) | done)


def settled(state: RollState, engines: Mapping[str, str]) -> RollState:
    """Return the state, ended if nothing is left: every live engine has the model, or none has it any more."""
    if state.stage == "returning" and (not state.changed or state.tries >= RETURN_TRIES):
        return replace(state, stage="returned")
    if state.stage == "waves" and engines and not missing(state, engines):
        return replace(state, stage="done")
    return state


def stopped(state: RollState, reason: str) -> RollState:
    """Return the state of a roll that a person ends: the engines that may have the new model get the old one."""
    touched = {state.engine: "", **state.changed}
    return state if state.is_over else replace(state, stage="returning", changed=touched, reason=reason)
