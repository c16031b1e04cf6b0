"""What the controller makes of answers that are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from engine.clock import FakeClock
from pipelines.fleet.control.controller import Controller
from pipelines.fleet.control.facts import CameraSpec
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
