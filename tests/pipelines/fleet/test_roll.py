"""The rolling change of a model: its plan as a pure state machine, and on real engines with a restart of the head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from pipelines.fleet.ledger.sqlite import SqliteLedger
from pipelines.fleet.running.roll import Roll
from pipelines.fleet.running.roll_plan import Outcome, RollState, Step, after, missing, next_step, settled, stopped
from tests.pipelines.fleet.lab import boxes_model, fleet_lab, roll_a_model

ENGINES = {f"n{i:02}": f"i{i}" for i in range(40)}
BEGIN = RollState("/new.onnx", "/old.onnx", ("c1",), "n00")


def run(state: RollState, bad: str = "") -> tuple[RollState, list[Step]]:
    """Carry out the steps, failing on one engine, and return the end and what was done."""
    steps: list[Step] = []
    while (step := next_step(state, ENGINES)) is not None:
        steps.append(step)
        outcomes = {n: Outcome(n != bad or step.kind == "restore", "it drifted", ENGINES[n]) for n in step.engines}
        state = settled(after(state, step, outcomes), ENGINES)
        state = RollState.from_dict(json.loads(json.dumps(state.as_dict())))  # as a restart finds it
    return state, steps


def test_a_good_model_reaches_the_canary_first_and_then_a_few_engines_at_a_time() -> None:
    state, steps = run(BEGIN)
    assert state.stage == "done"
    assert [(step.kind, step.engines) for step in steps[:2]] == [("try", ("n00",)), ("deploy", ("n00",))]
    assert max(len(step.engines) for step in steps) == 2  # 5 % of 40
    assert sorted(name for step in steps[1:] for name in step.engines) == sorted(ENGINES)


def test_a_bad_model_never_leaves_the_canary() -> None:
    state, steps = run(BEGIN, bad="n00")
    assert (state.stage, state.reason) == ("returned", "n00: it drifted")
    assert {name for step in steps for name in step.engines} == {"n00"}
    assert steps[-1].kind == "restore"


def test_a_model_that_fails_later_leaves_every_engine_again() -> None:
    state, steps = run(BEGIN, bad="n07")
    assert (state.stage, dict(state.changed)) == ("returned", {})
    changed = {name for step in steps if step.kind == "deploy" for name in step.engines}
    assert set(steps[-1].engines) == changed
    assert steps[-1].kind == "restore"


def test_an_engine_that_started_again_gets_the_model_again() -> None:
    state, _ = run(BEGIN)
    waves = RollState.from_dict({**state.as_dict(), "stage": "waves"})
    again = ENGINES | {"n05": "another process"}
    assert missing(waves, again) == ["n05"]
    assert next_step(waves, again) == Step("deploy", ("n05",))


def test_a_roll_ended_by_hand_returns() -> None:
    state = stopped(after(BEGIN, Step("try", ("n00",)), {"n00": Outcome(True)}), "ended by hand")
    assert run(state)[0].stage == "returned"
    done = run(BEGIN)[0]
    assert stopped(done, "too late") == done


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({}, "expected the path of a model"),
        ({"model": "/missing.onnx"}, "no such model file"),
        ({"model": __file__, "canary": ["c9"]}, "c9 does not run"),
        ({"model": __file__, "canary": ["c1", "c2"]}, "must be on one engine"),
        ({"model": __file__, "watch_s": -1}, "watch_s is -1"),
        ({"model": __file__, "baseline": True}, "baseline is True"),
    ],
)
def test_a_roll_that_cannot_work_is_refused_with_the_reason(request_: dict[str, Any], why: str) -> None:
    roll = Roll(SqliteLedger(":memory:"), lambda name: lambda request: {}, "ipc:///nowhere", lambda model: None)
    with pytest.raises(ConfigError, match=why):
        roll.begin(request_, {"c1": "n1", "c2": "n2"}, lambda name: "old.onnx")
    assert not roll.is_active


@pytest.mark.soak  # the plan is tested above; here it takes minutes, and the rate of the canary is compared
@pytest.mark.timeout(1200)
def test_a_model_is_rolled_out_over_a_restart_of_the_head_and_a_bad_one_returns(tmp_path: Path) -> None:
    old, good = (boxes_model(tmp_path / f"{name}.onnx", ("person", "dog")) for name in ("old", "good"))
    bad = boxes_model(tmp_path / "bad.onnx", ("dog", "person"))
    with fleet_lab(4, lease_s=120.0, engine={"detector": {"model": str(old)}}) as lab:
        rolled = roll_a_model(lab, good, watch_s=15.0, baseline=10, restart=True)
        assert rolled["stage"] == "done", rolled["reason"]
        assert rolled["cameras_with_the_new_model_now"] == 4
        returned = roll_a_model(lab, bad, watch_s=20.0, baseline=20)
        assert returned["stage"] == "returned"
        assert "classes drifted" in returned["reason"]
        assert returned["cameras_with_the_new_model_for_a_while"] == 1
        lab.wait(lambda: all(lab.reader.last(name).model == good.name for name in lab.cameras), "the old model")
        assert returned["disorder"] == []
