"""How the controller treats wrong answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.clock import FakeClock
from pipelines.fleet.control.controller import Controller
from pipelines.fleet.control.facts import CameraSpec
from pipelines.fleet.control.hearing import MAX_ADOPTED
from pipelines.fleet.ledger.sqlite import SqliteLedger
from pipelines.fleet.placement.facts import Machine
from pipelines.running.control_links import Answer


class Scripted:
    """Answers every request in the same way."""

    def __init__(self, reply: dict[str, Any]) -> None:
        self.reply, self.sent = reply, list[Answer]()
        self.commands: list[str] = []

    def send(self, engine_id: str, request: dict[str, Any]) -> None:
        self.commands.append(request["command"])
        self.sent.append(Answer(engine_id, request, self.reply))

    def receive(self) -> list[Answer]:
        sent, self.sent = self.sent, []
        return sent


GOOD: dict[str, Any] = {"ok": True, "engine_id": "n1", "incarnation": "i", "engine_ns": 5, "owned": {}}


@pytest.mark.parametrize(
    "wrong",
    [{"engine_id": "n2"}, {"incarnation": 7}, {"engine_ns": "now"}, {"incarnation": ""}, {"ok": False, "error": "no"}],
)
def test_an_engine_whose_answer_is_wrong_gets_no_camera(wrong: dict[str, Any]) -> None:
    for reply, expected in ((GOOD, True), (GOOD | wrong, False)):
        clock, links = FakeClock(), Scripted(reply)
        controller = Controller(SqliteLedger(":memory:"), links, clock)
        controller.configure([CameraSpec("cam", {"uri": "rtsp://gate"})])
        controller.join(Machine("n1", 8.0))
        for _ in range(5):
            clock.advance(1.0)
            controller.turn()
        assert ("assign" in links.commands) is expected


def test_reports_that_no_engine_can_mean_are_left_out() -> None:
    clock = FakeClock()
    links = Scripted(GOOD | {"owned": {"a": 1, "b": {"epoch": "x"}, "c": {"epoch": -1}, "d": {"epoch": 1 << 60}}})
    controller = Controller(SqliteLedger(":memory:"), links, clock)
    controller.join(Machine("n1", 8.0))
    for _ in range(5):
        clock.advance(1.0)
        controller.turn()
    assert controller.cameras() == {}
    assert controller.live() == {"n1": "i"}


HUGE = 10**4000
HOSTILE: dict[str, dict[str, Any]] = {
    "an empty name": {"owned": {"": {"epoch": 1}}},
    "a long name": {"owned": {"x" * 300: {"epoch": 1}}},
    "an epoch that is true": {"owned": {"cam": {"epoch": True}}},
    "a clock of 4000 digits": {"engine_ns": HUGE},
    "a clock before all time": {"engine_ns": -HUGE},
    "a clock that is true": {"engine_ns": True},
    "a long incarnation": {"incarnation": "x" * 1_000_000},
    "a state that is a list": {"owned": {"cam": {"epoch": 1, "state": ["running"]}}},
    "a state of a million letters": {"owned": {"cam": {"epoch": 1, "state": "x" * 1_000_000}}},
    "costs that are none": {"owned": {"cam": {"epoch": 1, "fps": HUGE, "cpu_ms": float("nan"), "published": "x"}}},
    "owned that is a list": {"owned": ["cam"]},
    "an error that is an object": {"ok": False, "conflict": True, "error": {"incarnation": 1}},
    "the last epoch that there is": {"owned": {"cam": {"epoch": 2**53 - 1}}},
    "a refusal with the last epoch": {"ok": False, "conflict": True, "error": "no", "epoch": 2**53 - 1},
    "a refusal with an epoch of 4000 digits": {"ok": False, "conflict": True, "error": "no", "epoch": HUGE},
    "ok that is a word": {"ok": "yes"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_answer_of_an_engine_ends_the_controller(name: str) -> None:
    clock, links = FakeClock(), Scripted(GOOD | HOSTILE[name])
    controller = Controller(SqliteLedger(":memory:"), links, clock)
    controller.configure([CameraSpec("cam", {"uri": "rtsp://gate"})])
    controller.join(Machine("n1", 8.0))
    for _ in range(20):
        clock.advance(1.0)
        controller.turn()
        told = json.dumps(controller.status())
        assert len(told) < 10_000
    assert all(len(json.dumps(answer.request)) < 10_000 for answer in links.sent)
    assert set(controller.cameras()) <= {"cam"}


class Refusing(Scripted):
    """An engine that refuses epochs up to the highest that it has seen, as after the ledger came from a backup."""

    def __init__(self, highest: int) -> None:
        super().__init__(GOOD)
        self.highest, self.tried = highest, list[int]()

    def send(self, engine_id: str, request: dict[str, Any]) -> None:
        self.reply = GOOD
        if request["command"] == "assign":
            self.tried.append(request["epoch"])
            if request["epoch"] <= self.highest:
                self.reply = {"ok": False, "conflict": True, "error": "not higher", "epoch": self.highest}
        super().send(engine_id, request)


@pytest.mark.parametrize("highest", [3, 2**31, 2**53 - 3])
def test_a_camera_whose_ledger_is_far_behind_starts_at_the_second_attempt(highest: int) -> None:
    clock, links = FakeClock(), Refusing(highest)
    controller = Controller(SqliteLedger(":memory:"), links, clock)
    controller.configure([CameraSpec("cam", {"uri": "rtsp://gate"})])
    controller.join(Machine("n1", 8.0))
    for _ in range(20):
        clock.advance(0.3)
        controller.turn()
        if links.tried[-1:] == [highest + 1]:
            break
    assert links.tried == [1, highest + 1]


def test_a_camera_without_further_epochs_says_so() -> None:
    last = GOOD | {"owned": {"cam": {"epoch": 2**53 - 1}}}
    clock, links = FakeClock(), Scripted(last)
    controller = Controller(SqliteLedger(":memory:"), links, clock)
    controller.configure([CameraSpec("cam", {"uri": "rtsp://gate"})])
    controller.join(Machine("n1", 8.0))
    for number in range(40):
        links.reply = last if number < 10 else GOOD  # it ends there
        clock.advance(1.0)
        controller.turn()
    assert "epochs are used up" in controller.cameras()["cam"]["why"]


def test_cameras_that_an_engine_invents_are_bounded() -> None:
    """New names on each turn: neither the controller nor its ledger grows without limit."""
    clock, links = FakeClock(), Scripted(GOOD)
    ledger = SqliteLedger(":memory:")
    controller = Controller(ledger, links, clock)
    controller.configure([CameraSpec("cam", {"uri": "rtsp://gate"})])
    controller.join(Machine("n1", 8.0))
    for turn in range(8):
        links.reply = GOOD | {"owned": {f"{turn}-{n}": {"epoch": 1} for n in range(5000)}}
        clock.advance(1.0)
        controller.turn()
    assert len(ledger.read()) <= MAX_ADOPTED + 1
    assert "cam" in controller.cameras()


def test_the_usual_canary_sends_images_and_uses_the_model_of_the_fleet() -> None:
    clock = FakeClock()
    states = {"a": ("connecting", "detector"), "b": ("live", "plates"), "c": ("live", "detector")}
    reports = {name: {"epoch": 1, "state": state, "model": model} for name, (state, model) in states.items()}
    links = Scripted(GOOD)
    controller = Controller(SqliteLedger(":memory:"), links, clock)
    controller.configure([CameraSpec(name, {"uri": "rtsp://gate"}) for name in states])
    controller.join(Machine("n1", 8.0))
    assert controller.canaries() == {}
    for _ in range(3):
        clock.advance(0.3)
        controller.turn()
    assert list(controller.canaries()) == ["a", "b", "c"], "they run, and no engine has reported them yet"
    links.reply = GOOD | {"owned": reports}
    for _ in range(5):
        clock.advance(1.0)
        controller.turn()
    assert list(controller.canaries()) == ["c", "a"]
