"""A controller's open links: many requests at once, and answers that stay with their requests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from engine.clock import SYSTEM_CLOCK
from pipelines.running.control_links import AHEAD, Answer, ControlLinks
from pipelines.running.control_socket import ControlSocket

PATIENCE_S = 60.0


@pytest.fixture
def links() -> Iterator[ControlLinks]:
    made = ControlLinks(SYSTEM_CLOCK, PATIENCE_S)
    yield made
    made.close()


def answers_of(links: ControlLinks, count: int, act: Callable[[], object] = lambda: None) -> list[Answer]:
    found: list[Answer] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count:
        act()
        links.wait(0.005)
        found += links.receive()
        assert time.monotonic() < deadline, found
    return found


def test_a_control_socket_answers_as_many_requests_as_a_controller_has(links: ControlLinks, tmp_path: Path) -> None:
    """When a machine is lost, another may have to start a hundred cameras at once."""
    address, seen = f"ipc://{tmp_path}/s", list[Any]()
    commands = {name: lambda request: seen.append(request["n"]) or {"n": request["n"]} for name in ("assign", "renew")}
    control = ControlSocket(address, commands)
    links.connect("n1", address)
    try:
        for n in range(100):
            links.send("n1", {"command": "assign", "n": n})
        links.send("n1", {"command": "renew", "n": "renewal"})
        answers = answers_of(links, 101, control.poll)
    finally:
        control.close()
    assert [answer.reply and answer.reply["n"] for answer in answers] == [answer.request["n"] for answer in answers]
    assert seen == [*range(AHEAD), "renewal", *range(AHEAD, 100)], "leases wait for cameras that start"


def test_a_request_whose_path_the_system_refuses_gets_the_reason(
    links: ControlLinks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A name from outside may be too long for a file wherever it is looked up: that is no bug of the command."""
    address = f"ipc://{tmp_path}/s"
    control = ControlSocket(address, {"open": lambda request: {"size": Path(request["path"]).stat().st_size}})
    links.connect("n1", address)
    try:
        for path in ("x" * 5000, "/nowhere", "/root\0"):
            links.send("n1", {"command": "open", "path": path})
        answers = answers_of(links, 3, control.poll)
    finally:
        control.close()
    long, missing, null = (str(answer.reply and answer.reply["error"]) for answer in answers)
    assert "too long" in long
    assert len(long) < 300
    assert "/nowhere: No such file" in missing
    assert "null" in null
    assert not caplog.records


def test_an_answer_stays_with_its_request_where_an_earlier_one_was_dropped(links: ControlLinks, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s"

    def serve() -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
            socket.setsockopt(zmq.LINGER, 1000)
            socket.bind(address)
            for n in range(3):
                assert socket.poll(int(1000 * PATIENCE_S))
                who, empty, body = socket.recv_multipart()
                request = json.loads(body)
                if n != 1:
                    reply = {"ok": True, "n": request["n"], "request_id": request["request_id"]}
                    socket.send_multipart([who, empty, json.dumps(reply).encode()])

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    links.connect("n1", address)
    for n in range(3):
        links.send("n1", {"command": "assign", "n": n})
    found = answers_of(links, 3)
    assert [(answer.request["n"], answer.reply) for answer in found] == [
        (0, {"ok": True, "n": 0}),
        (1, None),
        (2, {"ok": True, "n": 2}),
    ]
    server.join(PATIENCE_S)


def test_requests_to_an_engine_that_is_gone_are_all_answered(tmp_path: Path) -> None:
    links = ControlLinks(SYSTEM_CLOCK, 0.05)
    links.connect("n1", f"ipc://{tmp_path}/nobody")
    for n in range(30):
        links.send("n1", {"command": "assign", "n": n})
    assert [(a.request["n"], a.reply) for a in answers_of(links, 30)] == [(n, None) for n in range(30)]
    links.close()
