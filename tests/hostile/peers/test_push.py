"""Media servers that attack the engine which pushes video to them: nothing waits, and nothing grows."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.clock import NS_PER_S, FakeClock
from engine.data import Run
from engine.process import Child
from engine.sinks.children import ChildReportError, Restarts, report_from
from engine.sinks.video_push.push import VideoPush
from engine.sinks.video_push.push_process import MEMORY_BYTES
from engine.sinks.video_push.pusher import STATES, Pusher, push_address
from engine.video.options import SourceOptions
from tests.hostile.lab import HEALTHY, Lab, played
from tests.hostile.peers.media_servers import PLAYS, hostile_server, of_method, refuses
from tests.patience import AT_ONCE_S
from tests.rtsp.test_push import FRAMES, eventually, packet

WATCH_S = 3.0
LEAST = {"rtsp": 2, "rtmp": 1}
"""Connections of one attempt; the first one to an RTSP server only finds out whether it is there."""
CREDENTIALS, KEY = "me:opensesame", "gate-7788-key"


def address_of(kind: str, port: int) -> str:
    return f"{kind}://{CREDENTIALS}@127.0.0.1:{port}/live/{KEY}"


def pushing(url: str, kind: str) -> VideoPush:
    return VideoPush(lambda _: [push_address(url, kind, SourceOptions())], lambda one: one.frame.image)


def held_bytes(pid: int) -> int:
    """Return the private memory of a process and its children."""
    total = 0
    for process in psutil.Process(pid).children(recursive=True):
        try:
            total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return total


@pytest.mark.parametrize("name", PLAYS)
def test_a_hostile_server_takes_neither_time_nor_memory(name: str, caplog: pytest.LogCaptureFixture) -> None:
    kind, play = PLAYS[name]
    with hostile_server(play) as server:
        push = pushing(address_of(kind, server.port), kind)
        push.open(Run("e", 0))
        peak, longest_s = 0, 0.0
        begun = time.monotonic()
        for number in itertools.count():
            before = time.monotonic()
            push.write(packet(number % FRAMES))
            longest_s = max(longest_s, time.monotonic() - before)
            peak = max(peak, held_bytes(os.getpid()))
            if before - begun > WATCH_S and len(server.heard) >= LEAST[kind]:
                break
            time.sleep(0.04)
        told = f"{push.summary()} {caplog.text}"
        ending = time.monotonic()
        push.close()
        ended_s = time.monotonic() - ending
    assert longest_s < AT_ONCE_S
    assert ended_s < AT_ONCE_S
    assert peak < MEMORY_BYTES
    assert "opensesame" not in told
    assert kind == "rtsp" or KEY not in told


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("rtsp", "rtmp"),
    [("endless body", "RTMP: chunks that never end"), ("records without reading", "RTMP: drips")],
)
def test_the_engine_and_its_cameras_do_not_notice(rtsp: str, rtmp: str) -> None:
    with hostile_server(PLAYS[rtsp][1]) as one, hostile_server(PLAYS[rtmp][1]) as other:
        settings = [
            f"publish.rtsp={address_of('rtsp', one.port).replace(KEY, '{source_id}')}",
            f"publish.rtmp={address_of('rtmp', other.port).replace(KEY, '{source_id}')}",
        ]

        def attack(engine: Any) -> dict[str, Any]:
            time.sleep(6)
            connected = {"rtsp": len(one.heard) >= LEAST["rtsp"], "rtmp": len(other.heard) >= LEAST["rtmp"]}
            one.over.set()
            other.over.set()
            return connected

        verdict = played(attack, lambda: Lab({}, *settings), memory_mb=40)
    print(verdict)
    assert verdict.notes == {"rtsp": True, "rtmp": True}
    assert not verdict.faults(memory_mb=40)
    assert HEALTHY in verdict.summary["push"]
    assert "opensesame" not in f"{verdict.summary} {verdict.errors}"


def test_a_server_that_refuses_the_password_is_not_asked_again_soon() -> None:
    """It could lock the account."""
    with hostile_server(of_method("ANNOUNCE", refuses)) as server:
        push = pushing(address_of("rtsp", server.port), "rtsp")
        push.open(Run("e", 0))
        sent = itertools.count()

        def is_refused() -> bool:
            push.write(packet(next(sent) % FRAMES))
            return "refused the user name or password" in str(push.summary())

        eventually(is_refused)
        asked = sum(b"Authorization" in bytes(heard) for heard in server.heard)
        until = time.monotonic() + WATCH_S
        while time.monotonic() < until:
            is_refused()
            time.sleep(0.04)
        assert sum(b"Authorization" in bytes(heard) for heard in server.heard) == asked == 1
        push.close()


def test_a_process_that_dies_at_once_is_started_ever_more_rarely() -> None:
    clock = FakeClock()
    restarts = Restarts(clock)
    pauses = []
    for _ in range(9):
        restarts.started()
        restarts.ended()
        begun_ns = clock.monotonic_ns()
        while not restarts.is_due:
            clock.advance(0.25)
        pauses.append((clock.monotonic_ns() - begun_ns) / NS_PER_S)
    assert pauses == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    restarts.started()
    clock.advance(100)
    restarts.ended()
    assert restarts.is_due


def test_a_killed_push_process_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile_server(PLAYS["says nothing"][1]) as server:
        pusher = Pusher(push_address(address_of("rtsp", server.port), "rtsp", SourceOptions()), "gate")
        try:
            for _ in range(2):
                pid = pusher.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)

                def is_replaced(before: int = pid) -> bool:
                    pusher.look()
                    return pusher.pid not in (None, before)

                eventually(is_replaced)
            assert pusher.figures()["reconnects"] == 2
        finally:
            pusher.close()


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        b"[" * 60_000,
        b"[]",
        b"7",
        b"{}",
        b'{"state": "live"}',
        b'{"state": "elsewhere", "reason": ""}',
        b'{"state": ["live"], "reason": ""}',
        b'{"state": "live", "reason": 7}',
        b'{"state": "live", "reason": "", "sent": "many"}',
        b'{"state": "live", "reason": "", "sent": NaN}',
        b'{"state": "live", "reason": "", "sent": -1}',
        b'{"state": "live", "reason": "", "sent": true}',
        json.dumps({"state": "live", "reason": "", **{f"k{n}": n for n in range(100)}}).encode(),
    ],
)
def test_a_report_that_our_processes_never_send_is_refused(message: bytes) -> None:
    with pytest.raises(ChildReportError):
        report_from(message, STATES)


def test_a_report_is_shown_without_control_characters() -> None:
    message = json.dumps({"state": "live", "reason": "\x1b[2J" + "x" * 5000, "sent": 3}).encode()
    assert report_from(message, STATES)["reason"].startswith("?[2Jxxx")
    assert len(report_from(message, STATES)["reason"]) == 1000


def test_a_push_process_that_sends_nonsense_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It parses what the server sends, so it may do anything."""

    class Nonsense(Child):
        def __init__(self, module: str, *fds: int, name: str = "") -> None:
            super().__init__("tests.hostile.peers.nonsense", *fds, name=name)

    monkeypatch.setattr("engine.sinks.video_push.pusher.Child", Nonsense)
    pusher = Pusher(push_address("rtsp://127.0.0.1:9/x", "rtsp", SourceOptions()), "gate")

    def is_seen() -> bool:
        pusher.look()
        return bool(pusher.figures()["reconnects"])

    try:
        eventually(is_seen)
        assert "not JSON" in pusher.figures()["reason"]
    finally:
        pusher.close()
