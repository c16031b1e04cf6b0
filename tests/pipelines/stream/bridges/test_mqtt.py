"""The MQTT bridge against mosquitto: what its own client sees, restarts without loss, Home Assistant's form."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from engine.wire import Message, encode, frame_message
from pipelines.stream.bridges.base import Forwarder, TargetError
from pipelines.stream.bridges.mqtt import MqttOutput, discovery
from tests.pipelines.stream.bridges.peers import mosquitto_command, program, running, wait_for
from tests.wire.samples import SAMPLES, packet

pytest.importorskip("paho.mqtt.client", reason="pip install paho-mqtt")


class Listener:
    """mosquitto_sub, with its output so far."""

    def __init__(self, port: int, folder: Path) -> None:
        self._out = (folder / "heard.txt").open("w+")
        command = [program("mosquitto_sub", "mosquitto-clients"), "-p", str(port), "-t", "#", "-v", "-q", "1"]
        self.process = subprocess.Popen(command, stdout=self._out)

    def heard(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for line in Path(self._out.name).read_text().splitlines():
            topic, _, payload = line.partition(" ")
            found.setdefault(topic, []).append(payload)
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._out.close()


def test_messages_are_seen_by_other_clients_of_the_broker(tmp_path: Path, free_port: int) -> None:
    with running(mosquitto_command(tmp_path, free_port), free_port):
        forwarder = Forwarder(MqttOutput("127.0.0.1", free_port, engine_id="engine-1"))
        for kind in ("status", "event", "eos", "heartbeat", "stats"):
            forwarder.offer(SAMPLES[kind])
        forwarder.offer(frame_message(packet(3)))
        listener = Listener(free_port, tmp_path)
        while "framewire/eos/gate" not in listener.heard():
            forwarder.offer(SAMPLES["eos"])
            forwarder.pump()
        forwarder.close()
        wait_for(lambda: "offline" in listener.heard().get("framewire/engine-1/available", []))
        heard = listener.heard()
        listener.close()
    assert json.loads(heard["framewire/status/gate"][0]) == json.loads(encode(SAMPLES["status"]))
    assert heard["framewire/gate/count"][-2:] == ["3", "None"], "known after the bridge has ended"
    assert heard["framewire/gate/occupied"][-2:] == ["ON", "None"]
    configs = [topic for topic in heard if topic.startswith("homeassistant/")]
    assert len(configs) == 4  # objects, occupied, connection, and the alert rule of the event


def test_events_survive_a_restart_of_the_broker(tmp_path: Path, free_port: int) -> None:
    command = mosquitto_command(tmp_path, free_port)
    forwarder = Forwarder(MqttOutput("127.0.0.1", free_port, discovery=False))
    events = [msgspec.structs.replace(SAMPLES["event"], seq=n, event_id=str(n)) for n in range(20)]
    before, after = events[:10], events[10:]
    with running(command, free_port):
        assert _delivered(forwarder, before, free_port, tmp_path) == {str(n) for n in range(10)}
    while forwarder.summary.reconnects == 0:
        forwarder.pump()  # notices that the broker is gone
    for event in after:
        forwarder.offer(event)
    forwarder.pump()
    assert forwarder.pending == 10
    with running(command, free_port):
        forwarder._retry_ns = 0  # not wait for the pause to end
        assert _delivered(forwarder, [], free_port, tmp_path) == {str(n) for n in range(10, 20)}
        forwarder.close()


def _delivered(forwarder: Forwarder, events: list[Message], port: int, folder: Path) -> set[str]:
    """Offer events; return the ids that another client of the broker hears, once ten have come."""
    listener = Listener(port, folder)
    wait_for(lambda: _is_subscribed(port, listener))
    for event in events:
        forwarder.offer(event)
    wait_for(lambda: _pumped(forwarder) and len(_events(listener)) >= 10)
    found = _events(listener)
    listener.close()
    return found


def _pumped(forwarder: Forwarder) -> bool:
    forwarder.pump()
    return forwarder.pending == 0


def _events(listener: Listener) -> set[str]:
    return {json.loads(payload)["event_id"] for payload in listener.heard().get("framewire/event/gate", [])}


def _is_subscribed(port: int, listener: Listener) -> bool:
    subprocess.run(
        [program("mosquitto_pub", "mosquitto-clients"), "-p", str(port), "-t", "probe", "-m", "x"], check=True
    )
    return "probe" in listener.heard()


def test_a_broker_that_is_away_is_tried_again(free_port: int) -> None:
    with pytest.raises(TargetError, match="cannot be reached"):
        MqttOutput("127.0.0.1", free_port).open()


def test_a_wrong_password_is_an_error_that_says_so(tmp_path: Path, free_port: int) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run([program("mosquitto_passwd", "mosquitto"), "-b", "-c", str(passwords), "ann", "right"], check=True)
    with running(mosquitto_command(tmp_path, free_port, password_file=passwords), free_port):
        right = MqttOutput("127.0.0.1", free_port, username="ann", password="right")
        right.open()
        right.close()
        with pytest.raises(ConfigError, match=r"refuses: Not authorized.*check user and password"):
            MqttOutput("127.0.0.1", free_port, username="ann", password="wrong").open()


def test_discovery_has_the_fields_that_home_assistant_requires() -> None:
    payloads = discovery("framewire", "engine-1", "front gate/#1", "yolo11n")
    assert list(payloads) == [
        "homeassistant/sensor/framewire_engine-1_front_gate__1/objects/config",
        "homeassistant/binary_sensor/framewire_engine-1_front_gate__1/occupied/config",
        "homeassistant/binary_sensor/framewire_engine-1_front_gate__1/connection/config",
    ]
    assert len({payload["unique_id"] for payload in payloads.values()}) == 3
    for payload in payloads.values():
        assert payload["state_topic"].startswith("framewire/")
        assert not set("+#") & set(payload["state_topic"])
        assert payload["device"]["identifiers"]
        assert payload["origin"]["name"] == "framewire"
        assert payload["availability_topic"] == "framewire/engine-1/available"
    assert payloads[list(payloads)[1]]["device_class"] == "occupancy"
