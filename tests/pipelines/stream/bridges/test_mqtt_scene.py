"""Zones, lines, rules and images on a real broker, and commands from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.clock import FakeClock
from engine.errors import ConfigError
from engine.subscriber import NoMessageError, Subscriber
from engine.wire import AnalyticsMessage, EventMessage, Message, RuleState, StatusMessage, schema_of
from pipelines.running.control import ask
from pipelines.stream.bridges.base import Forwarder
from pipelines.stream.bridges.mqtt import MqttOutput
from pipelines.stream.bridges.mqtt_commands import MqttCommands, request_of
from pipelines.verbs.stream.bridge import output_for
from tests.freshness.engine_process import free_port as another_port
from tests.pipelines.stream.bridges.peers import mosquitto_command, program, running, wait_for
from tests.wire.samples import SAMPLES

pytest.importorskip("paho.mqtt.client", reason="pip install paho-mqtt")
EPOCH = 1_790_000_000_000_000_000
ENGINE = "engine-1"


def totals(**changes: Any) -> AnalyticsMessage:
    given: dict[str, Any] = {"run_epoch": EPOCH, "open": [], "rules": {"intruder": RuleState(severity="alert", open=0)}}
    return msgspec.structs.replace(SAMPLES["analytics"], **{**given, **changes})  # type: ignore[type-var]


def episode(phase: str, number: int = 7, **changes: Any) -> EventMessage:
    given = {"run_epoch": EPOCH, "phase": phase, "event_id": f"gate-{EPOCH}-intruder-{number}"}
    return msgspec.structs.replace(SAMPLES["event"], **{**given, **changes})  # type: ignore[type-var]


class Retained:
    """What a broker keeps, as a client that joins late gets it."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port, self._folder = port, folder

    def all(self) -> dict[str, bytes]:
        command = [program("mosquitto_sub", "mosquitto-clients"), "-p", str(self._port), "-t", "#"]
        form = ["--retained-only", "-F", "%t %x", "-W", "1"]
        done = subprocess.run([*command, *form], capture_output=True, text=True, check=False)
        lines = (line.partition(" ") for line in done.stdout.splitlines())
        return {topic: bytes.fromhex(payload) for topic, _, payload in lines}


def told(port: int, folder: Path, *messages: Message) -> dict[str, bytes]:
    """Return what the broker keeps after these messages, before the bridge ends."""
    output = MqttOutput("127.0.0.1", port, engine_id=ENGINE)
    forwarder = Forwarder(output)
    for message in messages:
        forwarder.offer(message)
    wait_for(lambda: (forwarder.pump(), forwarder.pending == 0 and not output._waiting.unacknowledged)[1])
    kept = Retained(port, folder).all()
    forwarder.close()
    return kept


def test_late_clients_find_counts_totals_rules_and_the_run(tmp_path: Path, free_port: int) -> None:
    picture = msgspec.structs.replace(SAMPLES["image"], jpeg=b"\xff\xd8 not quite \xff\xd9")  # type: ignore[type-var]
    with running(mosquitto_command(tmp_path, free_port), free_port):
        kept = told(free_port, tmp_path, SAMPLES["status"], totals(), picture)
    assert {topic: payload for topic, payload in kept.items() if topic.startswith("framewire/gate/")} == {
        "framewire/gate/zone/yard/count": b"3",
        "framewire/gate/zone/yard/occupied": b"ON",
        "framewire/gate/zone/yard/visits": b"12",
        "framewire/gate/zone/street/count": b"0",
        "framewire/gate/zone/street/occupied": b"OFF",
        "framewire/gate/zone/street/visits": b"0",
        "framewire/gate/line/door/in": b"8",
        "framewire/gate/line/door/out": b"0",
        "framewire/gate/rule/intruder": b"OFF",
        "framewire/gate/picture": b"\xff\xd8 not quite \xff\xd9",
    }
    assert json.loads(kept["framewire/analytics/gate"])["run_epoch"] == EPOCH


def test_every_entity_is_announced_in_home_assistants_form(tmp_path: Path, free_port: int) -> None:
    picture = msgspec.structs.replace(SAMPLES["image"], jpeg=b"\xff\xd8")  # type: ignore[type-var]
    with running(mosquitto_command(tmp_path, free_port), free_port):
        kept = told(free_port, tmp_path, SAMPLES["status"], SAMPLES["frame"], totals(), picture)
    configs = {topic: json.loads(payload) for topic, payload in kept.items() if topic.startswith("homeassistant/")}
    kinds = sorted(tuple(topic.split("/")[1:4:2]) for topic in configs)
    assert kinds == [
        ("binary_sensor", "connection"),
        ("binary_sensor", "occupied"),
        ("binary_sensor", "rule_intruder"),
        ("binary_sensor", "zone_street_occupied"),
        ("binary_sensor", "zone_yard_occupied"),
        ("image", "picture"),
        ("sensor", "line_door_in"),
        ("sensor", "line_door_out"),
        ("sensor", "objects"),
        ("sensor", "zone_street_count"),
        ("sensor", "zone_street_visits"),
        ("sensor", "zone_yard_count"),
        ("sensor", "zone_yard_visits"),
    ]
    assert len({config["unique_id"] for config in configs.values()}) == len(configs)
    assert len({config["device"]["identifiers"][0] for config in configs.values()}) == 1
    for config in configs.values():
        assert config["availability_topic"] == f"framewire/{ENGINE}/available"
        assert (config.get("state_topic") or config["image_topic"]) in kept
    [line] = [config for topic, config in configs.items() if "line_door_in" in topic]
    assert line["state_class"] == "total_increasing"
    assert line["json_attributes_topic"] in kept


def test_a_rule_is_on_while_an_episode_is_open_and_unknown_without_the_engine(tmp_path: Path, free_port: int) -> None:
    states = []
    clock = FakeClock()
    with running(mosquitto_command(tmp_path, free_port), free_port):
        output = MqttOutput("127.0.0.1", free_port, engine_id=ENGINE, clock=clock)
        output.open()
        steps: list[Message] = [
            totals(),
            episode("begin", 7),
            episode("begin", 8),
            episode("end", 7),
            episode("end", 8),
            totals(open=[f"gate-{EPOCH}-intruder-9"], rules={"intruder": RuleState(severity="alert", open=1)}),
        ]
        for message in steps:
            output.send(message)
            states.append(output._scene("gate")._sent["framewire/gate/rule/intruder"])
        output.send(SAMPLES["status"])
        clock.advance(60)
        wait_for(lambda: (output.turn(), not output._waiting.unacknowledged)[1])
        kept = Retained(free_port, tmp_path).all()
        output.close()
    assert states == [b"OFF", b"ON", b"ON", b"ON", b"OFF", b"ON"]
    assert kept["framewire/gate/rule/intruder"] == b"None"
    assert kept["framewire/gate/zone/yard/occupied"] == b"None"
    assert kept["framewire/gate/line/door/in"] == b"8"
    assert json.loads(kept["framewire/gate/rule/intruder/event"])["event_id"].endswith("-8")


def test_cameras_that_share_their_topics_are_named(
    tmp_path: Path, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    status = SAMPLES["status"]
    named = [msgspec.structs.replace(status, source_id=name) for name in ("yard", "a#b", "a_b", "a#b")]  # type: ignore[type-var]
    with running(mosquitto_command(tmp_path, free_port), free_port):
        told(free_port, tmp_path, *named)
    warnings = [record.getMessage() for record in caplog.records if "rename one" in record.getMessage()]
    assert warnings == ["cameras 'a#b' and 'a_b' get the same MQTT topics or entities: rename one"]


def test_an_episode_of_an_earlier_run_does_not_stay_open() -> None:
    output = MqttOutput("127.0.0.1", 1, engine_id=ENGINE)
    scene = output._scene("gate")
    found = dict(scene.of(episode("begin"))) | dict(scene.of(episode("end", 1, run_epoch=EPOCH + 5)))
    assert found["framewire/gate/rule/intruder"] == b"OFF"


def test_info_and_notice_rules_are_no_alarms() -> None:
    scene = MqttOutput("127.0.0.1", 1, engine_id=ENGINE)._scene("gate")
    made = dict(scene.of(totals(rules={"loiter": RuleState(severity="notice", open=1)})))
    made |= dict(scene.of(episode("begin", rule="loiter", severity="notice")))
    assert not [topic for topic in made if "/rule" in topic]


def test_a_crop_is_not_the_picture_of_a_camera() -> None:
    scene = MqttOutput("127.0.0.1", 1, engine_id=ENGINE)._scene("gate")
    crop = msgspec.structs.replace(SAMPLES["crop"], jpeg=b"\xff\xd8")  # type: ignore[type-var]
    assert list(scene.of(crop)) == []
    assert crop.schema == schema_of("crop")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("payload", "request_"),
    [
        (b"pause", {"command": "pause", "source_id": "gate"}),
        (b" resume ", {"command": "resume", "source_id": "gate"}),
        (b"snooze 90s", {"command": "snooze", "source_id": "gate", "for_s": 90}),
        (b"snooze off", {"command": "snooze", "source_id": "gate", "for_s": 0}),
    ],
)
def test_the_commands(payload: bytes, request_: dict[str, Any]) -> None:
    assert request_of("gate", payload) == request_


@pytest.mark.parametrize(
    "payload",
    [b"", b"stop", b"pause yard", b"snooze", b"snooze forever", b"snooze -5m", b"\xff\xfe", b"x" * 5000, b'{"a": 1}'],
)
def test_everything_else_is_refused(payload: bytes) -> None:
    with pytest.raises(ConfigError):
        request_of("gate", payload)


def test_only_listed_cameras_obey_and_not_too_often() -> None:
    done: list[dict[str, Any]] = []
    clock = FakeClock()

    def act(request: dict[str, Any]) -> dict[str, Any]:
        done.append(request)
        return {"sources": {"gate": {"paused": True}}}

    commands = MqttCommands(["gate"], act, clock=clock)
    assert commands.topics == ["framewire/gate/command"]
    assert list(commands.handle("framewire/yard/command", b"pause", is_retained=False)) == []
    assert list(commands.handle("framewire/gate/command", b"pause", is_retained=True)) == []
    assert done == []
    assert dict(commands.handle("framewire/gate/command", b"pause", is_retained=False)) == {
        "framewire/gate/detecting": b"OFF",
        "framewire/gate/command/result": b'{"ok": true}',
    }
    [(_, refused)] = commands.handle("framewire/gate/command", b"resume", is_retained=False)
    assert "too fast" in json.loads(refused)["error"]
    clock.advance(1.0)
    assert len(list(commands.handle("framewire/gate/command", b"resume", is_retained=False))) == 2
    assert [each["command"] for each in done] == ["pause", "status", "resume", "status"]


def test_commands_are_for_brokers_only() -> None:
    with pytest.raises(ConfigError, match="--command requires mqtt"):
        output_for("-", commands=["gate"])
    with pytest.raises(ConfigError, match="share a command topic"):
        MqttCommands(["a/b", "a#b"], dict)  # type: ignore[arg-type]


def test_a_camera_is_paused_and_resumed_through_the_broker(tmp_path: Path, free_port: int) -> None:
    publish, control = f"tcp://127.0.0.1:{another_port()}", f"ipc://{tmp_path}/control"
    command = [sys.executable, "-c", "from pipelines.entry import main; main()", "run", "--model", "motion"]
    camera = ["--source", "cam=synthetic://?realtime=1&fps=10&width=64&height=48"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    engine = subprocess.Popen([*command, *camera, "--publish", publish, "--control", control], **quiet)  # type: ignore[call-overload]
    pub = [program("mosquitto_pub", "mosquitto-clients"), "-p", str(free_port), "-t", "framewire/cam/command", "-m"]
    forwarder = Forwarder(output_for(f"mqtt://127.0.0.1:{free_port}", commands=["cam"], control=control))
    try:
        with running(mosquitto_command(tmp_path, free_port), free_port), Subscriber(publish, ("v1/",)) as subscriber:

            def paused() -> bool:
                try:
                    message = subscriber.receive(0.1)
                    if message is not None and not isinstance(message, StatusMessage):
                        forwarder.offer(message)
                except NoMessageError:
                    pass
                forwarder.pump()
                return bool(ask(control, {"command": "status"}, 30.0)["sources"]["cam"]["paused"])

            assert subscriber.receive(60.0) is not None
            wait_for(lambda: not paused() and forwarder.summary.sent["frame"] > 0, 60.0)
            subprocess.run([*pub, "pause"], check=True)
            wait_for(paused, 60.0)
            subprocess.run([*pub, "nonsense"], check=True)
            assert all(paused() for _ in range(10))
            subprocess.run([*pub, "resume"], check=True)
            wait_for(lambda: not paused(), 60.0)
            forwarder.close()
    finally:
        engine.kill()
        engine.wait()
