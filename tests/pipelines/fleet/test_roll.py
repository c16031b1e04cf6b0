"""The rolling change of a model: its plan as a pure state machine, and on real engines with a restart of the head."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from pipelines.fleet.ledger.sqlite import SqliteLedger
from pipelines.fleet.running import roll as roll_module
from pipelines.fleet.running.roll import Roll, canary_on
from pipelines.fleet.running.roll_plan import (
    STEP_TRIES,
    Outcome,
    RollState,
    Step,
    after,
    missing,
    next_step,
    rehomed,
    settled,
    stopped,
)
from pipelines.learning.release.deploy import DeployRequest, wait_until_loaded
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


def test_an_engine_that_cannot_be_asked_says_nothing_of_the_model() -> None:
    """It is tried again, a few times; an engine that died meanwhile does not count at all."""
    silent = {"n00": Outcome(False, "no answer", "i0", is_verdict=False)}
    step, state = Step("deploy", ("n00",)), RollState.from_dict({**BEGIN.as_dict(), "stage": "canary"})
    assert after(state, step, {}) == state
    for tries in range(1, STEP_TRIES + 1):
        state = after(state, step, silent)
        assert (state.stage, state.tries) == ("canary", tries)
    assert after(state, step, silent).stage == "returning"
    assert after(state, step, {"n00": Outcome(True, "", "i0")}).tries == 0


def test_canary_cameras_that_moved_take_the_canary_along() -> None:
    state = RollState("/new.onnx", "/old.onnx", ("c1", "c2"), "n99", stage="canary")
    assert rehomed(state, ENGINES, {"c1": "n99"}) == state  # nobody has them yet
    moved = rehomed(state, ENGINES, {"c1": "n03", "c2": "n04"})
    assert (moved.engine, moved.canary) == ("n03", ("c1",))
    assert "n99" in moved.changed  # it gets the old model back, should it return


def test_engines_that_were_away_are_aligned_afterwards() -> None:
    done = run(BEGIN)[0]
    back = ENGINES | {"n77": "i77"}
    assert next_step(done, ENGINES) is None
    assert next_step(done, back) == Step("align", ("n77",))
    assert next_step(after(done, Step("align", ("n77",)), {"n77": Outcome(True, "", "i77")}), back) is None
    returned = RollState.from_dict({**BEGIN.as_dict(), "stage": "returned", "changed": {"n77": "i77"}})
    assert next_step(returned, ENGINES) is None
    assert next_step(returned, back) == Step("restore", ("n77",))


class Engines:
    """The control sockets of two engines, as far as a roll asks them."""

    def __init__(self, model: str) -> None:
        self.models = {"n1": model, "n2": model}
        self.done: list[tuple[str, str]] = []

    def ask_of(self, engine_id: str) -> Any:
        def ask(request: dict[str, Any]) -> dict[str, Any]:
            if request["command"] == "set":
                self.models[engine_id] = str(request["value"])
                return {"ok": True}
            sources = {"c" + engine_id: {"model": "detector", "state": "live"}}
            return {"sources": sources, "detector": {"model": self.models[engine_id]}}

        return ask


def test_a_restarted_controller_goes_on_with_the_step_that_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "new.onnx"
    model.write_bytes(b"model")
    ledger, engines, hangs = SqliteLedger(tmp_path / "ledger.db"), Engines("/old.onnx"), threading.Event()
    live, owners = {"n1": "i1", "n2": "i2"}, {"cn1": "n1", "cn2": "n2"}

    def deploy(request: DeployRequest, ask: Any, tell: Any) -> dict[str, Any]:
        if not request.shadow and not hangs.is_set():
            ask({"command": "set", "key": "detector.model", "value": str(request.model)})
            hangs.set()
            never.wait(60)  # the controller is killed here
        if not request.shadow:
            ask({"command": "set", "key": "detector.model", "value": str(request.model)})
        return {"passed": True, "reason": ""}

    def turn_until(roll: Roll, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            roll.turn(live, lambda: owners)
            time.sleep(0.002)
        assert condition(), roll.status()

    never = threading.Event()
    monkeypatch.setattr(roll_module, "deploy", deploy)
    started: list[str | None] = []
    first = Roll(ledger, engines.ask_of, "ipc:///stream", started.append)
    first.begin({"model": str(model)}, owners, lambda name: engines.models[name])
    turn_until(first, hangs.is_set)
    assert (first.status()["stage"], engines.models) == ("canary", {"n1": str(model), "n2": "/old.onnx"})

    second = Roll(SqliteLedger(tmp_path / "ledger.db"), engines.ask_of, "ipc:///stream", started.append)
    turn_until(second, lambda: second.status()["stage"] == "done")
    assert set(engines.models.values()) == {str(model)}
    assert started == [str(model)]
    never.set()
    engines.models["n2"], live["n2"] = "/old.onnx", "another process"  # it was away, and started with the old model
    turn_until(second, lambda: second.status()["changed"].get("n2") == "another process")
    assert set(engines.models.values()) == {str(model)}
    first.close()
    second.close()


def test_a_model_is_compared_on_cameras_that_send_images_and_use_the_model_that_changes() -> None:
    def source(state: str = "live", model: str = "detector") -> dict[str, str]:
        return {"state": state, "model": model}

    sources = {"c1": source("connecting"), "c2": source(model="plates"), "c3": source(), "c4": source()}
    assert canary_on(sources, ()) == ("c3",)
    assert canary_on(sources, ("c1", "c4")) == ("c4",)
    assert canary_on(sources, ("c1",)) == ("c3",)
    assert canary_on({"c1": source("ended")}, ("c1",)) == ()


def test_an_engine_whose_cameras_all_are_offline_gets_the_model_unwatched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an offline camera as canary, each try would wait for its frames, and the model would be rolled back."""
    model, engines = tmp_path / "new.onnx", Engines("/old.onnx")
    model.write_bytes(b"model")
    watched: list[tuple[str, ...]] = []

    def deploy(request: DeployRequest, ask: Any, tell: Any) -> dict[str, Any]:
        watched.append(request.canary)
        return {"passed": True, "reason": ""}

    def ask_of(engine_id: str) -> Any:
        def ask(request: dict[str, Any]) -> dict[str, Any]:
            reply: dict[str, Any] = engines.ask_of(engine_id)(request)
            if engine_id == "n2" and "sources" in reply:
                reply["sources"]["cn2"]["state"] = "connecting"
            return reply

        return ask

    monkeypatch.setattr(roll_module, "deploy", deploy)
    roll = Roll(SqliteLedger(":memory:"), ask_of, "ipc:///stream", lambda model: None)
    roll.begin({"model": str(model)}, {"cn1": "n1"}, lambda name: "/old.onnx")
    deadline = time.monotonic() + 60
    while roll.is_active and time.monotonic() < deadline:
        roll.turn({"n1": "i1", "n2": "i2"}, lambda: {"cn1": "n1"})
        time.sleep(0.002)
    roll.close()
    assert roll.status()["stage"] == "done", roll.status()
    assert watched == [("cn1",)] * 2
    assert engines.models["n2"] == str(model)


def test_a_step_waits_until_an_engine_has_loaded_the_model() -> None:
    replies = [{"loading": ["canary"], "files": {"canary": "/new"}}] * 2 + [
        {"loading": [], "files": {"canary": "/new"}}
    ]
    asked: list[dict[str, Any]] = []

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return replies[len(asked) - 1]

    wait_until_loaded(ask, "canary", "/new")
    assert len(asked) == 3
    with pytest.raises(ConfigError, match="could not load /new"):
        wait_until_loaded(lambda request: {"loading": [], "files": {"canary": "/old"}}, "canary", "/new")


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({}, "expected the path of a model"),
        ({"model": "/missing.onnx"}, "no such model file"),
        pytest.param({"model": "x" * 5000}, "no such model file", id="a long name"),
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
        rolled = roll_a_model(lab, good, watch_s=15.0, baseline=60, restart=True)
        assert rolled["stage"] == "done", rolled["reason"]
        assert rolled["cameras_with_the_new_model_now"] == 4
        assert rolled["frames_unaccounted"] == 0
        returned = roll_a_model(lab, bad, watch_s=20.0, baseline=60)
        assert returned["stage"] == "returned"
        assert "classes drifted" in returned["reason"]
        assert returned["cameras_with_the_new_model_for_a_while"] == 1
        lab.wait(lambda: all(lab.reader.last(name).model == good.name for name in lab.cameras), "the old model")
        assert returned["disorder"] == []
