"""What a bridge knows by itself: engines that die, cameras that go, earlier states, and its own identity."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.clock import FakeClock
from engine.errors import ConfigError
from engine.sinks.zmq import ZmqPublisher
from engine.wire import HeartbeatMessage, StatusMessage, frame_message
from pipelines.stream.bridges.base import Forwarder, TargetError
from pipelines.stream.bridges.engine_state import EngineState
from pipelines.stream.bridges.home_assistant import discovery
from pipelines.stream.bridges.mqtt import MqttBridge, MqttOutput
from pipelines.verbs.stream.bridge import _broker, output_for, snapshot_at
from tests.pipelines.stream.bridges.peers import mosquitto_command, program, running, wait_for
from tests.wire.samples import RUN, SAMPLES, packet, status

HEARTBEAT = msgspec.structs.replace(SAMPLES["heartbeat"], engine_id="engine-1", interval_s=1.0)


def retained(port: int) -> dict[str, str]:
    """Return what the broker retains for later subscribers."""
    command = [program("mosquitto_sub", "mosquitto-clients"), "-p", str(port), "-t", "framewire/#", "-v"]
    done = subprocess.run([*command, "--retained-only", "-W", "1"], capture_output=True, text=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def opened(port: int, clock: FakeClock) -> Forwarder:
    bridge = MqttBridge(lambda engine_id: MqttOutput("127.0.0.1", port, engine_id=engine_id, clock=clock))
    forwarder = Forwarder(bridge)
    forwarder.pump()
    return forwarder


def until(forwarder: Forwarder, port: int, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    found: dict[str, str] = {}

    def looked() -> bool:
        nonlocal found
        for _ in range(5):
            forwarder.pump()
        found = retained(port)
        return holds(found)

    wait_for(looked, timeout_s=30)
    return found


def test_a_killed_engine_is_offline_and_its_cameras_unknown(tmp_path: Path, free_port: int) -> None:
    clock = FakeClock()
    with running(mosquitto_command(tmp_path, free_port), free_port):
        forwarder = opened(free_port, clock)
        forwarder.watch(HEARTBEAT)
        forwarder.offer(frame_message(packet(3)))
        before = until(forwarder, free_port, lambda kept: kept.get("framewire/gate/occupied") == "ON")
        clock.advance(10.0)
        after = until(forwarder, free_port, lambda kept: kept.get("framewire/engine-1/available") == "offline")
        forwarder.watch(HEARTBEAT)
        forwarder.offer(frame_message(packet(2)))
        again = until(forwarder, free_port, lambda kept: kept.get("framewire/gate/count") == "2")
        forwarder.close()
    assert before["framewire/engine-1/available"] == "online"
    assert json.loads(before["framewire/status/gate"])["state"] == "live"  # made from frames: none was sent
    assert (after["framewire/gate/occupied"], after["framewire/gate/count"]) == ("None", "None")
    assert json.loads(after["framewire/status/gate"])["state"] == "offline"
    assert again["framewire/engine-1/available"] == "online"
    assert json.loads(again["framewire/status/gate"])["state"] == "live"


@pytest.mark.parametrize("state", ["offline", "stalled", "ended"])
def test_nothing_is_known_of_a_camera_that_is_gone(tmp_path: Path, free_port: int, state: str) -> None:
    with running(mosquitto_command(tmp_path, free_port), free_port):
        forwarder = opened(free_port, FakeClock())
        forwarder.offer(frame_message(packet(3)))
        forwarder.offer(msgspec.structs.replace(SAMPLES["status"], state=state))
        kept = until(forwarder, free_port, lambda kept: kept.get("framewire/gate/occupied") == "None")
        forwarder.close()
    assert kept["framewire/engine-1/available"] == "online"
    assert json.loads(kept["framewire/status/gate"])["state"] == state


def test_two_bridges_of_one_engine_do_not_evict_each_other(tmp_path: Path, free_port: int) -> None:
    with running(mosquitto_command(tmp_path, free_port), free_port):
        bridges = [MqttOutput("127.0.0.1", free_port) for _ in range(2)]
        for bridge in bridges:
            bridge.open()
        for _ in range(20):
            for bridge in bridges:
                bridge.turn()  # raises if the connection was removed
        for bridge in bridges:
            bridge.close()


@pytest.mark.parametrize("is_killed", [pytest.param(False, id="ended"), pytest.param(True, id="killed")])
def test_a_bridge_that_goes_leaves_the_state_of_one_that_stays(tmp_path: Path, free_port: int, is_killed: bool) -> None:
    with running(mosquitto_command(tmp_path, free_port), free_port):
        clock = FakeClock()  # stands still: the engine is never taken for a lost one
        outputs = [MqttOutput("127.0.0.1", free_port, engine_id="engine-1", clock=clock) for _ in range(2)]
        goes, stays = [Forwarder(output) for output in outputs]
        for forwarder in (goes, stays):
            forwarder.pump()
            forwarder.watch(HEARTBEAT)
            forwarder.offer(frame_message(packet(3)))
        until(stays, free_port, lambda kept: kept.get("framewire/gate/count") == "3")
        goes.pump()
        if is_killed:
            outputs[0]._client.socket().close()  # without goodbye, so that the broker publishes the last will
        else:
            goes.close()
            assert retained(free_port)["framewire/gate/occupied"] == "None", "occupied after the only bridge has ended"
        wait_for(lambda: retained(free_port)["framewire/engine-1/available"] == "offline")

        def is_told_again(kept: dict[str, str]) -> bool:
            stays.offer(frame_message(packet(3)))
            return (kept["framewire/engine-1/available"], kept["framewire/gate/count"]) == ("online", "3")

        kept = until(stays, free_port, is_told_again)
        stays.close()
    assert json.loads(kept["framewire/status/gate"])["state"] == "live"


def test_each_engine_behind_a_proxy_has_its_own_availability(tmp_path: Path, free_port: int) -> None:
    with running(mosquitto_command(tmp_path, free_port), free_port):
        forwarder = opened(free_port, FakeClock())
        for name in ("edge-1", "edge-2"):
            forwarder.watch(msgspec.structs.replace(HEARTBEAT, engine_id=name))
        kept = until(forwarder, free_port, lambda kept: len(kept) >= 2)
        forwarder.close()
    assert kept == {"framewire/edge-1/available": "online", "framewire/edge-2/available": "online"}


def test_a_broker_that_is_away_is_told_of_once(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    forwarder = Forwarder(MqttBridge(lambda engine_id: MqttOutput("127.0.0.1", free_port, engine_id=engine_id)))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            forwarder._retry_ns = 0
            forwarder.pump()
    assert [record for record in caplog.messages if "cannot be reached" in record] == caplog.messages[:1]
    assert len(caplog.messages) == 1


def test_an_absent_web_hook_is_told_of_once(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    forwarder = Forwarder(output_for(f"http://127.0.0.1:{free_port}/hook"))
    forwarder.offer(SAMPLES["event"])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            forwarder._retry_ns = 0
            forwarder.pump()
    assert len(caplog.messages) == 1
    assert forwarder.pending == 1


@pytest.mark.parametrize(
    ("address", "login"),
    [
        pytest.param("mqtt://cam:Tiger7@h", ("cam", "Tiger7"), id="plain"),
        pytest.param("mqtt://cam:Tiger7%40x@h", ("cam", "Tiger7@x"), id="encoded at"),
        pytest.param("mqtt://cam:Tiger7%23x@h", ("cam", "Tiger7#x"), id="encoded hash"),
        pytest.param("mqtt://cam:Tiger7#x@h", ("cam", "Tiger7#x"), id="raw hash"),
        pytest.param("mqtt://cam:Tiger7/x?@h", ("cam", "Tiger7/x?"), id="raw slash and question mark"),
        pytest.param("mqtt://cam:Ti@ger@h", ("cam", "Ti@ger"), id="raw at"),
        pytest.param("mqtt://cam:a%20b:c@h", ("cam", "a b:c"), id="space and colon"),
        pytest.param("mqtt://h", (None, None), id="none"),
    ],
)
def test_passwords_arrive_as_they_were_meant(address: str, login: tuple[str | None, str | None]) -> None:
    broker = _broker(address)
    assert (broker["username"], broker["password"]) == login
    assert (broker["host"], broker["port"]) == ("h", 1883)


def test_a_wrong_port_is_an_error_without_the_password() -> None:
    with pytest.raises(ConfigError, match="is invalid") as caught:
        output_for("mqtt://cam:Tiger7@h:port")
    assert "Tiger7" not in str(caught.value)


def test_home_assistant_takes_every_camera_name() -> None:
    names = [
        "192.168.1.20:8554",
        "192.168.1.20_8554",
        "Küche",
        "Kuche",
        "k.che",
        "廊下",
        "door",
        "front gate",
        "a.b",
        "a:b",
    ]
    topics = [topic for name in names for topic in discovery("framewire", "edge.local", name)]
    for topic in topics:
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", part) for part in topic.split("/")), topic
    assert len(set(topics)) == len(topics)


def test_a_late_bridge_asks_for_the_snapshot() -> None:
    publisher = ZmqPublisher("tcp://127.0.0.1:*", snapshot="tcp://127.0.0.1:*")
    publisher.open(RUN)
    publisher.status(status("offline"))
    found = []

    def answered() -> bool:
        publisher.tick()
        return bool(found)

    asking = threading.Thread(
        target=lambda: found.append(snapshot_at(publisher.address, {}, publisher.endpoints["snapshot"]))
    )
    asking.start()
    wait_for(answered)
    asking.join()
    publisher.close()
    assert found[0] is not None
    state = EngineState()
    (new,) = state.take(found[0])
    assert isinstance(new, StatusMessage)
    assert new.state == "offline"


def test_a_heartbeat_is_never_handed_on_as_a_camera(tmp_path: Path) -> None:
    assert isinstance(HEARTBEAT, HeartbeatMessage)
    state = EngineState()
    assert state.take(HEARTBEAT) == []
    assert state.is_alive
    with pytest.raises(TargetError):
        MqttOutput("127.0.0.1", 1).open()
