"""Health: alive while its threads run, ready when it works; a dead camera does not make an engine unready."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.clock import FakeClock
from engine.data import Run
from engine.stats import PipelineStats
from pipelines.metrics.engine_health import EngineHealth
from pipelines.metrics.health import LoopHealth, health_routes
from pipelines.metrics.watchdog import Watchdog, notify


def run_of(clock: FakeClock, *names: str, loaded: bool = True) -> Any:
    stats = PipelineStats(clock)
    for name in names:
        stats.source(name).begin()
    lane = SimpleNamespace(is_loaded=loaded, run=Run("engine", 1, "model.onnx"))
    return SimpleNamespace(
        stats=stats, models={"detector": lane}, running_sources=list(names), run_facts=Run("engine", 1)
    )


def test_an_engine_is_alive_while_its_main_loop_and_its_publishing_thread_turn() -> None:
    clock = FakeClock(1)
    pipeline = run_of(clock, "gate")
    health = EngineHealth(pipeline, clock)
    for _ in range(10):
        clock.advance(2)
        health.beat()
        pipeline.stats.tick()
        assert health.against_live() == []
    for _ in range(3):
        clock.advance(2)
        health.beat()
    assert health.against_live() == ["the publishing thread last ran 6.0 s ago"]
    pipeline.stats.tick()
    clock.advance(6)
    assert len(health.against_live()) == 2


def test_an_engine_is_ready_once_its_models_are_loaded_and_its_sources_deliver_or_are_offline() -> None:
    clock = FakeClock(1)
    pipeline = run_of(clock, "gate", "dead", loaded=False)
    health = EngineHealth(pipeline, clock)
    assert health.against_ready() == [
        "model detector is not loaded",
        "source gate has not delivered a frame (connecting)",
        "source dead has not delivered a frame (connecting)",
    ]
    pipeline.models["detector"].is_loaded = True
    pipeline.stats.source("gate").add_captured()
    pipeline.stats.source("dead").set_state("offline", "connection refused", 0)
    assert health.against_ready() == []
    pipeline.stats.source("gate").set_state("stalled", "", 0)  # it has worked: the camera's fault
    assert health.against_ready() == []


def test_the_report_has_every_source_and_hides_secrets() -> None:
    clock = FakeClock(1)
    pipeline = run_of(clock, "gate")
    pipeline.stats.source("gate").set_state("offline", "rtsp://admin:hunter22@camera/ refused", 0)
    health = EngineHealth(pipeline, clock)
    reply = health_routes(health)["/healthz"]()
    facts = json.loads(reply.body)
    assert (reply.status, facts["ready"]) == (200, True)
    assert facts["sources"]["gate"]["state"] == "offline"
    assert "hunter22" not in reply.body
    clock.advance(30)
    assert health_routes(health)["/healthz"]().status == 503
    assert health_routes(health)["/livez"]().status == 503


def test_a_process_with_one_loop_is_ready_once_that_turns() -> None:
    clock = FakeClock(1)
    health = LoopHealth(clock=clock)
    assert health.against_live() == []
    assert health.against_ready() == ["the main loop has not started"]
    assert health.beat() is False
    assert health.against_ready() == []
    clock.advance(6)
    assert health.against_live() == health.against_ready() == ["the main loop last ran 6.0 s ago"]


def test_systemd_hears_once_that_the_engine_is_ready_and_then_that_it_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(1)
    pipeline = run_of(clock, "gate", loaded=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        health = EngineHealth(pipeline, clock)
        watchdog = Watchdog(health, clock)

        def after(seconds: float) -> str:
            clock.advance(seconds)
            watchdog.tick()
            manager.setblocking(False)
            try:
                return manager.recv(4096).decode()
            except BlockingIOError:
                return ""

        health.beat()
        first = after(1)
        assert first.startswith("STATUS=model detector is not loaded, source gate")
        assert "WATCHDOG=1" in first
        assert "READY" not in first
        pipeline.models["detector"].is_loaded = True
        assert after(0.5) == ""
        assert "READY=1" in after(1)
        pipeline.stats.source("gate").add_captured()
        assert after(1) == "STATUS=running\nWATCHDOG=1\n"
        assert "WATCHDOG" not in after(10)
        watchdog.stopping()
        assert manager.recv(4096) == b"STOPPING=1\n"


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify("READY=1") is False
