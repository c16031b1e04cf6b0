"""A deployment's requests to an engine: which model it replaces, and that a failed one leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from pipelines.learning.release import deploy as deploy_module
from pipelines.learning.release.deploy import DeployRequest, deploy


class Engine:
    """The control socket of a run, as far as a deployment uses it."""

    def __init__(self, **models: str) -> None:
        self.sources = dict(models)
        self.states = dict.fromkeys(models, "live")
        self.files = dict.fromkeys(models.values(), "old.onnx")
        self.refuses = ""

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["command"] == "status":
            sources = {name: {"model": model, "state": self.states[name]} for name, model in self.sources.items()}
            detector = {"model": self.files.get("detector")}
            return {"sources": sources, "detector": detector, "models": dict(self.files), "files": dict(self.files)}
        value = request["value"]
        if self.refuses and request["key"] == self.refuses:
            raise ConfigError(f"{self.refuses} is refused")
        if "source_id" in request:
            self.sources[request["source_id"]] = value or "detector"
            return {"ok": True}
        section, name, *rest = [*request["key"].split("."), ""]
        if section == "models" and rest[0] != "model":
            self.files.pop(name, None)
            self.files |= {} if value is None else {name: value["model"]}
        else:
            self.files["detector" if section == "detector" else name] = value
        return {"ok": True}


class Judge:
    """In place of `Watch`: finds what the test sets."""

    reason: str | None = None

    def __init__(self, canary: tuple[str, ...], *_: object, **__: object) -> None:
        self.canary = canary

    def measure_before(self, messages: object, frames: int) -> None:
        """Have enough frames."""

    def catch_up(self, messages: object) -> None:
        """Have read them."""

    def engines(self) -> dict[str, str]:
        return {}

    def judge(self, messages: object, seconds: float, max_drift: float) -> str | None:
        return self.reason

    def measured(self) -> dict[str, Any]:
        return {name: {} for name in self.canary}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(deploy_module, "Subscriber", lambda *_, **__: nullcontext())
    monkeypatch.setattr(deploy_module, "Watch", Judge)
    monkeypatch.setattr(deploy_module, "_class_names", lambda model: ("person",))
    (tmp_path / "new.onnx").touch()
    return tmp_path / "new.onnx"


@pytest.mark.parametrize(("canary", "replaced"), [(("gate",), "detector"), (("door", "yard"), "people")])
def test_the_model_that_the_canary_used_is_replaced_and_no_other(
    model: Path, canary: tuple[str, ...], replaced: str
) -> None:
    engine = Engine(gate="detector", door="people", yard="people")
    assert deploy(DeployRequest(model, "tcp://x", canary), engine.ask)["deployed"]
    assert engine.files == {"detector": "old.onnx", "people": "old.onnx", replaced: str(model)}
    assert engine.sources == {"gate": "detector", "door": "people", "yard": "people"}


@pytest.mark.parametrize(
    ("reason", "shadow", "refuses"),
    [
        pytest.param("objects drifted", False, "", id="a verdict"),
        pytest.param(None, True, "", id="a trial"),
        pytest.param(None, False, "detector.model", id="the engine refuses it for the others"),
        pytest.param(None, False, "model", id="the engine refuses to move the canary"),
    ],
)
def test_nothing_stays_of_a_model_that_is_not_deployed(
    model: Path, monkeypatch: pytest.MonkeyPatch, reason: str | None, shadow: bool, refuses: str
) -> None:
    engine = Engine(gate="detector", door="detector")
    monkeypatch.setattr(Judge, "reason", reason)
    if refuses == "model":
        monkeypatch.setattr(deploy_module, "_wait_until_moved", _refuse)
    else:
        engine.refuses = refuses
    request = DeployRequest(model, "tcp://x", shadow=shadow)
    if refuses:
        with pytest.raises(ConfigError, match="refused"):
            deploy(request, engine.ask)
    else:
        assert not deploy(request, engine.ask)["deployed"]
    assert engine.sources == {"gate": "detector", "door": "detector"}
    assert engine.files == {"detector": "old.onnx"}


def _refuse(*_: object) -> None:
    raise ConfigError("the model is refused")


def test_a_camera_that_is_removed_meanwhile_does_not_keep_the_others_from_returning(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(gate="detector", door="detector")

    def wait(ask: object, canary: object, meanwhile: Callable[[], None]) -> None:
        del engine.sources["gate"]

    monkeypatch.setattr(deploy_module, "_wait_until_moved", wait)
    deploy(DeployRequest(model, "tcp://x", ("gate", "door")), engine.ask)
    assert engine.sources == {"door": "detector"}


def test_without_a_choice_the_first_live_source_is_the_canary(model: Path) -> None:
    engine = Engine(gate="detector", door="detector")
    engine.states["gate"] = "offline"
    assert list(deploy(DeployRequest(model, "tcp://x"), engine.ask)["canary"]) == ["door"]
    engine.states["door"] = "offline"
    assert list(deploy(DeployRequest(model, "tcp://x"), engine.ask)["canary"]) == ["gate"]


@pytest.mark.parametrize(
    ("engine", "canary", "why"),
    [
        pytest.param(Engine(a="people", b="cars"), ("a", "b"), "use different models .a: people, b: cars", id="two"),
        pytest.param(Engine(a="canary"), (), "a still uses the model of a deployment that was interrupted", id="stuck"),
        pytest.param(Engine(a="detector"), ("b",), "has no source b: it has a", id="unknown"),
        pytest.param(Engine(), (), "has no source to try the model on", id="none"),
    ],
)
def test_sources_that_cannot_be_a_canary_are_refused(
    model: Path, engine: Engine, canary: tuple[str, ...], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        deploy(DeployRequest(model, "tcp://x", canary), engine.ask)
