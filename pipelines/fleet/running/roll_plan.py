"""A rolling model change as a pure state machine: shadow, canary, then one wave of engines after another.

    shadow → canary → waves → done
       └────────┴───────┴──→ returning → returned

The state is one note in the ledger. After a restart of the controller, the step in progress starts over. Only a verdict
on the model rolls it back: an engine that died or did not answer is tried again, or later. Once a roll is done, engines
that were away meanwhile are aligned with the others.
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
STEP_TRIES = 5
MAX_ALIGNED = 16


@dataclass(frozen=True, slots=True)
class RollState:
    """The state of a roll.

    Attributes:
        model: file of the new model.
        before: file of the old one.
        canary: cameras that change first, all on one engine.
        engine: that engine.
        watch_s: seconds for which each step is observed.
        baseline: frames of the old model to compare with.
        max_drift: largest drift of classes and numbers of objects.
        stage: the current stage.
        changed: engines that have the new model, with the incarnation of their process.
        reason: why it was rolled back.
        tries: attempts at the step in progress without a verdict, or to restore the old model.
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
        """Return the state from the result of `as_dict`; keys of newer versions are ignored."""
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        return cls(**{**known, "canary": tuple(known.get("canary", ()))})

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.stage in ENDS


@dataclass(frozen=True, slots=True)
class Step:
    """The step to take now, on each of these engines at the same time.

    Attributes:
        kind: `try` (shadow), `deploy`, `restore`, or `align` (give it the model that all others have).
        engines: where to do it.
    """

    kind: Literal["try", "deploy", "restore", "align"]
    engines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a step on one engine.

    Attributes:
        passed: whether the step succeeded.
        reason: why not.
        incarnation: of the engine's process.
        is_verdict: False: the engine could not be asked, which says nothing of the model.
    """

    passed: bool
    reason: str = ""
    incarnation: str = ""
    is_verdict: bool = True


def next_step(state: RollState, engines: Mapping[str, str]) -> Step | None:
    """Return the next step; None: nothing to do, or nothing yet.

    Args:
        state: of the roll.
        engines: the live engines with the incarnations of their processes.
    """
    if state.stage == "done":
        late = tuple(missing(state, engines)[:MAX_ALIGNED])
        return Step("align", late) if late else None
    if state.stage in ("shadow", "canary"):
        kind: Literal["try", "deploy"] = "try" if state.stage == "shadow" else "deploy"
        return Step(kind, (state.engine,)) if state.engine in engines else None
    if state.stage in ("returning", "returned"):  # also engines that were away when the others returned
        back = tuple(name for name in state.changed if name in engines) if state.tries < RETURN_TRIES else ()
        return Step("restore", back) if back else None
    left = missing(state, engines)
    wave = max(1, math.ceil(WAVE_SHARE * len(engines)))
    return Step("deploy", tuple(left[:wave])) if left else None


def missing(state: RollState, engines: Mapping[str, str]) -> Sequence[str]:
    """Return the engines without the new model, including those restarted since they got it."""
    return sorted(name for name, incarnation in engines.items() if state.changed.get(name) != incarnation)


def after(state: RollState, step: Step, outcomes: Mapping[str, Outcome]) -> RollState:
    """Return the state after a step. Engines without an outcome died in the meantime and count as untried."""
    failed = {name: outcome for name, outcome in outcomes.items() if not outcome.passed}
    done = {name: outcome.incarnation for name, outcome in outcomes.items() if outcome.passed}
    if step.kind == "align":
        return replace(state, changed={**state.changed, **done})
    if step.kind == "restore":
        left = {name: i for name, i in state.changed.items() if name not in done}
        return replace(state, changed=left, tries=state.tries + bool(failed))
    changed = {**state.changed, **done} if step.kind == "deploy" else state.changed
    if failed and not any(outcome.is_verdict for outcome in failed.values()) and state.tries < STEP_TRIES:
        return replace(state, changed=changed, tries=state.tries + 1)
    if failed:
        name, outcome = max(failed.items(), key=lambda item: item[1].is_verdict)
        # a failed step has already rolled back as far as it could; the rest is cleaned up with everything else
        touched = {**changed, **{name: outcome.incarnation for name, outcome in failed.items()}}
        return replace(state, stage="returning", changed=touched, reason=f"{name}: {outcome.reason}", tries=0)
    if not done:
        return state
    return replace(state, stage="canary" if step.kind == "try" else "waves", changed=changed, tries=0)


def rehomed(state: RollState, engines: Mapping[str, str], owners: Mapping[str, str]) -> RollState:
    """Return the state with the engine that has the canary cameras now, if the one before is away.

    Args:
        state: of the roll.
        engines: the live engines.
        owners: the engine of each camera.
    """
    if state.stage not in ("shadow", "canary") or state.engine in engines:
        return state
    there = [owners[name] for name in state.canary if owners.get(name) in engines]
    if not there:
        return state
    together = tuple(name for name in state.canary if owners.get(name) == there[0])
    return replace(state, engine=there[0], canary=together, changed={**state.changed, state.engine: ""})


def settled(state: RollState, engines: Mapping[str, str]) -> RollState:
    """Return the state, finished if nothing is left to do: every live engine has the model, or no engine does."""
    is_clean = engines and not any(name in engines for name in state.changed)
    if state.stage == "returning" and (is_clean or state.tries >= RETURN_TRIES):
        return replace(state, stage="returned")
    if state.stage == "waves" and engines and not missing(state, engines):
        return replace(state, stage="done")
    return state


def stopped(state: RollState, reason: str) -> RollState:
    """Return the state of a roll stopped by a person: engines that may have the new model return to the old one."""
    touched = {state.engine: "", **state.changed}
    return state if state.is_over else replace(state, stage="returning", changed=touched, reason=reason, tries=0)
